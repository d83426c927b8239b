//! A door in front of the server, on a port of its own: it gives tokens and looks at them, has several
//! folders where the server has one, and writes down what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method and path, with the query.
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl Asked {
    pub fn bearer(&self) -> Option<&str> {
        self.headers.get("authorization")?.strip_prefix("Bearer ")
    }
}

#[derive(Default)]
pub struct State {
    pub asked: Vec<Asked>,
    /// Tokens that are taken; any is where there are none.
    pub taken: BTreeSet<String>,
    /// How many tokens were given, until when they are good, and whether none is given.
    pub given: usize,
    pub until: Option<Timestamp>,
    pub is_away: bool,
    /// The folders of what is not in the first.
    pub homes: BTreeMap<String, String>,
    /// Folders that nobody may look into.
    pub forbidden: BTreeSet<String>,
    /// The key that all disks are encrypted under.
    pub key: Option<String>,
    /// What single instances are, whatever the server says.
    pub status: Option<String>,
    /// What is asked for with this in its line never ends.
    pub endless: Option<String>,
    /// The operations of it.
    pub hung: BTreeSet<String>,
    /// Folders whose disks nobody may look at.
    pub without_disks: BTreeSet<String>,
    /// Folders whose lists have pages of one, of which only the first can be had.
    pub torn: BTreeSet<String>,
    /// Bytes that each image takes.
    pub stored: Option<u64>,
    /// So many lists of snapshots have none of them yet.
    pub blind: usize,
    /// Whether a key is for one body only, and those that were asked under.
    pub is_strict: bool,
    pub keys: BTreeMap<String, Value>,
    /// The request, counted from now, that is carried out and not answered as long as this stands here.
    pub frozen_at: Option<usize>,
    /// Whether that request has come.
    pub is_frozen: bool,
}

/// It ends with the test.
pub struct Gate {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Gate {
    /// In front of a server.
    pub fn new(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, server, &state));
            }
        });
        Self { address, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked for so far whose line has this.
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        let state = self.state();
        state.asked.iter().filter(|asked| asked.line.contains(part)).cloned().collect()
    }
}

fn read(reader: &mut impl BufRead) -> Option<(String, BTreeMap<String, String>, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
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
    Some((line.trim().to_owned(), headers, body))
}

fn serve(stream: TcpStream, server: SocketAddr, state: &Mutex<State>) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some((line, headers, body)) = read(&mut reader) {
        let words: Vec<&str> = line.split_whitespace().take(2).collect();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let asked = Asked { line: words.join(" "), headers, body };
        let (status, body) = answer(server, state, &asked);
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(server: SocketAddr, state: &Mutex<State>, asked: &Asked) -> (u16, Value) {
    state.lock().unwrap().asked.push(asked.clone());
    let refused = |status: u16, code: u8| (status, json!({"code": code, "message": "refused"}));
    if asked.line.contains("/tokens") || asked.line.contains("/computeMetadata/") {
        return token(&mut state.lock().unwrap(), asked);
    }
    {
        let mut state = state.lock().unwrap();
        if state.blind > 0 && asked.line.starts_with("GET /compute/v1/snapshots?") {
            state.blind -= 1;
            return (200, json!({}));
        }
        if let Some(key) = asked.headers.get("idempotency-key").filter(|_| state.is_strict) {
            let known = state.keys.entry(key.clone()).or_insert_with(|| asked.body.clone());
            if *known != asked.body {
                return refused(400, 3);
            }
        }
    }
    {
        let state = state.lock().unwrap();
        let is_taken = |token: &str| state.taken.is_empty() || state.taken.contains(token);
        if !is_taken(asked.bearer().unwrap_or_default()) {
            return refused(401, 16);
        }
        let is_of_disks = asked.line.contains("/disks?");
        let is_forbidden = |folder: String| {
            state.forbidden.contains(&folder)
                || (is_of_disks && state.without_disks.contains(&folder))
        };
        if folder_of(asked).is_some_and(is_forbidden) {
            return refused(403, 7);
        }
    }
    let is_torn =
        folder_of(asked).is_some_and(|folder| state.lock().unwrap().torn.contains(&folder));
    let is_of_images = asked.line.contains("/images?");
    if is_torn && is_of_images && asked.line.contains("pageToken=") {
        return refused(400, 3);
    }
    let asked = &Asked {
        line: if is_torn && is_of_images {
            asked.line.replace("pageSize=1000", "pageSize=1")
        } else {
            asked.line.clone()
        },
        ..asked.clone()
    };
    let (status, mut body) = forward(server, asked);
    hang(&mut state.lock().unwrap(), asked, &mut body);
    if let (Some(key), true) = (&state.lock().unwrap().key, asked.line.contains("/disks/")) {
        body["kmsKey"] = json!({"keyId": key, "versionId": "1"});
    }
    if let Some(stored) = state.lock().unwrap().stored {
        for list in ["images", "snapshots"] {
            for item in body.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                item["storageSize"] = json!(stored.to_string());
            }
        }
    }
    let is_instance = asked.line.starts_with("GET") && asked.line.contains("/instances/");
    if let (Some(status), true) = (&state.lock().unwrap().status, is_instance) {
        body["status"] = json!(status);
    }
    freeze(state);
    move_house(&mut state.lock().unwrap(), asked, &mut body);
    (status, body)
}

