//! The token and TLS.

use std::fs;

use reqwest::{Certificate, Client, StatusCode};
use serde_json::Value;

use super::super::support::{self, Datacenter, has_ended, project};
use super::{ROOT, Server};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

fn tls(name: &str) -> String {
    project().join("tests/data/tls").join(name).display().to_string()
}

fn token_file(datacenter: &Datacenter) -> String {
    let path = datacenter.path("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    path.display().to_string()
}

/// A client that trusts the certificate of the tests alone.
fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = Certificate::from_pem(&fs::read(tls("cert.pem")).unwrap()).unwrap();
    Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap()
}

#[tokio::test]
async fn over_tls_only_who_brings_the_token_is_answered() {
    let datacenter = Datacenter::new();
    let token = token_file(&datacenter);
    let (cert, key) = (tls("cert.pem"), tls("key.pem"));
    let options = ["--token-file", &token, "--tls-cert", &cert, "--tls-key", &key];
    let server = Server::start(&datacenter, &options);
    let url = format!("https://{}{ROOT}", server.address);
    let ask = async |token: Option<&str>, path: &str| {
        let request = client().get(format!("{url}{path}"));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.unwrap()
    };
    let answer = ask(Some(TOKEN), "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.json::<Value>().await.unwrap()["name"], "p1");
    for wrong in [None, Some("a-token-of-the-tests-0123456788"), Some("a-token")] {
        let refused = ask(wrong, "/global/machineImages").await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        let body: Value = refused.json().await.unwrap();
        assert_eq!(body["error"]["errors"][0]["reason"], "authError");
    }
    // Nobody is handed a token, or asks for faults or batches, without one.
    for path in ["token", "faults", "batch/compute/v1"] {
        let url = format!("https://{}/{path}", server.address);
        let refused = client().post(url).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    // Without TLS there is no answer, and who never shakes hands keeps nobody waiting.
    let silent = std::net::TcpStream::connect(&server.address).unwrap();
    let plain = format!("http://{}{ROOT}", server.address);
    assert!(client().get(plain).send().await.is_err());
    assert_eq!(ask(Some(TOKEN), "").await.status(), StatusCode::OK);
    // Nor do many.
    let many = support::silent(&server.address, 400);
    assert_eq!(ask(Some(TOKEN), "").await.status(), StatusCode::OK);
    let open = many.iter().filter(|stream| !has_ended(stream)).count();
    assert!(open < 256, "{open} of {} are open", many.len());
    drop(silent);
    server.stop();
}

#[test]
fn who_says_nothing_takes_no_more_than_some_connections() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    let silent = support::silent(&server.address, 400);
    assert_eq!(server.send("GET", ROOT, "", "").0, 200);
    let open = silent.iter().filter(|stream| !has_ended(stream)).count();
    assert!(open < 256 && has_ended(&silent[0]), "{open} of {} are open", silent.len());
    server.stop();
}

#[test]
fn on_loopback_a_token_is_optional_and_counts_where_it_is_given() {
    let datacenter = Datacenter::new();
    let token = token_file(&datacenter);
    let server = Server::start(&datacenter, &["--token-file", &token]);
    assert_eq!(server.send("GET", ROOT, "", "").0, 401);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(server.send("GET", ROOT, &bearer, "").0, 200);
    server.stop();
}

#[test]
fn other_addresses_need_a_token_and_tls() {
    let datacenter = Datacenter::new();
    let token = token_file(&datacenter);
    let (cert, key) = (tls("cert.pem"), tls("key.pem"));
    let serve = ["serve", "--dialect", "gce", "--listen", "192.0.2.1:0"];
    for options in
        [vec![], vec!["--token-file", token.as_str()], vec!["--tls-cert", &cert, "--tls-key", &key]]
    {
        let arguments: Vec<&str> = serve.iter().copied().chain(options).collect();
        let refused = datacenter.run_to(1, &arguments);
        assert!(refused.err.contains("--token-file"), "{}", refused.err);
    }
    // With both, all that is missing here is the address.
    let both = ["--token-file", &token, "--tls-cert", &cert, "--tls-key", &key];
    let arguments: Vec<&str> = serve.iter().copied().chain(both).collect();
    assert!(datacenter.run_to(1, &arguments).err.contains("cannot listen on 192.0.2.1"));
    fs::write(datacenter.path("short"), "short\n").unwrap();
    let short = datacenter.path("short").display().to_string();
    let loopback = ["serve", "--dialect", "gce", "--listen", "127.0.0.1:0"];
    for (options, why) in [
        (vec!["--token-file", short.as_str()], "at least 16 characters"),
        (vec!["--token-file", "nowhere"], "cannot read nowhere"),
        (vec!["--tls-cert", key.as_str(), "--tls-key", &key], "no certificate"),
        (vec!["--tls-cert", cert.as_str(), "--tls-key", &cert], "cannot read"),
    ] {
        let arguments: Vec<&str> = loopback.iter().copied().chain(options).collect();
        let refused = datacenter.run_to(1, &arguments);
        assert!(refused.err.contains(why), "{}", refused.err);
    }
}
