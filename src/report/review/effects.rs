//! What becomes of images and sources.

use std::collections::BTreeMap;

use super::super::page::{Part, Text, Weight};
use super::super::text::{bytes, grouped, minute};
use super::{age, seconds};
use crate::inventory::QuotaUnit;
use crate::name::PolicyName;
use crate::plan::{Action, Budget, Change};
use crate::review::{Fate, FateChange, Protection, Review, SourceChange};

/// From so many images on, what is lost is summed up by policy first.
const SUMMED_FROM: usize = 10;
/// So many names are listed.
const NAMES: usize = 5;

pub(super) fn losses_by_policy(review: &Review) -> Part {
    let columns = ["policy", "images", "sources", "bytes", "first deleted", "last deleted"];
    let mut part = Part::table("What is lost, by policy", Weight::Danger, &columns);
    if review.losses.len() < SUMMED_FROM {
        return part;
    }
    let mut by_policy: BTreeMap<&PolicyName, Vec<&FateChange>> = BTreeMap::new();
    for loss in &review.losses {
        by_policy.entry(&loss.policy).or_default().push(loss);
    }
    for (policy, losses) in by_policy {
        let mut sources: Vec<&str> = losses.iter().map(|loss| loss.source.as_str()).collect();
        sources.sort_unstable();
        sources.dedup();
        let stored = losses.iter().filter_map(|loss| loss.image.stored_bytes).sum();
        // In the order of their ends.
        let end = |loss: Option<&&FateChange>| {
            let at = loss.and_then(|loss| loss.after.deleted_at);
            Text::own(at.map(minute).unwrap_or_default())
        };
        part.rows.push(vec![
            Text::foreign(policy.as_str()),
            Text::own(grouped(losses.len())),
            Text::own(grouped(sources.len())),
            Text::own(bytes(stored)),
            end(losses.first()),
            end(losses.last()),
        ]);
    }
    part
}

pub(super) fn losses(review: &Review) -> Part {
    let columns = ["source", "image", "of", "age", "deleted", "instead of", "was kept by", "left"];
    let mut part = Part::table("What is lost", Weight::Danger, &columns);
    part.rows = review
        .losses
        .iter()
        .map(|loss| {
            let left = match (loss.is_last, loss.only_older_than_seconds) {
                (true, _) => "nothing of this source".to_owned(),
                (false, Some(0)) => "only newer ones, still to come".to_owned(),
                (false, Some(age)) => format!("nothing older than {}", seconds(age)),
                (false, None) => "older ones".to_owned(),
            };
            let deleted = loss
                .after
                .deleted_at
                .map(|at| if at <= review.now { "by the next run".to_owned() } else { minute(at) });
            vec![
                Text::foreign(&loss.source_name),
                Text::foreign(&loss.image.name),
                Text::own(minute(loss.slot.instant())),
                Text::own(age(loss.slot.instant(), review.now)),
                Text::own(deleted.unwrap_or_default()),
                Text::own(end(&loss.before)),
                Text::own(keepers(&loss.before)),
                Text::own(left),
            ]
        })
        .collect();
    part
}

fn end(fate: &Fate) -> String {
    match (fate.deleted_at, fate.never) {
        (Some(at), _) => minute(at),
        (None, Some(never)) => format!("never: {}", never.text()),
        (None, None) => "never: no policy looked after it".to_owned(),
    }
}

fn keepers(fate: &Fate) -> String {
    let mut words: Vec<&str> =
        fate.rules.iter().map(|rule| rule.map_or("atLeast", |rule| rule.word())).collect();
    if fate.held {
        words.insert(0, "a hold");
    }
    if words.is_empty() { "its grace".to_owned() } else { words.join(", ") }
}