/// Says of operations that they are not done.
fn hang(state: &mut State, asked: &Asked, body: &mut Value) {
    let Some(id) = body["id"].as_str().map(str::to_owned) else { return };
    if state.endless.as_ref().is_some_and(|part| asked.line.contains(part)) {
        state.hung.insert(id.clone());
    }
    if state.hung.contains(&id) {
        body["done"] = json!(false);
    }
}

/// Keeps the answer back where that was asked for.
fn freeze(state: &Mutex<State>) {
    {
        let mut state = state.lock().unwrap();
        let Some(left) = state.frozen_at else { return };
        state.frozen_at = Some(left.saturating_sub(1));
        if left > 1 {
            return;
        }
        state.is_frozen = true;
    }
    while state.lock().unwrap().frozen_at.is_some() {
        std::thread::yield_now();
    }
}

fn token(state: &mut State, asked: &Asked) -> (u16, Value) {
    if state.is_away {
        return (503, json!({"code": 14, "message": "nobody is here"}));
    }
    if asked.line.starts_with("POST") {
        // Who signed it is the affair of the key's own test.
        let jwt = asked.body["jwt"].as_str().unwrap_or_default().to_owned();
        let claims = jwt.split('.').nth(1).map(|part| BASE64URL_NOPAD.decode(part.as_bytes()));
        let claims: Value = serde_json::from_slice(&claims.unwrap().unwrap()).unwrap();
        assert_eq!(claims["iss"], "a1");
    }
    state.given += 1;
    let token = format!("t1.{}", state.given);
    let until = state.until.unwrap_or(Timestamp::MAX);
    if asked.line.starts_with("POST") {
        return (200, json!({"iamToken": token, "expiresAt": until.to_string()}));
    }
    assert_eq!(asked.headers.get("metadata-flavor").map(String::as_str), Some("Google"));
    let seconds = SignedDuration::from_hours(12).as_secs();
    (200, json!({"access_token": token, "expires_in": seconds, "token_type": "Bearer"}))
}

/// The folder that a request names.
fn folder_of(asked: &Asked) -> Option<String> {
    let (_, query) = asked.line.split_once('?').unwrap_or_default();
    let mut pairs = query.split('&').filter_map(|pair| pair.strip_prefix("folderId="));
    pairs.next().or(asked.body["folderId"].as_str()).map(str::to_owned)
}

/// The answer of the server, for which all is in one folder.
fn forward(server: SocketAddr, asked: &Asked) -> (u16, Value) {
    let mut line = asked.line.clone();
    let mut body = asked.body.clone();
    // The server has folders of its own beside it.
    if let Some(folder) = folder_of(asked).filter(|folder| !folder.starts_with("p-")) {
        line = line.replace(&format!("folderId={folder}"), "folderId=p");
        if body.get("folderId").is_some() {
            body["folderId"] = json!("p");
        }
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let key = asked.headers.get("idempotency-key").map_or("", String::as_str);
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (line, _, body) = read(&mut BufReader::new(stream)).unwrap();
    let status = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Puts what an answer is about into the folders that it belongs to.
fn move_house(state: &mut State, asked: &Asked, body: &mut Value) {
    let folder = folder_of(asked);
    if let (Some(folder), true) = (&folder, asked.line.starts_with("POST")) {
        for field in ["imageId", "snapshotId"] {
            if let Some(id) = body["metadata"][field].as_str() {
                state.homes.insert(id.to_owned(), folder.clone());
            }
        }
    }
    let home = |item: &Value| {
        let id = item["id"].as_str().unwrap_or_default();
        let own = item["folderId"].as_str().unwrap_or("p");
        state.homes.get(id).map_or(own, String::as_str).to_owned()
    };
    if body.get("folderId").is_some() {
        body["folderId"] = json!(home(body));
    }
    for list in ["images", "snapshots", "disks", "instances"] {
        let items = body.get_mut(list).and_then(Value::as_array_mut);
        let Some(items) = items else { continue };
        items.retain(|item| Some(home(item)) == folder);
        for item in items {
            item["folderId"] = json!(home(item));
        }
    }
}
