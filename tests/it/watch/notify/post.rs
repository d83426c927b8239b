//! Messages over real connections: to web servers, a mail server and programs on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use stillframe::alert::{Notification, test_message};
use stillframe::elapsed::Elapsed;
use stillframe::policy::meant::{
    BodyFormat, Email, Exec, Header, Hook, MailTls, Matrix, Occasion, Ping, Receiver, Secret, Way,
    Webhook,
};
use stillframe::watch::{Courier, Post, SendError, Signal};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

/// Status, headers and body.
type Answer = (StatusCode, Vec<(&'static str, String)>, String);

/// A web server that writes down what it is asked and answers what it is told to.
#[derive(Clone)]
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<Mutex<Answer>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            asked: Arc::default(),
            answer: Arc::new(Mutex::new((StatusCode::OK, Vec::new(), "ok".to_owned()))),
        };
        let taker = server.clone();
        let take = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            std::future::ready(taker.take(method, uri, headers, &body))
        };
        let router = Router::new().fallback(take);
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn take(&self, method: Method, uri: Uri, headers: HeaderMap, body: &Bytes) -> Response {
        let body = String::from_utf8(body.to_vec()).unwrap();
        self.asked.lock().unwrap().push(Asked { method, uri, headers, body });
        let (status, headers, body) = self.answer.lock().unwrap().clone();
        let mut response = (status, body).into_response();
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    }

    fn answers(&self, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let status = StatusCode::from_u16(status).unwrap();
        *self.answer.lock().unwrap() = (status, headers, body.to_owned());
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn hook(&self, path: &str) -> Hook {
        Hook { url: Secret::Written(format!("{}{path}", self.address)), plain_http: false }
    }
}

fn message() -> Notification {
    let mut message = test_message("here", str::to_owned, Timestamp::UNIX_EPOCH);
    "a \"quoted\" \\ title\n</script>".clone_into(&mut message.title);
    message
}

fn post() -> Post {
    Post::new(|name| (name == "TOKEN").then(|| "s3cret-token".to_owned()))
}

fn receiver(way: Way) -> Receiver {
    Receiver { name: "ops".to_owned(), on: BTreeSet::from(Occasion::ALL), way }
}

async fn send(way: Way, base: &std::path::Path) -> Result<(), SendError> {
    post().send(base, &receiver(way), &message()).await
}

fn webhook(hook: Hook, body: Option<&str>, format: BodyFormat) -> Webhook {
    let token = Header { prefix: "Bearer ".to_owned(), value: Secret::File("token".to_owned()) };
    let headers = BTreeMap::from([("authorization".to_owned(), token)]);
    Webhook { hook, headers, body: body.map(str::to_owned), format }
}

