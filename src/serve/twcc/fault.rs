//! What can go wrong on purpose.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Refusal;

/// When a client that has sent too many requests may come back.
const RETRY_AFTER_SECONDS: u32 = 7;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// There were too many requests; the answer says when to come back.
    TooManyRequests,
    /// What stands behind the gateway is not there for a moment: a page of HTML. Nothing was done.
    BadGateway,
    /// What was asked for is done, and a page of HTML is answered.
    ReplyLost,
    /// The gateway sends to its page for logging in.
    Login,
    /// The key is not taken.
    Unauthorized,
    /// It is another user's.
    Forbidden,
    /// A field is not as it must be.
    BadField,
    /// A list has an entry that says too little.
    UnreadableEntry,
    /// A list has not its last entry.
    ShortList,
    /// The entries of a list have no description.
    NoDescription,
    /// The entries of a list do not say when they were made.
    NoTime,
    /// The entries of a list do not say what they are of: the server of a site or an image, the host of a volume,
    /// the system of a server.
    Bare,
    /// Each entry of a list is there twice, with another number.
    Doubled,
    /// A list has no entries.
    Nothing,
    /// All volumes of a list are bootable.
    Bootable,
    /// What a list has is offered to all.
    Public,
    /// What a list has is in another project.
    Elsewhere,
    /// What is being made is in a state that nobody has heard of.
    OddWord,
    /// What was stuck begins.
    Revival,
    /// What is begun stays QUEUED, until a revival.
    Stuck,
    /// What is begun stays SAVING for ever.
    Hung,
    /// What is begun ends with an error.
    FailedJob,
    /// What is begun is made, and is gone again.
    Vanishing,
    /// What was asked for once is made twice, under one name.
    Duplicate,
    /// What is begun has another name.
    OtherName,
    /// What is begun has not all of its description.
    OtherDescription,
    /// What is deleted ends with an error.
    FailedDelete,
    /// What is deleted stays DELETING for ever.
    HungDelete,
}

impl Fault {
    /// Whether it befalls what was begun, and not the request.
    pub fn is_of_job(self) -> bool {
        matches!(
            self,
            Self::Stuck
                | Self::Hung
                | Self::FailedJob
                | Self::Vanishing
                | Self::Duplicate
                | Self::OtherName
                | Self::OtherDescription
        )
    }

    /// Whether it befalls what is deleted, and not the request.
    pub fn is_of_delete(self) -> bool {
        matches!(self, Self::FailedDelete | Self::HungDelete)
    }

    /// Whether it befalls the entries of a list.
    pub fn is_of_list(self) -> bool {
        matches!(
            self,
            Self::UnreadableEntry
                | Self::ShortList
                | Self::NoDescription
                | Self::NoTime
                | Self::Bare
                | Self::Doubled
                | Self::Nothing
                | Self::Bootable
                | Self::Public
                | Self::Elsewhere
        )
    }

    /// Whether it befalls a request.
    pub fn is_of_request(self, is_list: bool) -> bool {
        !self.is_of_job() && !self.is_of_delete() && (is_list || !self.is_of_list())
    }

    /// What becomes of the states that an answer tells.
    pub fn odd(body: &mut Value) {
        match body {
            Value::Array(entries) => entries.iter_mut().for_each(Self::odd),
            Value::Object(fields) => {
                if let Some(Value::String(word)) = fields.get_mut("status")
                    && ["QUEUED", "SAVING", "CREATING"].contains(&word.as_str())
                {
                    "IMPORTING".clone_into(word);
                }
            }
            _ => {}
        }
    }

    /// What becomes of the entries of a list.
    pub fn edit(self, entries: &mut Vec<Value>) {
        match self {
            Self::UnreadableEntry => entries.push(json!({"name": "an entry without a number"})),
            Self::ShortList => drop(entries.pop()),
            Self::Nothing => entries.clear(),
            Self::Doubled => {
                let again = entries.clone().into_iter().map(|mut entry| {
                    entry["id"] = json!(entry["id"].as_u64().unwrap_or_default() + 1);
                    entry
                });
                entries.extend(again.collect::<Vec<_>>());
            }
            _ => entries.iter_mut().for_each(|entry| self.edit_one(entry)),
        }
    }

    fn edit_one(self, entry: &mut Value) {
        let Some(fields) = entry.as_object_mut() else { return };
        match self {
            Self::NoDescription => drop(fields.remove("desc")),
            Self::NoTime => drop(fields.remove("create_time")),
            Self::Bootable => drop(fields.insert("is_bootable".to_owned(), json!(true))),
            Self::Public => drop(fields.insert("is_public".to_owned(), json!(true))),
            Self::Elsewhere => {
                fields.insert("project".to_owned(), json!({"id": 102, "name": "GOV000002"}));
            }
            Self::Bare => {
                for (field, bare) in [
                    ("server", Value::Null),
                    ("attached_host", json!({})),
                    ("os", Value::Null),
                    ("servers", json!([{"hostname": "", "status": "ACTIVE"}])),
                ] {
                    if let Some(value) = fields.get_mut(field) {
                        *value = bare;
                    }
                }
            }
            _ => {}
        }
    }

    /// What the client is told.
    pub fn refusal(self, path: &str) -> Refusal {
        match self {
            Self::TooManyRequests => Refusal::too_many(RETRY_AFTER_SECONDS),
            Self::Login => Refusal::login(path),
            Self::Unauthorized => Refusal::unauthorized(),
            Self::Forbidden => Refusal::forbidden("it is another user's"),
            Self::BadField => Refusal::field("desc", "Not a valid string."),
            _ => Refusal::bad_gateway(),
        }
    }
}