fn source_part(
    review: &Review,
    title: &str,
    weight: Weight,
    is_such: impl Fn(&SourceChange) -> bool,
) -> Part {
    let columns = ["source", "engine", "policies before", "policies after"];
    let mut part = Part::table(title, weight, &columns);
    let names = |names: &[PolicyName]| {
        names.iter().enumerate().fold(Text::default(), |text, (index, name)| {
            let text = if index > 0 { text.and(", ") } else { text };
            text.name(name.as_str())
        })
    };
    part.rows = review
        .sources
        .iter()
        .filter(|source| is_such(source))
        .map(|source| {
            let after = match (source.after.is_empty(), source.exempt) {
                (true, true) => Text::own("none, and that is meant (exempt)"),
                (true, false) => Text::own("none"),
                (false, _) => names(&source.after),
            };
            let before =
                if source.before.is_empty() { Text::own("none") } else { names(&source.before) };
            vec![Text::foreign(&source.source_name), Text::foreign(&source.engine), before, after]
        })
        .collect();
    part
}

pub(super) fn unprotected(review: &Review) -> Part {
    let title = "Sources without protection from now on";
    let mut part = source_part(review, title, Weight::Danger, |source| source.after.is_empty());
    if !part.rows.is_empty() {
        part.notes.push(Text::own(
            "No restore points are made of them. Those there are stay for the time that \
             sourceGoneGrace says, then the rules go on.",
        ));
    }
    part
}

pub(super) fn doubled(review: &Review) -> Part {
    let is_such =
        |source: &SourceChange| source.after.len() > 1 && source.after.len() > source.before.len();
    source_part(review, "Sources protected more than once", Weight::Notice, is_such)
}

pub(super) fn protected(review: &Review) -> Part {
    let is_such = |source: &SourceChange| !source.after.is_empty() && source.after.len() < 2;
    source_part(review, "Sources with another policy", Weight::Change, is_such)
}

pub(super) fn orphaned(review: &Review) -> Part {
    let columns = ["policy", "engine", "images", "bytes", ""];
    let mut part = Part::table("Images that nobody looks after", Weight::Notice, &columns);
    part.rows = review
        .orphaned
        .iter()
        .map(|orphans| {
            let now = match &orphans.moved_to {
                Some(engine) => Text::own("its policy is on ").name(engine).and(" now"),
                None => Text::own("its policy is not in the files"),
            };
            vec![
                Text::foreign(orphans.policy.as_str()),
                Text::foreign(&orphans.engine),
                Text::own(grouped(orphans.images)),
                Text::own(bytes(orphans.stored_bytes)),
                now,
            ]
        })
        .collect();
    part
}

pub(super) fn protection(review: &Review) -> Part {
    let columns = ["sources", "", "lost at worst", "reach in the long run", "restore points"];
    let mut part = Part::table("How well sources are protected", Weight::Change, &columns);
    for change in &review.protection {
        let first: Vec<&String> = change.sources.iter().take(NAMES).collect();
        let more = change.sources.len() - first.len();
        let mut names = Text::default();
        for (index, name) in first.into_iter().enumerate() {
            names = if index > 0 { names.and(", ") } else { names };
            names = names.name(name);
        }
        if more > 0 {
            names = names.and(format!(" and {} more", grouped(more)));
        }
        for (word, protection) in [("before", change.before), ("after", change.after)] {
            let mut row = vec![names.clone(), Text::own(word)];
            row.extend(measures(protection));
            part.rows.push(row);
        }
    }
    part
}

fn measures(protection: Option<Protection>) -> [Text; 3] {
    let Some(protection) = protection else {
        return [Text::own("everything"), Text::own("–"), Text::own("none")];
    };
    let apart = protection.apart_seconds.map_or_else(|| "no runs".to_owned(), seconds);
    let reach = protection.reach_seconds.map_or_else(|| "without an end".to_owned(), seconds);
    let points = protection.points.map_or_else(|| "ever more".to_owned(), |all| all.to_string());
    [Text::own(apart), Text::own(reach), Text::own(points)]
}

