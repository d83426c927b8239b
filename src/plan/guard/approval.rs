//! Approvals: a person says that deletes of a class are meant, image by image.
//!
//! An approval is bound to its images. A plan that deletes more of the class than was approved voids
//! it; one that deletes fewer keeps it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::Guard;
use super::{Override, Refusal};
use crate::plan::action::Action;
use crate::plan::document::{Change, Plan};
use crate::policy::Risk;

/// The version of the approval document. The first number changes when a reader must change.
pub const APPROVAL_VERSION: &str = "1.0";

/// What deletes have in common that are approved together.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The last READY restore point of a source.
    LastPoint,
    /// The oldest READY restore point of a series: it reaches less far back afterwards.
    ShortensReach,
    /// A restore point of a source that is gone or no longer selected.
    SourceGone,
    /// What happens on every ordinary day.
    Routine,
    /// All deletes of a plan, because there are so many.
    Mass,
}

impl Class {
    /// Every class there is.
    pub const ALL: [Self; 5] =
        [Self::LastPoint, Self::ShortensReach, Self::SourceGone, Self::Routine, Self::Mass];

    /// The word used on the command line and in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::LastPoint => "last-point",
            Self::ShortensReach => "shortens-reach",
            Self::SourceGone => "source-gone",
            Self::Routine => "routine",
            Self::Mass => "mass",
        }
    }

    /// The class of that word.
    pub fn parse(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|class| class.word() == word).ok_or_else(|| {
            let words = Self::ALL.map(Self::word);
            format!("`{word}` is no class of deletes; there are {}", words.join(", "))
        })
    }

    /// The class of deletes of a risk.
    pub fn of(risk: Risk) -> Self {
        match risk {
            Risk::LastPoint => Self::LastPoint,
            Risk::ShortensReach => Self::ShortensReach,
            Risk::SourceGone => Self::SourceGone,
            Risk::Rotation => Self::Routine,
        }
    }

    /// Whether a delete belongs to it.
    fn has(self, change: &Change) -> bool {
        change.action == Action::Delete
            && (self == Self::Mass || change.risk.is_some_and(|risk| Self::of(risk) == self))
    }
}

/// An image whose delete is approved.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The engine.
    pub engine: String,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

impl Item {
    fn of(change: &Change) -> Option<Self> {
        Some(Self {
            engine: change.engine.clone(),
            id: change.image.id.clone()?,
            name: change.image.name.clone(),
            created_at: change.image.created_at,
        })
    }
}

/// A person says that deletes of a class are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The version of this document.
    pub format_version: String,
    /// Which deletes.
    pub class: Class,
    /// The id of the plan that was looked at.
    pub plan: String,
    /// The digest of the policies it was made from. Under other policies the approval is void.
    pub policies_digest: String,
    /// The images.
    pub items: BTreeSet<Item>,
    /// Who approved it, as they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl Approval {
    /// Approves all deletes of a class in a plan. There may be none.
    pub fn of(plan: &Plan, class: Class, by: Option<String>, at: Timestamp) -> Self {
        Self {
            format_version: APPROVAL_VERSION.to_owned(),
            class,
            plan: plan.id.clone(),
            policies_digest: plan.policies_digest.clone(),
            items: items(plan, class).collect(),
            by,
            at,
        }
    }

    /// Whether all that a plan deletes of its class is approved.
    fn covers(&self, plan: &Plan) -> bool {
        self.policies_digest == plan.policies_digest
            && items(plan, self.class).all(|item| self.items.contains(&item))
    }
}

fn items(plan: &Plan, class: Class) -> impl Iterator<Item = Item> {
    plan.changes.iter().filter(move |change| class.has(change)).filter_map(Item::of)
}

/// The classes of which a refusal waits for an approval.
pub(super) fn classes(refusal: &Refusal, plan: &Plan) -> BTreeSet<Class> {
    match refusal.guard {
        Guard::SeriesShare | Guard::EngineShare | Guard::EngineCount => [Class::Mass].into(),
        Guard::RiskClass => {
            let refused = |change: &&Change| {
                let id = change.image.id.as_ref();
                change.engine == refusal.engine && id.is_some_and(|id| refusal.images.contains(id))
            };
            let risks = plan.changes.iter().filter(refused).filter_map(|change| change.risk);
            risks.map(Class::of).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// Whether everything that a refusal keeps from happening was approved.
pub(super) fn is_approved(refusal: &Refusal, plan: &Plan, overrides: &[Override]) -> bool {
    let classes = classes(refusal, plan);
    let approvals = || {
        overrides.iter().filter_map(|given| match given {
            Override::Approved(approval) => Some(approval),
            Override::Flag { .. } => None,
        })
    };
    !classes.is_empty()
        && classes.into_iter().all(|class| {
            approvals().any(|approval| approval.class == class && approval.covers(plan))
        })
}

/// Why an approval lets nothing through that is refused otherwise, where it does not.
pub(super) fn void(approval: &Approval, plan: &Plan) -> Option<String> {
    let class = approval.class.word();
    let more = || items(plan, approval.class).filter(|item| !approval.items.contains(item)).count();
    let why = match (approval.policies_digest == plan.policies_digest, more()) {
        (false, _) => "the policies have changed since".to_owned(),
        (true, 0) => return None,
        (true, 1) => "one image of that class was not among those approved".to_owned(),
        (true, more) => format!("{more} images of that class were not among those approved"),
    };
    Some(format!("the approval of {class} is void: {why}"))
}
