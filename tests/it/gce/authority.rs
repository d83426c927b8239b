//! Who gives tokens, on a port of this machine: a metadata server, a security token service, the
//! tokens of service accounts and of users.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

/// A request for a token.
#[derive(Debug, Clone)]
pub struct Asked {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

#[derive(Default)]
pub struct State {
    pub asked: Vec<Asked>,
    /// Every token that was given.
    pub given: Vec<String>,
    /// So many requests find nobody.
    pub failures: usize,
    /// What is said instead of a token.
    pub refusal: Option<String>,
}

/// It ends with the test.
pub struct Authority {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Authority {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The request lines, in order.
    pub fn lines(&self) -> Vec<String> {
        self.state().asked.iter().map(|asked| asked.line.clone()).collect()
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let words: Vec<&str> = line.split_whitespace().take(2).collect();
    let line = words.join(" ");
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line, headers, body: String::from_utf8(body).ok()? })
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        let (status, body) = answer(&mut state.lock().unwrap(), &asked);
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nMetadata-Flavor: Google\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(state: &mut State, asked: &Asked) -> (u16, String) {
    state.asked.push(asked.clone());
    if state.failures > 0 {
        state.failures -= 1;
        return (503, "nobody is here".to_owned());
    }
    if let Some(refusal) = &state.refusal {
        return (400, refusal.clone());
    }
    let (method, path) = asked.line.split_once(' ').unwrap();
    let path = path.split('?').next().unwrap();
    let base = "/computeMetadata/v1/instance/service-accounts/default";
    let mut token = |kind: &str| {
        let token = format!("{kind}-token-{}", state.given.len() + 1);
        state.given.push(token.clone());
        token
    };
    let hour = json!({"expires_in": 3600, "token_type": "Bearer"});
    let with = |name: &str, token: String| -> Value {
        let mut answer = hour.clone();
        answer[name] = json!(token);
        answer
    };
    let is_machine = asked.headers.get("metadata-flavor").is_some_and(|flavor| flavor == "Google");
    let answer = match (method, path) {
        ("GET", path) if path.starts_with(base) && !is_machine => return (403, String::new()),
        ("GET", path) if path == format!("{base}/token") => with("access_token", token("machine")),
        ("GET", path) if path == format!("{base}/email") => {
            return (200, "machine@p.iam.gserviceaccount.com".to_owned());
        }
        ("POST", "/sts") => {
            let mut answer = with("access_token", token("exchanged"));
            answer["issued_token_type"] = json!("urn:ietf:params:oauth:token-type:access_token");
            answer
        }
        ("POST", "/oauth") => with("access_token", token("user")),
        ("POST", path) if path.ends_with(":generateAccessToken") => {
            json!({"accessToken": token("other"), "expireTime": "2099-01-01T00:00:00Z"})
        }
        _ => return (404, format!("nothing at {path}")),
    };
    (200, answer.to_string())
}
