//! Who is told of what goes wrong: receivers and pings, with a finding for each mistake.

use std::collections::{BTreeMap, BTreeSet};

use crate::alert::Template;
use crate::elapsed::Elapsed;
use crate::policy::finding::Code;
use crate::policy::meaning::reader::Reader;
use crate::policy::meant::{
    BodyFormat, Email, EngineConfig, Exec, Header, Hook, MailTls, Matrix, Notify, Occasion, Ping,
    Receiver, Secret, Way, Webhook, check_url, is_loopback,
};
use crate::policy::written::{
    EmailSpec, ExecSpec, HeaderSpec, HookSpec, MatrixSpec, NotifySpec, PingSpec, ReceiverSpec,
    WebhookSpec,
};
use crate::policy::yaml::escape;

const AT: &str = "/watch/notify";
/// The shortest time after which what holds is told again.
const REPEAT_LEAST: Elapsed = Elapsed::minutes(5);
/// How long a program may take where nothing else is said.
const EXEC_TIMEOUT: Elapsed = Elapsed::seconds(30);
/// The most receivers, and the most pings.
const RECEIVERS_MAX: usize = 32;

/// What is written about notifications.
pub(super) fn notify(
    reader: &mut Reader<'_>,
    spec: Option<&NotifySpec>,
    engines: &BTreeMap<String, EngineConfig>,
) -> Notify {
    let standard = Notify::default();
    let Some(spec) = spec else { return standard };
    let repeat_at = format!("{AT}/repeatInterval");
    let repeat = reader.length(spec.repeat_interval.as_ref(), &repeat_at);
    if let Some(repeat) = repeat.filter(|repeat| *repeat < REPEAT_LEAST) {
        let message = format!("{repeat} is below {REPEAT_LEAST}");
        reader.find(Code::OutOfRange, &repeat_at, message);
    }
    let none = (BTreeMap::new(), Vec::new());
    let receivers = spec.receivers.as_ref().unwrap_or(&none.0);
    let pings = spec.pings.as_ref().unwrap_or(&none.1);
    for (count, key) in [(receivers.len(), "receivers"), (pings.len(), "pings")] {
        if count > RECEIVERS_MAX {
            let message = format!("there may be {RECEIVERS_MAX} of these at most, not {count}");
            reader.find(Code::OutOfRange, &format!("{AT}/{key}"), message);
        }
    }
    Notify {
        receivers: receivers
            .iter()
            .filter_map(|(name, receiver)| self::receiver(reader, name, receiver))
            .collect(),
        repeat_interval: repeat.unwrap_or(standard.repeat_interval),
        pings: pings
            .iter()
            .enumerate()
            .filter_map(|(position, ping)| self::ping(reader, position, ping, engines))
            .collect(),
    }
}

fn receiver(reader: &mut Reader<'_>, name: &str, spec: &ReceiverSpec) -> Option<Receiver> {
    let at = format!("{AT}/receivers/{}", escape(name));
    if !crate::name::is_rfc1035_label(name) {
        let message = format!("`{name}` is not a name for a receiver");
        reader.find(Code::BadName, &at, message).hint =
            Some("1 to 63 of a-z, 0-9 and `-`, beginning with a letter".to_owned());
    }
    if spec.on.as_ref().is_some_and(|on| on.iter().all(|one| *one == Occasion::Recovery)) {
        let message = "this receiver is told of nothing";
        reader.find(Code::OutOfRange, &format!("{at}/on"), message).hint =
            Some("leave `on` out for everything".to_owned());
    }
    let ways = [
        spec.webhook.is_some(),
        spec.slack.is_some(),
        spec.teams.is_some(),
        spec.matrix.is_some(),
        spec.email.is_some(),
        spec.exec.is_some(),
    ];
    let count = ways.into_iter().filter(|is_there| *is_there).count();
    // What has a key and no value, or one that is wrong, has its own finding.
    let is_written = reader.layers.json.pointer(&at).and_then(|json| json.as_object());
    let only_on = is_written.is_some_and(|keys| keys.keys().all(|key| key == "on"));
    if count > 1 || (count == 0 && only_on) {
        let message = if count == 0 {
            "this receiver does not say how it is reached"
        } else {
            "a receiver is reached in one way"
        };
        reader.find(Code::BadReceiver, &at, message).hint =
            Some("write one of webhook, slack, teams, matrix, email and exec".to_owned());
        return None;
    }
    let on = spec.on.clone().unwrap_or_else(|| Occasion::ALL.to_vec());
    let way = way(reader, &at, spec)?;
    Some(Receiver { name: name.to_owned(), on: BTreeSet::from_iter(on), way })
}

