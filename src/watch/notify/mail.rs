//! Mail by SMTP.

use std::time::Duration;

use lettre::address::Envelope;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::response::{Category, Code};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

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
    // The crate stops at the first address that is refused: the others get it each by itself.
    if envelope.to().len() < 2 || !is_about_somebody(&error) {
        return Err(told(&error));
    }
    let (mut has_arrived, mut worst) = (false, told(&error));
    for to in envelope.to() {
        let single = Envelope::new(envelope.from().cloned(), vec![to.clone()])
            .map_err(|error| SendError::lasting(error.to_string()))?;
        match server.send_raw(&single, &mail).await {
            Ok(_) => has_arrived = true,
            Err(error) => {
                let error = told(&error);
                tracing::warn!("no mail to {to}: {error}");
                if error.is_passing {
                    worst = error;
                }
            }
        }
    }
    // Sent again it would reach those twice that have it.
    if has_arrived { Ok(()) } else { Err(worst) }
}

/// Whether a refusal may be about one of several recipients: not about who sends.
fn is_about_somebody(error: &Error) -> bool {
    let is_login = |code: Code| code.category == Category::Unspecified3;
    error.is_permanent() && !error.status().is_some_and(is_login)
}

fn refusal(error: &Error, password: Option<&str>) -> SendError {
    let mut text = format!("the mail server: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        text = format!("{text}: {cause}");
    }
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
