//! A review as a page: what is lost and when first, and whether it can be undone.

mod annotations;
mod effects;
mod meaning;

pub use annotations::review_annotations;

use jiff::Timestamp;
use serde_json::Value;

use super::page::{Page, Part, Text, Weight};
use super::text::{count, grouped, minute};
use crate::elapsed::Elapsed;
use crate::plan::guard::{SHORT_ID, refuses};
use crate::policy::Finding;
use crate::review::{Review, Verdict};

/// A review for people.
pub fn review_page(review: &Review) -> Page {
    let parts: Vec<Part> = [
        effects::losses_by_policy(review),
        effects::losses(review),
        effects::unprotected(review),
        effects::next_deletes(review),
        effects::orphaned(review),
        effects::doubled(review),
        meaning::policies(review),
        meaning::configuration(review),
        meaning::schedules(review),
        effects::protection(review),
        effects::protected(review),
        effects::gains(review),
        effects::next_round(review),
        effects::budget(review),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect();
    Page {
        title: format!("Policy change against {}", review.base),
        verdict: verdict(review),
        parts,
        footer: footer(review),
    }
}

fn verdict(review: &Review) -> Vec<(Weight, Text)> {
    let verdict = &review.verdict;
    let mut lines = Vec::new();
    let mut say = |weight: Weight, text: String| lines.push((weight, Text::own(text)));
    if verdict.same_meaning && review.configuration.is_empty() {
        say(Weight::Aside, "No effect: the policies mean what they meant.".to_owned());
    } else if !verdict.has_effect {
        say(Weight::Aside, "No effect on any source, image or run.".to_owned());
    }
    losses(review, &mut say);
    if verdict.sources_unprotected > 0 {
        let sources = count(verdict.sources_unprotected, "source");
        say(Weight::Danger, format!("{sources} without any protection from now on."));
    }
    if verdict.policies_stopped > 0 {
        let are = if verdict.policies_stopped == 1 { "policy runs" } else { "policies run" };
        say(Weight::Danger, format!("{} {are} never again.", verdict.policies_stopped));
    }
    if verdict.orphaned > 0 {
        let images = count(verdict.orphaned, "image");
        say(
            Weight::Notice,
            format!(
                "{images} belong to no policy any more: they stay, and nothing takes them away. \
                 Say `moved` or `removed` in the configuration."
            ),
        );
    }
    if verdict.still_shared > 0 {
        let images = count(verdict.still_shared, "image");
        let they = if verdict.still_shared == 1 { "stays" } else { "stay" };
        say(
            Weight::Notice,
            format!(
                "{images} {they} shared with whom they were given: nothing says any more who may use them. \
                 `sharing: []` takes it back."
            ),
        );
    }
    if verdict.sources_doubled > 0 {
        let sources = count(verdict.sources_doubled, "source");
        say(Weight::Notice, format!("{sources} now protected by more policies than before."));
    }
    if refuses(&review.refusals) {
        say(
            Weight::Notice,
            "Guards refuse some of the deletes of the next round; see the plan.".to_owned(),
        );
    }
    gains(verdict, &mut say);
    for engine in review.engines.iter().filter(|engine| !engine.complete) {
        let text = Text::own("The engine ").name(&engine.name);
        let text = text.and(" was not seen whole: what is said of it may be too little.");
        lines.push((Weight::Notice, text));
    }
    lines
}

fn losses(review: &Review, say: &mut dyn FnMut(Weight, String)) {
    let verdict = &review.verdict;
    let all = review.losses.len();
    let shifted = review.shifted;
    if all == 0 && shifted.images == 0 && verdict.has_effect {
        say(Weight::Aside, "No image is deleted earlier than before.".to_owned());
    }
    if shifted.images > 0 {
        let are = if shifted.images == 1 { "is" } else { "are" };
        say(
            Weight::Notice,
            format!(
                "{} {are} deleted earlier by a run: by {} at most.",
                count(shifted.images, "image"),
                seconds(shifted.most_seconds)
            ),
        );
    }
    if all == 0 {
        return;
    }
    let mut when = Vec::new();
    for (number, words) in [
        (verdict.lost_30, "within 30 days"),
        (verdict.lost_90 - verdict.lost_30, "within 90 days"),
        (verdict.lost_later, "later"),
    ] {
        if number > 0 {
            when.push(format!("{} {words}", grouped(number)));
        }
    }
    let are = if all == 1 { "is" } else { "are" };
    say(
        Weight::Danger,
        format!(
            "{} {are} deleted earlier than without this change: {}.",
            count(all, "image"),
            when.join(", ")
        ),
    );
    if verdict.lost_only_copies > 0 {
        let leave = if verdict.lost_only_copies == 1 { "leaves" } else { "leave" };
        say(
            Weight::Danger,
            format!(
                "{} of them {leave} nothing as old of that source behind.",
                grouped(verdict.lost_only_copies)
            ),
        );
    }
    if let Some(first) = verdict.undoable_until {
        let text = if first <= review.now {
            "The first is deleted by the next run. What is deleted is gone for good.".to_owned()
        } else {
            format!(
                "It can be undone by reverting this change: in whole before {}, when the first is deleted, \
                 in part after that. What is deleted is gone for good.",
                minute(first)
            )
        };
        say(Weight::Danger, text);
    }
}

fn gains(verdict: &Verdict, say: &mut dyn FnMut(Weight, String)) {
    if verdict.gained > 0 {
        let images = count(verdict.gained, "image");
        let are = if verdict.gained == 1 { "is" } else { "are" };
        say(Weight::Change, format!("{images} {are} kept longer than before."));
    }
    if verdict.sources_protected > 0 {
        let sources = count(verdict.sources_protected, "source");
        let are = if verdict.sources_protected == 1 { "is" } else { "are" };
        say(Weight::Change, format!("{sources} {are} newly protected."));
    }
}

fn footer(review: &Review) -> Vec<Text> {
    let short = |text: &str| text.get(..SHORT_ID).unwrap_or(text).to_owned();
    let instances: usize = review.engines.iter().map(|engine| engine.instances).sum();
    let images: usize = review.engines.iter().map(|engine| engine.images).sum();
    let mut seen = Text::own(format!(
        "Seen at {}: {}, {}. Policies {} against {}",
        minute(review.now),
        count(instances, "instance"),
        count(images, "image"),
        short(&review.policies_digest),
        short(&review.base_digest),
    ));
    if let Some(commit) = &review.base_commit {
        seen = seen.and(" of commit ").name(short(commit));
    }
    let summary = &review.summary;
    let plan = Text::own(format!(
        "The next round, this change or not: plan {}, {} created, {} deprecated, {} deleted, {} kept.",
        short(&review.plan),
        grouped(summary.create),
        grouped(summary.deprecate),
        grouped(summary.delete),
        grouped(summary.keep),
    ));
    vec![seen.and("."), plan]
}

/// A value as it is written in a policy, on one line.
fn value(value: Option<&Value>) -> Text {
    match value {
        None => Text::own("–"),
        Some(Value::String(text)) => Text::foreign(text),
        Some(other) => Text::foreign(other.to_string()),
    }
}

fn seconds(seconds: i64) -> String {
    Elapsed::seconds(seconds).rough()
}

fn age(instant: Timestamp, now: Timestamp) -> String {
    Elapsed::between(instant, now).rough()
}

/// What is wrong in policies with which nothing can be planned.
pub fn mistakes_page(found: &[Finding]) -> Page {
    let columns = ["", "where", "what", "hint"];
    let mut part = Part::table("Mistakes", Weight::Danger, &columns);
    part.rows = found
        .iter()
        .map(|finding| {
            let place = finding.place.as_ref().map(ToString::to_string).unwrap_or_default();
            vec![
                Text::own(finding.code.word()),
                Text::foreign(place),
                Text::foreign(&finding.message),
                finding.hint.as_ref().map(Text::foreign).unwrap_or_default(),
            ]
        })
        .collect();
    let text = "The policies have mistakes: nothing is planned, and nothing is done with them.";
    Page {
        title: "Policies with mistakes".to_owned(),
        verdict: vec![(Weight::Danger, Text::own(text))],
        parts: vec![part],
        footer: Vec::new(),
    }
}
