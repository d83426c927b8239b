//! Mail by SMTP.

use std::time::Duration;

use lettre::address::Envelope;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::response::{Category, Code, Detail};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::courier::{Secrets, SendError};
use crate::alert::Notification;
use crate::policy::meant::{Email, MailTls};
use crate::report::clean;

/// The longest time of one answer of a server.
const TIME_MAX: Duration = Duration::from_secs(30);
/// So many characters of the title are the subject.
const SUBJECT_MAX: usize = 200;

/// Sends a message.
pub(super) async fn send(
    email: &Email,
    message: &Notification,
    secrets: &Secrets,
) -> Result<(), SendError> {
    let mail = mail(email, message)?;
    // The provider may have been set up for HTTP already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let parameters = || {
        TlsParameters::builder(email.host.clone())
            .build_rustls()
            .map_err(|error| SendError::passing(format!("cannot set up TLS: {error}")))
    };
    let tls = match email.tls {
        MailTls::Starttls => Tls::Required(parameters()?),
        MailTls::Implicit => Tls::Wrapper(parameters()?),
        MailTls::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.host)
        .port(email.port)
        .tls(tls)
        .timeout(Some(TIME_MAX));
    let mut password = None;
    if let Some((username, secret)) = &email.login {
        let read = secrets.read(secret, "password")?;
        builder = builder.credentials(Credentials::new(username.clone(), read.clone()));
        password = Some(read);
    }
    let (server, envelope, mail) = (builder.build(), mail.envelope().clone(), mail.formatted());
    let told = |error: &Error| refusal(error, password.as_deref());
    let Err(error) = server.send_raw(&envelope, &mail).await else { return Ok(()) };
    if !is_about_somebody(&error) {
        return Err(told(&error));
    }
    let everybody = match envelope.to() {
        [one] => vec![(one, Err(error))],
        everybody => singly(&server, &envelope, everybody, &mail).await?,
    };
    let (mut left, mut passing, mut lasting) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_arrived = false;
    for (to, sent) in everybody {
        let Err(error) = sent else {
            has_arrived = true;
            continue;
        };
        let error = told(&error);
        let why = format!("no mail to {to}: {error}");
        if error.is_passing {
            left.push(to.to_string());
            passing.push(why);
        } else {
            tracing::warn!("{why}");
            lasting.push(why);
        }
    }
    // Who has it does not get it twice, and who never will is not asked again.
    if !left.is_empty() {
        return Err(SendError { left, ..SendError::passing(passing.join("; ")) });
    }
    if has_arrived { Ok(()) } else { Err(SendError::lasting(lasting.join("; "))) }
}

/// Sends it to each by itself: the crate stops at the first address that is refused.
async fn singly<'a>(
    server: &AsyncSmtpTransport<Tokio1Executor>,
    envelope: &Envelope,
    everybody: &'a [Address],
    mail: &[u8],
) -> Result<Vec<(&'a Address, Result<(), Error>)>, SendError> {
    let mut sent = Vec::new();
    for to in everybody {
        let single = Envelope::new(envelope.from().cloned(), vec![to.clone()])
            .map_err(|error| SendError::lasting(error.to_string()))?;
        sent.push((to, server.send_raw(&single, mail).await.map(drop)));
    }
    Ok(sent)
}

/// Leaves only these addresses of those that mail goes to.
pub(super) fn narrow(email: &mut Email, left: &[String]) {
    let address =
        |text: &str| text.parse::<Mailbox>().ok().map(|mailbox| mailbox.email.to_string());
    email.to.retain(|text| address(text).is_some_and(|address| left.contains(&address)));
}

/// Whether a refusal may be about one of several recipients: not about who sends, and not about the
/// server (RFC 5321, section 4.2.3: a mailbox that is busy, in error or full is 450, 451 or 452).
fn is_about_somebody(error: &Error) -> bool {
    let is_login = |code: Code| code.category == Category::Unspecified3;
    let is_mailbox = |code: Code| {
        code.category == Category::MailSystem
            && matches!(code.detail, Detail::Zero | Detail::One | Detail::Two)
    };
    if error.is_transient() {
        return error.status().is_some_and(is_mailbox);
    }
    error.is_permanent() && !error.status().is_some_and(is_login)
}

fn refusal(error: &Error, password: Option<&str>) -> SendError {
    // The crate says the cause with it.
    let mut text = format!("the mail server: {error}");
    if let Some(password) = password.filter(|password| password.len() >= 4) {
        text = text.replace(password, "…");
    }
    let text: String = clean(&text).chars().take(300).collect();
    if error.is_permanent() { SendError::lasting(text) } else { SendError::passing(text) }
}

/// The mail as text, for who wants to see it.
pub(super) fn preview(email: &Email, message: &Notification) -> Result<String, SendError> {
    let mail = mail(email, message)?.formatted();
    Ok(String::from_utf8_lossy(&mail).replace("\r\n", "\n"))
}

fn mail(email: &Email, message: &Notification) -> Result<Message, SendError> {
    let mailbox = |text: &str| {
        text.parse::<Mailbox>()
            .map_err(|error| SendError::lasting(format!("`{text}` is no address: {error}")))
    };
    let from = mailbox(&email.from)?;
    let host = from.email.domain().to_owned();
    // The same message has the same id: what arrives twice is seen to be one.
    let mut builder = Message::builder()
        .from(from)
        .message_id(Some(format!("<{}.stillframe@{host}>", message.id)))
        .subject(message.title.chars().take(SUBJECT_MAX).collect::<String>())
        .header(ContentType::TEXT_PLAIN);
    for to in &email.to {
        builder = builder.to(mailbox(to)?);
    }
    builder
        .body(format!("{}\n", message.text))
        .map_err(|error| SendError::lasting(format!("the mail cannot be written: {error}")))
}
