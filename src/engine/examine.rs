//! Examining an engine: what it needs, and whether that is there. Nothing is changed by it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

/// A clock that differs by less is right: services tell whole seconds.
const AHEAD_SECONDS: u64 = 10;
/// By more than this it is wrong.
const WRONG_SECONDS: u64 = 60;

/// What somebody wants to do, for which rights are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Look at everything and plan.
    Plan,
    /// Make restore points.
    Create,
    /// Let go of restore points and delete them.
    Delete,
    /// Say who else may use images.
    Share,
    /// Make disk images by way of snapshots.
    #[serde(rename = "create-via-snapshot")]
    ViaSnapshot,
}

impl Task {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::Plan, Self::Create, Self::Delete, Self::Share, Self::ViaSnapshot];

    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Share => "share",
            Self::ViaSnapshot => "create-via-snapshot",
        }
    }
}

/// What is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Its settings.
    Settings,
    /// Who asks, and how that is proven.
    Credentials,
    /// Where it is asked.
    Endpoint,
    /// The clock of this machine against another.
    Clock,
    /// Services that must be switched on.
    Services,
    /// What may be done.
    Permissions,
    /// How many there may be.
    Quota,
    /// The machines to be protected.
    Instances,
    /// Directories that are read and written.
    Directories,
    /// Space for new images.
    Space,
    /// What images are encrypted under.
    Keys,
    /// Where images are kept.
    Repositories,
    /// The record of what was done.
    Ledger,
}

impl Topic {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Credentials => "credentials",
            Self::Endpoint => "endpoint",
            Self::Clock => "clock",
            Self::Services => "services",
            Self::Permissions => "permissions",
            Self::Quota => "quota",
            Self::Instances => "instances",
            Self::Directories => "directories",
            Self::Space => "space",
            Self::Keys => "keys",
            Self::Repositories => "repositories",
            Self::Ledger => "ledger",
        }
    }
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Well,
    /// As it may be, and worth knowing.
    Note,
    /// It could not be looked at, so nobody knows.
    Unknown,
    /// Something will not work.
    Wrong,
}

impl Verdict {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Well => "ok",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
        }
    }
}

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Examined {
    /// What was looked at.
    pub topic: Topic,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Examined {
    /// Something that was found.
    pub fn new(topic: Topic, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { topic, verdict, message: message.into(), remedy: None }
    }

    /// The clock of this machine, where that of a service is so many seconds ahead.
    pub fn clock(ahead: i64) -> Self {
        let seconds = ahead.unsigned_abs();
        let way = if ahead > 0 { "behind" } else { "ahead of" };
        let message = format!("the clock of this machine is {seconds} s {way} that of the service");
        if seconds < AHEAD_SECONDS {
            let message = "the clock of this machine agrees with that of the service";
            Self::new(Topic::Clock, Verdict::Well, message)
        } else if seconds < WRONG_SECONDS {
            Self::new(Topic::Clock, Verdict::Note, message)
        } else {
            Self::new(Topic::Clock, Verdict::Wrong, message)
                .with_remedy("set the clock: tokens are refused, and ages of images are wrong")
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// What is to be examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What must be possible.
    pub tasks: BTreeSet<Task>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { tasks: Task::ALL.into_iter().collect() }
    }
}

/// The smallest set of rights that somebody needs for a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// What it is for.
    #[serde(skip)]
    pub task: Task,
    /// How it is made, for the command line of the service.
    #[serde(skip)]
    pub made_with: String,
    /// For lists.
    pub title: String,
    /// What one can do with it.
    pub description: String,
    /// How finished it is, in the word of the service.
    pub stage: String,
    /// The rights, in order.
    pub included_permissions: Vec<String>,
}