fn way(reader: &mut Reader<'_>, at: &str, spec: &ReceiverSpec) -> Option<Way> {
    if let Some(webhook) = &spec.webhook {
        return self::webhook(reader, &format!("{at}/webhook"), webhook).map(Way::Webhook);
    }
    if let Some(slack) = &spec.slack {
        return self::hook(reader, &format!("{at}/slack"), slack).map(Way::Slack);
    }
    if let Some(teams) = &spec.teams {
        return self::hook(reader, &format!("{at}/teams"), teams).map(Way::Teams);
    }
    if let Some(matrix) = &spec.matrix {
        return self::matrix(reader, &format!("{at}/matrix"), matrix).map(Way::Matrix);
    }
    if let Some(email) = &spec.email {
        return self::email(reader, &format!("{at}/email"), email).map(Way::Email);
    }
    exec(reader, &format!("{at}/exec"), spec.exec.as_ref()?).map(Way::Exec)
}

/// A value that stands in one of three keys.
fn secret(
    reader: &mut Reader<'_>,
    at: &str,
    key: &str,
    [written, file, variable]: [Option<&String>; 3],
) -> Option<Secret> {
    let given = [written, file, variable].into_iter().flatten().count();
    if given > 1 {
        let message = format!("`{key}` is said in more than one way");
        reader.find(Code::BadReceiver, at, message).hint = Some("keep one of them".to_owned());
        return None;
    }
    for (suffix, text) in [("", written), ("File", file), ("Env", variable)] {
        if text.is_some_and(|text| text.trim().is_empty()) {
            let message = format!("`{key}{suffix}` is empty");
            reader.find(Code::BadReceiver, &format!("{at}/{key}{suffix}"), message);
            return None;
        }
    }
    written
        .map(|text| Secret::Written(text.clone()))
        .or_else(|| file.map(|path| Secret::File(path.clone())))
        .or_else(|| variable.map(|name| Secret::Variable(name.clone())))
}

/// A secret that must be said, unless something else is wrong with it.
fn needed(
    reader: &mut Reader<'_>,
    at: &str,
    key: &str,
    ways: [Option<&String>; 3],
    keys: &str,
) -> Option<Secret> {
    let before = reader.findings.len();
    let found = secret(reader, at, key, ways);
    if found.is_none() && reader.findings.len() == before {
        reader.find(Code::MissingKey, at, format!("the {key} is missing")).hint =
            Some(format!("write {keys}"));
    }
    found
}

fn url(
    reader: &mut Reader<'_>,
    at: &str,
    ways: [Option<&String>; 3],
    plain_http: bool,
) -> Option<Hook> {
    let url = needed(reader, at, "url", ways, "one of `url`, `urlFile` and `urlEnv`")?;
    if let Secret::Written(text) = &url
        && let Err(reason) = check_url(text, plain_http)
    {
        reader.find(Code::BadReceiver, &format!("{at}/url"), format!("not a URL to use: {reason}"));
        return None;
    }
    Some(Hook { url, plain_http })
}

fn hook(reader: &mut Reader<'_>, at: &str, spec: &HookSpec) -> Option<Hook> {
    let ways = [spec.url.as_ref(), spec.url_file.as_ref(), spec.url_env.as_ref()];
    url(reader, at, ways, spec.plain_http.unwrap_or(false))
}

