//! What a person says is meant, though a guard refuses it: flags and approvals.

use super::approval::{self, Approval};
use super::{Refusal, SHORT_ID};
use crate::plan::document::Plan;

/// Says that something refused is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Override {
    /// A flag that is bound to a plan and a number: `GUARD=PLAN:COUNT`, and where there are several
    /// engines, `GUARD@ENGINE=PLAN:COUNT`.
    Flag {
        /// The word of the guard.
        guard: String,
        /// The engine, where there are several.
        engine: Option<String>,
        /// The beginning of the id of the plan.
        plan: String,
        /// How many images.
        count: usize,
    },
    /// An approval, which is bound to images.
    Approved(Approval),
}

impl Override {
    /// Reads `series-share=9f3c21d0:31`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || {
            format!(
                "`{text}` is not an override; copy the one that the plan prints, like `engine-share=9f3c21d0a1b2:31`"
            )
        };
        let (guard, rest) = text.split_once('=').ok_or_else(form)?;
        let (plan, count) = rest.split_once(':').ok_or_else(form)?;
        let count = count.parse().map_err(|_| form())?;
        if plan.len() < SHORT_ID {
            return Err(form());
        }
        let (guard, engine) = match guard.split_once('@') {
            Some((guard, engine)) => (guard, Some(engine.to_owned())),
            None => (guard, None),
        };
        Ok(Self::Flag { guard: guard.to_owned(), engine, plan: plan.to_owned(), count })
    }
}

/// Overrides that change nothing in this plan, and why: each is a mistake.
pub fn unused(plan: &Plan, overrides: &[Override]) -> Vec<String> {
    let fits = |guard: &str, of: Option<&String>, count: usize| {
        plan.refusals.iter().any(|refusal| {
            refusal.overridden
                && refusal.guard.word() == guard
                && refusal.images.len() == count
                && of.is_none_or(|engine| *engine == refusal.engine)
        })
    };
    let short = plan.id.get(..SHORT_ID).unwrap_or(&plan.id);
    let mut texts = Vec::new();
    for given in overrides {
        let (guard, engine, of, count) = match given {
            Override::Flag { guard, engine, plan, count } => (guard, engine, plan, count),
            Override::Approved(approval) => {
                texts.extend(approval::void(approval, plan));
                continue;
            }
        };
        if fits(guard, engine.as_ref(), *count) {
            continue;
        }
        let is_it = |refusal: &&Refusal| {
            refusal.guard.word() == *guard
                && engine.as_ref().is_none_or(|engine| *engine == refusal.engine)
        };
        let at = engine.as_ref().map(|engine| format!("@{engine}")).unwrap_or_default();
        let why = match plan.refusals.iter().find(is_it) {
            None => format!("the guard {guard} refuses nothing in this plan"),
            Some(refusal) if !refusal.guard.can_be_overridden() => {
                format!("what the guard {guard} refuses cannot be overridden")
            }
            Some(_) if !plan.id.starts_with(of) => {
                format!("it was given for plan {of}, and this is plan {short}")
            }
            Some(refusal) if refusal.images.len() != *count => {
                format!(
                    "it was given for {count} images, and now there are {}",
                    refusal.images.len()
                )
            }
            Some(_) => "there are several engines: copy the flag that the plan prints".to_owned(),
        };
        texts.push(format!("the override {guard}{at}={of}:{count} has no effect: {why}"));
    }
    texts
}