#[tokio::test]
async fn a_webhook_gets_what_its_template_says() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path();
    let way = |body, format| Way::Webhook(webhook(server.hook("/in?a=b"), body, format));
    let missing = send(way(None, BodyFormat::Json), base).await.unwrap_err();
    assert!(missing.is_passing && missing.message.contains("token"), "{missing}");
    assert!(server.asked().is_empty());
    fs::write(base.join("token"), "first-token\n").unwrap();
    send(way(None, BodyFormat::Json), base).await.unwrap();
    // What is written anew holds at once.
    fs::write(base.join("token"), "second-token\n").unwrap();
    send(way(Some(r#"{"t": "{{title}}", "c": {{json counts}}}"#), BodyFormat::Json), base)
        .await
        .unwrap();
    send(way(Some("{{title}}"), BodyFormat::Text), base).await.unwrap();
    let asked = server.asked();
    let [whole, own, plain] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((whole.method.as_str(), whole.uri.to_string().as_str()), ("POST", "/in?a=b"));
    assert_eq!(whole.headers["authorization"], "Bearer first-token");
    assert_eq!(whole.headers["content-type"], "application/json");
    let document: Value = serde_json::from_str(&whole.body).unwrap();
    assert_eq!(document, serde_json::to_value(message()).unwrap());
    let schema = crate::schemas::validator("notification");
    crate::schemas::assert_holds(&schema, &document, "a message");
    assert_eq!(own.headers["authorization"], "Bearer second-token");
    let document: Value = serde_json::from_str(&own.body).unwrap();
    assert_eq!(document, json!({"t": message().title, "c": []}));
    assert_eq!(plain.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(plain.body, message().title);
}

#[tokio::test]
async fn chats_get_what_they_take() {
    let server = Server::start().await;
    let base = std::path::Path::new("/nowhere");
    send(Way::Slack(server.hook("/services/T/B/x")), base).await.unwrap();
    send(Way::Teams(server.hook("/workflows/1")), base).await.unwrap();
    let room = Matrix {
        homeserver: server.hook(""),
        room: "!r:example.org".to_owned(),
        token: Secret::Variable("TOKEN".to_owned()),
    };
    send(Way::Matrix(room.clone()), base).await.unwrap();
    send(Way::Matrix(room), base).await.unwrap();
    let asked = server.asked();
    let [slack, teams, matrix, again] = asked.as_slice() else { panic!("{asked:?}") };
    let body = |asked: &Asked| -> Value { serde_json::from_str(&asked.body).unwrap() };
    assert_eq!(body(slack)["blocks"][0]["text"]["text"], message().title);
    assert_eq!(body(teams)["attachments"][0]["content"]["type"], "AdaptiveCard");
    assert_eq!(matrix.method, Method::PUT);
    assert_eq!(matrix.uri, again.uri, "a message that is sent again is the same one");
    assert!(matrix.uri.path().starts_with("/_matrix/client/v3/rooms/!r:example.org/send/m.room."));
    assert_eq!(matrix.headers["authorization"], "Bearer s3cret-token");
    assert_eq!(body(matrix)["msgtype"], "m.text");
}

#[tokio::test]
async fn what_is_refused_says_why_and_no_secret() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("token"), "hunter2-token").unwrap();
    let way = || Way::Webhook(webhook(server.hook("/hidden-path"), None, BodyFormat::Json));
    let refused = async || send(way(), directory.path()).await.unwrap_err();
    server.answers(503, &[("retry-after", "7")], "Bearer hunter2-token at /hidden-path\u{1b}[2J");
    let error = refused().await;
    assert_eq!(error.message, "it answered HTTP 503: Bearer … at /…\\u{1b}[2J");
    assert_eq!((error.is_passing, error.after.unwrap().as_secs()), (true, 7));
    for (status, is_passing) in [(400, false), (401, false), (404, false), (408, true), (429, true)]
    {
        server.answers(status, &[], "");
        let error = refused().await;
        assert_eq!(
            (error.is_passing, error.message),
            (is_passing, format!("it answered HTTP {status}"))
        );
    }
    // Nobody is followed elsewhere with a token in hand.
    let other = Server::start().await;
    server.answers(307, &[("location", &other.address)], "");
    let error = refused().await;
    assert!(!error.is_passing && error.message.contains("redirection"), "{error}");
    assert!(other.asked().is_empty());
    // Whoever is not there may be there later.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = Hook {
        url: Secret::Written(format!("http://{}/hidden-path", listener.local_addr().unwrap())),
        plain_http: false,
    };
    drop(listener);
    let error = send(Way::Slack(gone), directory.path()).await.unwrap_err();
    assert!(error.is_passing && !error.message.contains("hidden"), "{error}");
}

#[tokio::test]
async fn pings_say_how_it_went() {
    let server = Server::start().await;
    let base = std::path::Path::new("/nowhere");
    let ping = Ping { hook: server.hook("/uuid"), engines: BTreeSet::new() };
    for signal in [Signal::Start, Signal::Success, Signal::Fail] {
        post().ping(base, &ping, signal, "1-2-3").await.unwrap();
    }
    let asked: Vec<String> = server.asked().iter().map(|asked| asked.uri.to_string()).collect();
    assert_eq!(asked, ["/uuid/start?rid=1-2-3", "/uuid?rid=1-2-3", "/uuid/fail?rid=1-2-3"]);
}

/// What a client has said to a mail server.
type Said = Arc<Mutex<String>>;

/// A mail server; it refuses recipients whose address holds one of these.
async fn mail_server(
    greeting: &'static [&'static str],
    refused: &'static [&'static str],
) -> (u16, Said) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = Said::default();
    let heard = Arc::clone(&said);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"220 mx.example ESMTP\r\n").await.unwrap();
            let mut is_data = false;
            while let Ok(Some(line)) = lines.next_line().await {
                heard.lock().unwrap().push_str(&format!("{line}\n"));
                let is_refused = refused.iter().any(|address| line.contains(address));
                let answer = match line.split(' ').next().unwrap() {
                    "." => {
                        is_data = false;
                        "250 queued\r\n".to_owned()
                    }
                    _ if is_data => continue,
                    "EHLO" => greeting.concat(),
                    "DATA" => {
                        is_data = true;
                        "354 go on\r\n".to_owned()
                    }
                    "RCPT" if is_refused && line.contains("full@") => {
                        "452 4.2.2 mailbox full\r\n".to_owned()
                    }
                    "RCPT" if is_refused && line.contains("away@") => {
                        "421 4.3.2 going down\r\n".to_owned()
                    }
                    "RCPT" if is_refused => "550 no such user\r\n".to_owned(),
                    "AUTH" if is_refused => "535 no\r\n".to_owned(),
                    "AUTH" => "235 welcome\r\n".to_owned(),
                    "QUIT" => break,
                    _ => "250 well\r\n".to_owned(),
                };
                if write.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (port, said)
}

