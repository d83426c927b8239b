//! What users write about who is told of what goes wrong.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LengthText, Texts};
use crate::policy::meant::{BodyFormat, MailTls, Occasion};

/// Who is told of what goes wrong.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotifySpec {
    /// Receivers of messages by name; each has one of `webhook`, `slack`, `teams`, `matrix`, `email`
    /// and `exec`.
    pub receivers: Option<BTreeMap<String, ReceiverSpec>>,
    /// What still holds is told again after this time: at least 5m. The default is 1d.
    pub repeat_interval: Option<LengthText>,
    /// URLs that are asked for with each round, for services that raise the alarm when nobody asks.
    pub pings: Option<Vec<PingSpec>>,
}

/// A receiver of messages.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiverSpec {
    /// What it is told of. The default is everything.
    pub on: Option<Vec<Occasion>>,
    /// A request over HTTP with a body of one's own.
    pub webhook: Option<WebhookSpec>,
    /// An incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat).
    pub slack: Option<HookSpec>,
    /// A webhook of Microsoft Teams, made by its Workflows: messages are Adaptive Cards.
    pub teams: Option<HookSpec>,
    /// A room of Matrix.
    pub matrix: Option<MatrixSpec>,
    /// Mail by SMTP.
    pub email: Option<EmailSpec>,
    /// A program.
    pub exec: Option<ExecSpec>,
}

/// A URL that takes messages. It is often a secret itself: keep it in a file or a variable.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookSpec {
    /// The URL.
    pub url: Option<String>,
    /// A file with the URL, relative to this file.
    pub url_file: Option<String>,
    /// The environment variable with the URL.
    pub url_env: Option<String>,
    /// Whether it may be reached without TLS on other machines. The default is false.
    pub plain_http: Option<bool>,
}

/// A request over HTTP.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSpec {
    /// The URL.
    pub url: Option<String>,
    /// A file with the URL, relative to this file.
    pub url_file: Option<String>,
    /// The environment variable with the URL.
    pub url_env: Option<String>,
    /// Whether it may be reached without TLS on other machines. The default is false.
    pub plain_http: Option<bool>,
    /// Headers by name.
    pub headers: Option<BTreeMap<String, HeaderSpec>>,
    /// A handlebars template of the body. The default is the whole message as JSON.
    pub body: Option<String>,
    /// What the body is: `json`, which is the default, or `text`.
    pub format: Option<BodyFormat>,
}

/// The value of a header.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderSpec {
    /// The value, where it is no secret.
    pub value: Option<String>,
    /// A file with the value, relative to this file.
    pub value_file: Option<String>,
    /// The environment variable with the value.
    pub value_env: Option<String>,
    /// What stands before it: `"Bearer "`.
    pub prefix: Option<String>,
}

/// A room of Matrix.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["homeserver", "room"]))]
pub struct MatrixSpec {
    /// The URL of the homeserver.
    pub homeserver: Option<String>,
    /// The id of the room: `!…`.
    pub room: Option<String>,
    /// A file with the access token, relative to this file.
    pub token_file: Option<String>,
    /// The environment variable with the access token.
    pub token_env: Option<String>,
    /// Whether it may be reached without TLS on other machines. The default is false.
    pub plain_http: Option<bool>,
}

/// Mail by SMTP.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["host", "from", "to"]))]
pub struct EmailSpec {
    /// The server.
    pub host: Option<String>,
    /// Its port. The default is 587, with `implicit` 465, with `none` 25.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u32>,
    /// How the connection is kept from others: `starttls`, which is the default, `implicit`, or
    /// `none`, which is for servers on this machine.
    pub tls: Option<MailTls>,
    /// Who logs in.
    pub username: Option<String>,
    /// A file with the password, relative to this file.
    pub password_file: Option<String>,
    /// The environment variable with the password.
    pub password_env: Option<String>,
    /// Who the mail is from: `Stillframe <backup@example.org>`.
    pub from: Option<String>,
    /// Who gets it.
    pub to: Option<Texts>,
}

/// A program that gets the message as JSON on its standard input.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["command"]))]
pub struct ExecSpec {
    /// The program, relative to this file where its name has a `/`, and its arguments. No shell
    /// reads them.
    #[schemars(length(min = 1))]
    pub command: Option<Vec<String>>,
    /// It is ended after this time: at least 1s. The default is 30s.
    pub timeout: Option<LengthText>,
}

/// A URL that is asked for with each round: with `/start` behind it when a round begins, as it is
/// when all went well, and with `/fail` when not.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PingSpec {
    /// The URL.
    pub url: Option<String>,
    /// A file with the URL, relative to this file.
    pub url_file: Option<String>,
    /// The environment variable with the URL.
    pub url_env: Option<String>,
    /// Whether it may be reached without TLS on other machines. The default is false.
    pub plain_http: Option<bool>,
    /// The engines whose rounds count. The default is all.
    pub engines: Option<Texts>,
}
