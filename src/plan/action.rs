//! What can be done to an image, and why: two closed lists.

use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::retention::{Closest, Keep, Rule};

/// What is done to an image. An action is its mark on the screen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Capture a source.
    Create,
    /// Take a deprecation back.
    Reactivate,
    /// Change labels only.
    Relabel,
    /// Copy to another location.
    Copy,
    /// Mark as not to be used any more for anything new.
    Deprecate,
    /// Mark as not to be used at all.
    Obsolete,
    /// Prove restorable.
    Drill,
    /// Delete for good.
    Delete,
}

impl Action {
    /// The mark in plans.
    pub fn mark(self) -> char {
        match self {
            Self::Create => '+',
            Self::Reactivate => '^',
            Self::Relabel => '≈',
            Self::Copy => '»',
            Self::Drill => '✓',
            Self::Deprecate | Self::Obsolete => '~',
            Self::Delete => '-',
        }
    }

    /// The word in plans.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Reactivate => "reactivate",
            Self::Relabel => "relabel",
            Self::Copy => "copy",
            Self::Drill => "drill",
            Self::Deprecate => "deprecate",
            Self::Obsolete => "obsolete",
            Self::Delete => "delete",
        }
    }
}

/// Why something is done or left: a code from the closed list, and what it means here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The code.
    pub code: ReasonCode,
    /// What it means here, for people.
    pub detail: String,
}

impl Reason {
    /// A reason.
    pub fn new(code: ReasonCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.detail)
    }
}

impl From<&Keep> for Reason {
    fn from(keep: &Keep) -> Self {
        let code = match keep {
            Keep::Young { rule, .. } | Keep::Place { rule, .. } => ReasonCode::of_rule(*rule),
            Keep::AtLeast { .. } => ReasonCode::AtLeast,
            Keep::Held => ReasonCode::Held,
            Keep::NotReady => ReasonCode::NotReady,
            Keep::Quarantined => ReasonCode::Quarantined,
            Keep::NoRules => ReasonCode::NoRules,
        };
        // Most are no longer than this; there may be millions.
        let mut detail = String::with_capacity(24);
        // Writing to a text cannot fail.
        let _ = write!(detail, "{keep}");
        Self::new(code, detail)
    }
}

impl From<&Closest> for Reason {
    fn from(closest: &Closest) -> Self {
        Self::new(ReasonCode::NoRuleKeeps, format!("no rule keeps it; closest {closest}"))
    }
}

macro_rules! reason_codes {
    ($($variant:ident $word:literal $meaning:literal)*) => {
        /// The reasons there are; each has a stable code.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum ReasonCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl ReasonCode {
            /// All codes there are.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable code.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }
        }
    };
}

reason_codes! {
    SlotDue "slot-due" "A slot of the schedule is due and has no restore point."
    FailedAttempt "failed-attempt" "An attempt that failed: it can never be restored and protects nothing."
    NewerRemainder "newer-remainder" "It is what is left of a restore point, and what is left of a newer one holds every disk that it holds."
    NoRuleKeeps "no-rule-keeps" "No retention rule keeps the restore point."
    GracePassed "grace-passed" "The restore point was let go and the grace has passed."
    DeprecationUndone "deprecation-undone" "It was let go, and somebody has made it active again since: it is let go anew."
    OldMark "old-mark" "Its labels say that it was let go before it was made: they are those of another image, and it is let go anew."
    KeptAgain "kept-again" "A rule or a hold keeps the restore point again."
    DeprecateAfter "deprecate-after" "The restore point is kept and older than `deprecateAfter`."
    ObsoleteAfter "obsolete-after" "The restore point is kept and older than `obsoleteAfter`."
    SourceMissing "source-missing" "The source is not in the inventory any more."
    SourceUnselected "source-unselected" "The policy does not select the source any more."
    SourceBack "source-back" "The source was missing and is back."
    PolicyBack "policy-back" "The policy was removed and is back."
    Hours "hours" "Kept by the rule `hours`."
    Days "days" "Kept by the rule `days`."
    Weeks "weeks" "Kept by the rule `weeks`."
    Last "last" "Kept by the rule `last`."
    Hourly "hourly" "Kept by the rule `hourly`."
    Daily "daily" "Kept by the rule `daily`."
    Weekly "weekly" "Kept by the rule `weekly`."
    Monthly "monthly" "Kept by the rule `monthly`."
    Yearly "yearly" "Kept by the rule `yearly`."
    AtLeast "at-least" "Among the newest READY restore points that are always kept."
    Held "held" "A hold keeps it."
    NotReady "not-ready" "It is not READY: rules do not apply to it."
    Quarantined "quarantined" "It is dated in the future: kept, and it moves no other."
    NoRules "no-rules" "The policy has no rule that lets go of anything."
    InGrace "in-grace" "It was let go and the grace has not passed."
    Stalled "stalled" "Its series has no new READY restore point for too long: nothing of it is deleted."
    Paused "paused" "Its policy is paused."
    Blackout "blackout" "A blackout of its policy or of the configuration holds."
    CopyMissing "copy-missing" "A location that is to hold a copy has none."
    SharingDiffers "sharing-differs" "Who may use it is not what the policy says."
    DrillDue "drill-due" "A drill is due: the restore point is to be proven restorable."
    DrillRemembered "drill-remembered" "The restore point that was drilled last goes: when that was is written on the newest."
    PolicyRemoved "policy-removed" "Its policy was taken out of the files, and `removed` says what becomes of it."
    SourceGoneKept "source-gone-kept" "Its source or its policy is gone, and what is left stays."
    InventoryGap "inventory-gap" "Not everything was seen: nothing is deleted."
    InUse "in-use" "An instance, a template or a family needs it."
    SourceGoneGrace "source-gone-grace" "Its source is gone, and the grace for that has not passed."
    CaptureFails "capture-fails" "It is done only where what the plan captures does not become READY: else it is not needed."
    Undone "undone" "A person undoes what a plan has let go of."
    Adopted "adopted" "A person takes an image that is nobody's into a policy."
    Imported "imported" "A person has a disk that lies in object storage made a restore point of a policy."
    OrphanPolicy "orphan-policy" "Its policy is not in the files: it is reported and left alone."
}

impl ReasonCode {
    /// The code of a retention rule.
    pub fn of_rule(rule: Rule) -> Self {
        match rule {
            Rule::Hours => Self::Hours,
            Rule::Days => Self::Days,
            Rule::Weeks => Self::Weeks,
            Rule::Last => Self::Last,
            Rule::Hourly => Self::Hourly,
            Rule::Daily => Self::Daily,
            Rule::Weekly => Self::Weekly,
            Rule::Monthly => Self::Monthly,
            Rule::Yearly => Self::Yearly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_what_serde_writes() {
        for code in ReasonCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.word());
        }
    }
}