#[tokio::test]
async fn an_address_that_is_refused_keeps_the_mail_from_nobody_else() {
    let base = std::path::Path::new("/nowhere");
    for refused in [&["ops@"], &["two@"]] {
        let (port, said) = mail_server(&["250 mx.example\r\n"], refused).await;
        send(Way::Email(email(port, MailTls::None)), base).await.unwrap();
        let said = said.lock().unwrap();
        assert_eq!(said.matches("\nDATA\n").count(), 1, "{said}");
        let id = format!("Message-ID: <{}.stillframe@example.org>", message().id);
        assert!(said.contains(&id) && said.contains("\nTo: ops@example.org, "), "{said}");
    }
    // Who may not send at all is not asked again for each of them.
    let (port, said) = mail_server(&["250-mx.example\r\n", "250 AUTH PLAIN\r\n"], &["AUTH"]).await;
    let mut mail = email(port, MailTls::None);
    mail.login = Some(("user".to_owned(), Secret::Variable("TOKEN".to_owned())));
    let error = send(Way::Email(mail), base).await.unwrap_err();
    assert!(!error.is_passing, "{error}");
    assert_eq!(said.lock().unwrap().matches("AUTH").count(), 1);
}

#[tokio::test]
async fn a_mailbox_that_is_full_keeps_the_mail_from_nobody_else() {
    let base = std::path::Path::new("/nowhere");
    let (port, said) = mail_server(&["250 mx.example\r\n"], &["full@", "two@"]).await;
    let mut mail = email(port, MailTls::None);
    mail.to.insert(1, "full@example.org".to_owned());
    let error = send(Way::Email(mail.clone()), base).await.unwrap_err();
    assert_eq!(said.lock().unwrap().matches("\nDATA\n").count(), 1, "ops has it");
    // Who is full gets it later, and who is not there never does.
    assert!(error.is_passing && error.left == ["full@example.org"], "{error:?}");
    let text =
        "no mail to full@example.org: the mail server: transient error (452): 4.2.2 mailbox full";
    assert_eq!(error.message, text);
    mail.to = vec!["full@example.org".to_owned()];
    let error = send(Way::Email(mail), base).await.unwrap_err();
    assert_eq!((error.message.as_str(), error.left.len()), (text, 1));
}

/// It takes no mail for now, and whom it is for changes nothing.
#[tokio::test]
async fn a_mail_server_that_goes_down_is_not_asked_for_each_address() {
    let (port, said) = mail_server(&["250 mx.example\r\n"], &["away@"]).await;
    let mut mail = email(port, MailTls::None);
    mail.to.insert(1, "away@example.org".to_owned());
    let error = send(Way::Email(mail), std::path::Path::new("/nowhere")).await.unwrap_err();
    assert!(error.is_passing && error.left.is_empty(), "{error:?}");
    let said = said.lock().unwrap();
    let counts = ["MAIL FROM", "\nDATA\n"].map(|line| said.matches(line).count());
    assert_eq!(counts, [1, 0], "{said}");
}

fn email(port: u16, tls: MailTls) -> Email {
    Email {
        host: "127.0.0.1".to_owned(),
        port,
        tls,
        login: None,
        from: "Stillframe <backup@example.org>".to_owned(),
        to: vec!["ops@example.org".to_owned(), "Second <two@example.org>".to_owned()],
    }
}