pub(super) fn gains(review: &Review) -> Part {
    let columns = ["policy", "images", "deleted at first", "now"];
    let mut part = Part::table("Images kept longer", Weight::Aside, &columns);
    let mut by_policy: BTreeMap<&PolicyName, Vec<&FateChange>> = BTreeMap::new();
    for gain in &review.gains {
        by_policy.entry(&gain.policy).or_default().push(gain);
    }
    for (policy, gains) in by_policy {
        let was = gains.iter().filter_map(|gain| gain.before.deleted_at).min();
        let is = gains.iter().map(|gain| gain.after.deleted_at).min().flatten();
        part.rows.push(vec![
            Text::foreign(policy.as_str()),
            Text::own(grouped(gains.len())),
            Text::own(was.map(minute).unwrap_or_default()),
            Text::own(
                is.map_or_else(|| "never".to_owned(), |at| format!("{} or later", minute(at))),
            ),
        ]);
    }
    part
}

fn rows<'c>(changes: impl Iterator<Item = &'c Change>) -> Vec<Vec<Text>> {
    changes
        .map(|change| {
            let reasons: Vec<&str> =
                change.reasons.iter().map(|reason| reason.code.word()).collect();
            vec![
                Text::own(format!("{} {}", change.action.mark(), change.action.word())),
                Text::foreign(&change.source_name),
                Text::foreign(&change.image.name),
                Text::own(reasons.join(", ")),
            ]
        })
        .collect()
}

pub(super) fn next_deletes(review: &Review) -> Part {
    let columns = ["action", "source", "image", "why"];
    let title = "Deleted by the next round because of this change";
    let mut part = Part::table(title, Weight::Danger, &columns);
    let added = review.next_round.added.iter();
    part.rows = rows(added.filter(|change| change.action == Action::Delete));
    part
}

pub(super) fn next_round(review: &Review) -> Part {
    let columns = ["action", "source", "image", "why"];
    let title = "Other things that the next round does because of this change";
    let mut part = Part::table(title, Weight::Change, &columns);
    let added = review.next_round.added.iter();
    part.rows = rows(added.filter(|change| change.action != Action::Delete));
    let dropped = &review.next_round.dropped;
    if !dropped.is_empty() {
        let mut by_action: BTreeMap<Action, usize> = BTreeMap::new();
        for change in dropped {
            *by_action.entry(change.action).or_default() += 1;
        }
        let texts: Vec<String> = by_action
            .into_iter()
            .map(|(action, number)| format!("{} {}", grouped(number), action.word()))
            .collect();
        part.notes.push(Text::own(format!("Not done any more: {}.", texts.join(", "))));
    }
    part
}

pub(super) fn budget(review: &Review) -> Part {
    let columns = ["", "now", "after the next round", "in the long run"];
    let mut part = Part::table("Cost and quota", Weight::Change, &columns);
    let Some(budget) = &review.budget else { return part };
    for (word, side) in [("before", &budget.before), ("after", &budget.after)] {
        let Some(Budget { costs, quotas }) = side else { continue };
        if let Some(costs) = costs {
            part.rows.push(vec![
                Text::own(format!("cost {word}")),
                Text::own(costs.now.to_string()),
                Text::own(costs.after.to_string()),
                Text::own(costs.long_run.to_string()),
            ]);
        }
        for quota in quotas {
            let endless = if quota.is_endless { " and growing" } else { "" };
            let kind = quota.kind.word();
            let number = |number: u64| match quota.unit {
                QuotaUnit::Images => number.to_string(),
                QuotaUnit::Bytes => bytes(number),
            };
            let of = |limit: u64| match quota.unit {
                QuotaUnit::Images => format!("{kind}s of {limit}"),
                QuotaUnit::Bytes => format!("{kind}s of {}", bytes(limit)),
            };
            let place = match quota.project.as_str() {
                "" => quota.engine.clone(),
                project => format!("{} in {project}", quota.engine),
            };
            part.rows.push(vec![
                Text::foreign(&place).and(format!(": {}, {word}", of(quota.limit))),
                Text::own(number(quota.now)),
                Text::own(number(quota.after)),
                Text::own(format!("{}{endless}", number(quota.long_run))),
            ]);
        }
    }
    part
}
