//! What a change does, at the lines that do it: annotations of GitHub Actions.

use super::super::findings::annotation;
use super::super::text::{clean, count};
use crate::review::{PolicyChange, Review};

/// So many annotations GitHub shows for a step.
const SHOWN_MAX: usize = 10;

/// The worst ten, the worst first.
pub fn review_annotations(review: &Review) -> String {
    let mut all: Vec<(usize, String)> =
        review.policies.iter().filter_map(|change| annotate(review, change)).collect();
    // Those that lose most first; the order of names is kept among equals.
    all.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let left = all.len().saturating_sub(SHOWN_MAX);
    let mut text: String = all.into_iter().take(SHOWN_MAX).map(|(_, line)| line + "\n").collect();
    if left > 0 {
        text.push_str(&format!(
            "::notice title=stillframe::{}; the comment has all\n",
            count(left, "more policy change")
        ));
    }
    text
}

/// What the change of one policy does, and how bad that is.
fn annotate(review: &Review, change: &PolicyChange) -> Option<(usize, String)> {
    let is_its = |policy: &crate::name::PolicyName| {
        *policy == change.policy || change.was.as_ref() == Some(policy)
    };
    let lost = review.losses.iter().filter(|loss| is_its(&loss.policy)).count();
    let sources = review.sources.iter();
    let dropped = sources
        .filter(|source| source.after.is_empty() && source.before.iter().any(is_its))
        .count();
    let orphaned: usize =
        review.orphaned.iter().filter(|one| is_its(&one.policy)).map(|one| one.images).sum();
    let stops = change.schedule.as_ref().is_some_and(|schedule| {
        schedule.before.as_ref().is_some_and(|runs| !runs.next.is_empty())
            && schedule.after.as_ref().is_some_and(|runs| runs.next.is_empty())
    });
    let mut said = Vec::new();
    if lost > 0 {
        said.push(format!("{} deleted earlier than before", count(lost, "image")));
    }
    if dropped > 0 {
        said.push(format!("{} without protection", count(dropped, "source")));
    }
    if orphaned > 0 {
        said.push(format!("{} that nobody looks after", count(orphaned, "image")));
    }
    if change.still_shared > 0 {
        said.push(format!(
            "{} that stay shared, because nothing says with whom any more",
            count(change.still_shared, "image")
        ));
    }
    if stops {
        said.push("it runs never again".to_owned());
    }
    if said.is_empty() {
        return None;
    }
    let at = change.values.iter().find_map(|value| value.at.as_ref()).unwrap_or(&change.at);
    let weight =
        lost + 1_000 * dropped + orphaned + change.still_shared + 1_000 * usize::from(stops);
    let is_bad = lost > 0 || dropped > 0 || stops;
    let command = if is_bad { "warning" } else { "notice" };
    let message = clean(&format!("{}: {}", change.policy, said.join("; ")));
    Some((weight, annotation(command, &at.file, at.line, "stillframe", &message)))
}