#[tokio::test]
async fn mail_is_taken_by_a_server() {
    let base = std::path::Path::new("/nowhere");
    let (port, said) = mail_server(&["250-mx.example\r\n", "250 AUTH PLAIN\r\n"], &[]).await;
    let mut mail = email(port, MailTls::None);
    mail.login = Some(("user".to_owned(), Secret::Variable("TOKEN".to_owned())));
    send(Way::Email(mail), base).await.unwrap();
    let said = said.lock().unwrap().clone();
    assert!(said.contains("MAIL FROM:<backup@example.org>"), "{said}");
    assert!(
        said.contains("RCPT TO:<ops@example.org>") && said.contains("RCPT TO:<two@example.org>")
    );
    assert!(said.contains("AUTH PLAIN"), "{said}");
    assert!(
        said.contains(&format!("Message-ID: <{}.stillframe@example.org>", message().id)),
        "{said}"
    );
    // A line end in a title begins no header.
    let subjects = said.lines().filter(|line| line.starts_with("Subject:")).count();
    assert_eq!(subjects, 1, "{said}");
    assert!(!said.lines().any(|line| line.starts_with("</script>")), "{said}");
    let (port, _) = mail_server(&["250 mx.example\r\n"], &["@"]).await;
    let error = send(Way::Email(email(port, MailTls::None)), base).await.unwrap_err();
    assert!(!error.is_passing && error.message.contains("no such user"), "{error}");
}

#[tokio::test]
async fn mail_does_not_go_without_tls_where_tls_is_meant() {
    let (port, said) = mail_server(&["250 mx.example\r\n"], &[]).await;
    let base = std::path::Path::new("/nowhere");
    let error = send(Way::Email(email(port, MailTls::Starttls)), base).await.unwrap_err();
    assert!(error.message.contains("STARTTLS"), "{error}");
    let said = said.lock().unwrap();
    assert!(!said.contains("MAIL FROM") && !said.contains("DATA"), "{said}");
}

/// Once something in the world is so, what is waited for after it is over at once.
async fn in_no_time<T>(work: impl Future<Output = T>, is_so: impl Fn() -> bool) -> T {
    tokio::time::pause();
    let look = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    let (done, ()) = tokio::join!(work, look);
    tokio::time::resume();
    done
}

#[tokio::test]
async fn a_program_gets_the_message_and_is_ended_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path();
    let script = |text: &str| {
        let path = base.join("tell");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let exec = |program: &str, seconds| {
        let arguments = vec!["$(id)".to_owned(), "; rm -rf /".to_owned()];
        Way::Exec(Exec {
            program: program.to_owned(),
            arguments,
            timeout: Elapsed::seconds(seconds),
        })
    };
    script("cd \"$(dirname \"$0\")\" && cat > out.json; printf '%s|' \"$@\" > arguments");
    send(exec("./tell", 60), base).await.unwrap();
    let document: Value =
        serde_json::from_str(&fs::read_to_string(base.join("out.json")).unwrap()).unwrap();
    assert_eq!(document["title"], message().title);
    assert_eq!(fs::read_to_string(base.join("arguments")).unwrap(), "$(id)|; rm -rf /|");
    script("echo 'no way' >&2; exit 3");
    let error = send(exec("./tell", 60), base).await.unwrap_err();
    assert!(error.message.ends_with("ended with exit status: 3: no way"), "{error}");
    // What it leaves behind holds its standard error, and is not waited for.
    let pid = || {
        let text = fs::read_to_string(base.join("pid")).ok()?;
        rustix::process::Pid::from_raw(text.strip_suffix('\n')?.parse().ok()?)
    };
    let has_ended = || pid().is_some_and(|pid| rustix::process::test_kill_process(pid).is_err());
    let pid_file = "echo $$ > \"$(dirname \"$0\")/pid\"";
    let before = tokio::time::Instant::now();
    script(&format!("{pid_file}; sleep 30 & cat > /dev/null"));
    in_no_time(send(exec("./tell", 20), base), has_ended).await.unwrap();
    fs::remove_file(base.join("pid")).unwrap();
    script(&format!("{pid_file}; sleep 30 & echo 'no way' >&2; exit 3"));
    let error = in_no_time(send(exec("./tell", 20), base), has_ended).await.unwrap_err();
    assert!(error.message.ends_with("ended with exit status: 3: no way"), "{error}");
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    fs::remove_file(base.join("pid")).unwrap();
    let error = send(exec("./nothing", 60), base).await.unwrap_err();
    assert!(error.message.starts_with("cannot run"), "{error}");
    script(&format!("{pid_file}; exec sleep 1000"));
    let sent = in_no_time(send(exec("./tell", 60), base), || pid().is_some()).await;
    let error = sent.unwrap_err();
    assert!(error.message.ends_with("had not ended after 1m"), "{error}");
    // It is not there any more, or will not be in a moment.
    while !has_ended() {
        tokio::task::yield_now().await;
    }
}