fn webhook(reader: &mut Reader<'_>, at: &str, spec: &WebhookSpec) -> Option<Webhook> {
    let ways = [spec.url.as_ref(), spec.url_file.as_ref(), spec.url_env.as_ref()];
    let hook = url(reader, at, ways, spec.plain_http.unwrap_or(false));
    let format = spec.format.unwrap_or_default();
    let mut headers = BTreeMap::new();
    for (name, header) in spec.headers.iter().flatten() {
        let at = format!("{at}/headers/{}", escape(name));
        if let Some(header) = self::header(reader, &at, name, header) {
            headers.insert(name.clone(), header);
        }
    }
    if spec.body.is_none() && format == BodyFormat::Text {
        let message = "a body that is a text needs a template";
        reader.find(Code::MissingKey, at, message).hint =
            Some("write `body: \"{{text}}\"`".to_owned());
    }
    if let Some(body) = &spec.body
        && let Err(error) = Template::new(body, format)
    {
        let finding = reader.find(Code::BadTemplate, &format!("{at}/body"), error.message);
        finding.hint = error.hint;
        return None;
    }
    Some(Webhook { hook: hook?, headers, body: spec.body.clone(), format })
}

fn header(reader: &mut Reader<'_>, at: &str, name: &str, spec: &HeaderSpec) -> Option<Header> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let is_ours = ["host", "content-length", "content-type", "connection", "transfer-encoding"]
        .contains(&name.to_ascii_lowercase().as_str());
    if name.is_empty() || !name.chars().all(is_token) || is_ours {
        let message = format!("`{name}` is not a header to set");
        reader.find(Code::BadReceiver, at, message);
        return None;
    }
    let texts = [spec.value.as_deref(), spec.prefix.as_deref()];
    if texts.into_iter().flatten().any(|text| !text.chars().all(|c| (' '..='~').contains(&c))) {
        reader.find(Code::BadReceiver, at, "the value of a header is plain ASCII in one line");
        return None;
    }
    let ways = [spec.value.as_ref(), spec.value_file.as_ref(), spec.value_env.as_ref()];
    let value = needed(reader, at, "value", ways, "one of `value`, `valueFile` and `valueEnv`")?;
    Some(Header { prefix: spec.prefix.clone().unwrap_or_default(), value })
}

fn matrix(reader: &mut Reader<'_>, at: &str, spec: &MatrixSpec) -> Option<Matrix> {
    let plain_http = spec.plain_http.unwrap_or(false);
    let homeserver = spec.homeserver.as_ref().and_then(|url| match check_url(url, plain_http) {
        Ok(()) => Some(Hook { url: Secret::Written(url.clone()), plain_http }),
        Err(reason) => {
            let message = format!("not a URL to use: {reason}");
            reader.find(Code::BadReceiver, &format!("{at}/homeserver"), message);
            None
        }
    });
    if let Some(room) = spec.room.as_ref().filter(|room| !room.starts_with('!')) {
        let message = format!("`{room}` is not the id of a room");
        reader.find(Code::BadReceiver, &format!("{at}/room"), message).hint =
            Some("an id begins with `!`: clients show it among the settings of a room".to_owned());
    }
    let ways = [None, spec.token_file.as_ref(), spec.token_env.as_ref()];
    let token = needed(reader, at, "token", ways, "`tokenFile` or `tokenEnv`");
    Some(Matrix { homeserver: homeserver?, room: spec.room.clone()?, token: token? })
}

