//! Traces and logs, as a collector of OpenTelemetry receives them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::support::Datacenter;

/// A collector: what is posted to it, as path and body.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut read = Vec::new();
            let mut piece = [0; 4096];
            let end = loop {
                let Ok(count @ 1..) = stream.read(&mut piece) else { break None };
                read.extend_from_slice(&piece[..count]);
                if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break Some(at + 4);
                }
            };
            let Some(end) = end else { continue };
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            while read.len() < end + length {
                let Ok(count @ 1..) = stream.read(&mut piece) else { break };
                read.extend_from_slice(&piece[..count]);
            }
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
            if sender.send((path, read[end..].to_vec())).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

/// Runs the program with variables; both of its outputs.
fn run(
    datacenter: &Datacenter,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (String, String) {
    let mut command = datacenter.command(arguments);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?} {out} {err}");
    (out, err)
}

/// Strings stand in the messages as they are.
fn holds(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_run_is_a_trace_and_its_lines_are_logs() {
    let datacenter = Datacenter::new();
    let (url, receiver) = collector();
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_SERVICE_NAME", "nightly")];
    let (_, err) = run(&datacenter, &["apply", "--auto-approve", "-v"], &variables);
    assert!(!err.contains("change{"), "spans are no part of lines: {err}");
    let sent: Vec<(String, Vec<u8>)> = receiver.try_iter().collect();
    let of = |path: &str| -> Vec<u8> {
        sent.iter().filter(|(to, _)| to == path).flat_map(|(_, body)| body.clone()).collect()
    };
    let traces = of("/v1/traces");
    for name in ["nightly", "round", "observe", "look", "plan", "apply", "change", "create", "done"]
    {
        assert!(holds(&traces, name), "no {name} in {} bytes of traces", traces.len());
    }
    let logs = of("/v1/logs");
    for text in ["nightly", "applying", "observed"] {
        assert!(holds(&logs, text), "no {text} in {} bytes of logs", logs.len());
    }
}

#[test]
fn a_collector_that_is_away_changes_nothing() {
    let datacenter = Datacenter::new();
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{away}");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    let (out, err) = run(&datacenter, &["apply", "--auto-approve"], &variables);
    assert!(out.contains("created"), "{out} {err}");
    // Without an endpoint nothing is set up at all.
    let variables = [("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    run(&datacenter, &["plan"], &variables);
}
