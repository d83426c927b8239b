//! Several requests in one.

use serde_json::{Value, json};

use super::super::support::Datacenter;
use super::{ROOT, Server};

#[test]
fn each_request_of_a_batch_is_answered_by_itself() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &["--faults"]);
    server.insert("one");
    let part = |id: u32, request: &str, body: &str| {
        format!(
            "--===7330845974216740156==\nContent-Type: application/http\nMIME-Version: 1.0\n\
             Content-Transfer-Encoding: binary\nContent-ID: <b29c5de2-0db4-490b-b421-6a51b598bd22 + {id}>\n\n\
             {request} HTTP/1.1\nContent-Type: application/json\nAccept: application/json\nHost: x\n\n{body}\n"
        )
    };
    let body = [
        part(1, &format!("GET {ROOT}/global/machineImages?fields=items%2Fname&alt=json"), ""),
        part(2, &format!("GET {ROOT}/global/machineImages/gone?alt=json"), ""),
        part(3, &format!("POST {ROOT}/global/machineImages/one/setLabels"), "{\"labels\": {}}"),
    ]
    .concat()
        + "--===7330845974216740156==--";
    let kind = "Content-Type: multipart/mixed; boundary=\"===7330845974216740156==\"\r\n";
    for path in ["/batch/compute/v1", "/batch/compute/beta"] {
        let (status, answer) = server.send("POST", path, kind, &body);
        assert_eq!(status, 200, "{answer}");
        let boundary = answer.lines().next().unwrap().to_owned();
        let parts: Vec<&str> = answer.split(&boundary).collect();
        assert_eq!(parts.len(), 5, "{answer}");
        assert!(parts[4].starts_with("--"));
        for (part, (id, status)) in parts[1..4].iter().zip([(1, 200), (2, 404), (3, 412)]) {
            let id = format!("<response-b29c5de2-0db4-490b-b421-6a51b598bd22 + {id}>");
            assert!(part.contains(&id) && part.contains(&format!("HTTP/1.1 {status} ")), "{part}");
            let body = part.trim().rsplit("\r\n\r\n").next().unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["code"].as_u64().unwrap_or(200), status, "{body}");
        }
        assert!(parts[1].contains(&json!({"items": [{"name": "one"}]}).to_string()), "{answer}");
    }
    assert_eq!(server.send("POST", "/batch/compute/v1", "", "nothing").0, 400);
    server.stop();
}