fn email(reader: &mut Reader<'_>, at: &str, spec: &EmailSpec) -> Option<Email> {
    let tls = spec.tls.unwrap_or_default();
    let host = spec.host.as_deref().map(str::trim);
    if host.is_some_and(str::is_empty) {
        reader.find(Code::BadReceiver, &format!("{at}/host"), "the host is empty");
    }
    if tls == MailTls::None && host.is_some_and(|host| !is_loopback(host)) {
        let message = "without TLS only a server on this machine is used";
        reader.find(Code::BadReceiver, &format!("{at}/tls"), message).hint =
            Some("write `starttls` or `implicit`".to_owned());
    }
    let ways = [None, spec.password_file.as_ref(), spec.password_env.as_ref()];
    let password = secret(reader, at, "password", ways);
    let login = match (&spec.username, password) {
        (Some(username), Some(password)) => Some((username.clone(), password)),
        (None, None) => None,
        (Some(_), None) => {
            let message = "`username` needs a password";
            reader.find(Code::MissingKey, &format!("{at}/username"), message).hint =
                Some("write `passwordFile` or `passwordEnv`".to_owned());
            None
        }
        (None, Some(_)) => {
            reader.find(Code::MissingKey, at, "a password needs `username`");
            None
        }
    };
    let to = spec.to.as_ref().map(|to| to.0.clone()).unwrap_or_default();
    let given = spec.from.iter().map(|from| (format!("{at}/from"), from));
    let receivers = to.iter().enumerate();
    let receivers: Vec<(String, &String)> = receivers
        .map(|(position, address)| (reader.item(&format!("{at}/to"), position), address))
        .collect();
    for (at, address) in given.chain(receivers) {
        if !is_address(address) {
            let message = format!("`{address}` is not an address");
            reader.find(Code::BadReceiver, &at, message).hint =
                Some("write one like `ops@example.org` or `Ops <ops@example.org>`".to_owned());
        }
    }
    let port = spec.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(match tls {
        MailTls::Starttls => 587,
        MailTls::Implicit => 465,
        MailTls::None => 25,
    });
    let (host, from) = (host?.to_owned(), spec.from.clone()?);
    Some(Email { host, port, tls, login, from, to })
}

/// Whether a text looks like the address of a mailbox; what else is wrong with it the server says.
fn is_address(text: &str) -> bool {
    let inside = match text.strip_suffix('>') {
        Some(rest) => rest.rsplit_once('<').map_or("", |(_, inside)| inside),
        None => text,
    };
    let is_word = |text: &str| {
        !text.is_empty()
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || "<>,;\"".contains(c))
    };
    !text.chars().any(char::is_control)
        && inside.rsplit_once('@').is_some_and(|(user, host)| is_word(user) && is_word(host))
}

fn exec(reader: &mut Reader<'_>, at: &str, spec: &ExecSpec) -> Option<Exec> {
    let timeout_at = format!("{at}/timeout");
    let timeout = reader.length(spec.timeout.as_ref(), &timeout_at).unwrap_or(EXEC_TIMEOUT);
    if timeout < Elapsed::seconds(1) || timeout > Elapsed::hours(1) {
        let message = format!("a program gets from 1s to 1h, not {timeout}");
        reader.find(Code::OutOfRange, &timeout_at, message);
    }
    let command = spec.command.as_deref().unwrap_or_default();
    let (program, arguments) = command.split_first()?;
    if program.is_empty() || command.iter().any(|word| word.contains('\0')) {
        reader.find(Code::BadReceiver, &format!("{at}/command"), "this is not a command");
        return None;
    }
    Some(Exec { program: program.clone(), arguments: arguments.to_vec(), timeout })
}

fn ping(
    reader: &mut Reader<'_>,
    position: usize,
    spec: &PingSpec,
    engines: &BTreeMap<String, EngineConfig>,
) -> Option<Ping> {
    let at = format!("{AT}/pings/{position}");
    let named = spec.engines.as_ref().map(|names| names.0.clone()).unwrap_or_default();
    for (position, name) in named.iter().enumerate() {
        if !engines.contains_key(name) {
            let at = reader.item(&format!("{at}/engines"), position);
            reader.find(Code::UnknownEngine, &at, format!("there is no engine `{name}`"));
        }
    }
    let ways = [spec.url.as_ref(), spec.url_file.as_ref(), spec.url_env.as_ref()];
    let hook = url(reader, &at, ways, spec.plain_http.unwrap_or(false))?;
    Some(Ping { hook, engines: named.into_iter().collect() })
}
