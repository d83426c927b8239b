//! What a forecast says.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::retention::Rule;

/// What becomes of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    /// The rules that keep it now, in their order, and when each lets go.
    pub rules: Vec<RuleEnd>,
    /// What holds it now, whatever the rules say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HoldEnd>,
    /// When it will be deprecated for its age and kept all the same (`deprecateAfter`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aged_at: Option<Timestamp>,
    /// When it will be obsolete for its age and kept all the same (`obsoleteAfter`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obsolete_at: Option<Timestamp>,
    /// When it was or will be let go, which deprecates it for good; absent where it never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated_at: Option<Timestamp>,
    /// When it will be deleted, by the first run at or after; absent where it never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// Why it is never deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never: Option<Never>,
    /// What would change this.
    pub changed_by: Vec<Influence>,
}

/// A rule that keeps an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleEnd {
    /// The rule; absent for the newest ones that `atLeast` keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// When it lets go; absent where that lies beyond fifty years or needs restore points that
    /// never come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lets_go_at: Option<Timestamp>,
}

/// A hold on an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldEnd {
    /// The reason that the policy gives; absent where it is the label of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ends; absent where it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
}

macro_rules! closed_list {
    ($(#[doc = $about:literal])+ $name:ident { $($variant:ident $word:literal $text:literal)* }) => {
        $(#[doc = $about])+
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $(#[doc = $text] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable code.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// What it means, for people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

closed_list! {
    /// Why an image is never deleted if nothing changes.
    Never {
        NoRules "no-rules" "the policy has no rule that lets go of anything"
        Held "held" "a hold without an end keeps it"
        InUse "in-use" "an instance, a template or a family needs it"
        Paused "paused" "the deletes of its policy are paused without an end"
        NoNewPoints "no-new-points" "no newer restore points come, so nothing takes its place"
        SourceGoneKept "source-gone-kept" "its source is gone, and its policy says that restore points stay then"
        CopyMissing "copy-missing" "a location has no READY copy of it or of a newer one, and none will come"
        NotReady "not-ready" "it is not READY, and what is under way is left alone"
        InventoryGap "inventory-gap" "its engine was not seen whole, and nothing is deleted until it is"
        BeyondHorizon "beyond-horizon" "a rule keeps it for more than fifty years"
    }
}

closed_list! {
    /// What would change a forecast.
    Influence {
        MissedCaptures "missed-captures" "captures that fail or are paused postpone what rules that count let go"
        Stall "stall" "without a new READY restore point for too long, nothing of the series is deleted"
        Hold "hold" "a hold keeps it as long as it lasts"
        WiderPolicy "wider-policy" "a rule that is widened before the grace has passed brings it back"
        SourceGone "source-gone" "if the source goes, nothing changes for its grace, and then no new points take its place"
        Guard "guard" "a guard may refuse to delete it, until somebody overrides it"
        SourceBack "source-back" "if the source comes back, new restore points take its place"
        Reselected "reselected" "if the policy selects the source again, new restore points take its place"
        PolicyBack "policy-back" "if the policy comes back, its rules hold again"
        CopyGate "copy-gate" "until each location has a READY copy of it or of a newer one, it is not deleted"
    }
}
