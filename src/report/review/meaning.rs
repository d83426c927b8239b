//! What is written differently.

use super::super::page::{Part, Text, Weight};
use super::super::text::{count, minute};
use super::value;
use crate::review::{PolicyChange, PolicyFate, Review, Runs};

pub(super) fn policies(review: &Review) -> Part {
    let columns = ["policy", "change", "value", "before", "after", "where"];
    let mut part = Part::table("What is written differently", Weight::Change, &columns);
    for change in &review.policies {
        let mut first = Some(());
        let mut head = |change: &PolicyChange| match first.take() {
            Some(()) => (Text::foreign(change.policy.as_str()), fate(change)),
            None => (Text::default(), Text::default()),
        };
        let line =
            |line: &crate::review::Line| Text::foreign(format!("{}:{}", line.file, line.line));
        if change.values.is_empty() {
            let (policy, fate) = head(change);
            let none = Text::default;
            part.rows.push(vec![policy, fate, none(), none(), none(), line(&change.at)]);
        }
        for one in &change.values {
            let (policy, fate) = head(change);
            part.rows.push(vec![
                policy,
                fate,
                Text::foreign(&one.path),
                value(one.before.as_ref()),
                value(one.after.as_ref()),
                line(one.at.as_ref().unwrap_or(&change.at)),
            ]);
        }
    }
    part
}

fn fate(change: &PolicyChange) -> Text {
    let word = change.fate.word();
    match (&change.was, change.fate) {
        (Some(was), PolicyFate::Renamed) => {
            Text::own("looks like ").name(was.as_str()).and(", renamed without `moved`")
        }
        (Some(was), _) => Text::own(word).and(", was ").name(was.as_str()),
        (None, PolicyFate::Dropped) => Text::own("taken out without `removed`"),
        (None, _) => Text::own(word),
    }
}

pub(super) fn configuration(review: &Review) -> Part {
    let columns = ["configuration", "before", "after"];
    let mut part = Part::table("Configuration", Weight::Change, &columns);
    part.rows = review
        .configuration
        .iter()
        .map(|one| {
            vec![Text::foreign(&one.path), value(one.before.as_ref()), value(one.after.as_ref())]
        })
        .collect();
    part
}

pub(super) fn schedules(review: &Review) -> Part {
    let columns = ["policy", "", "schedule", "runs in 30 days", "next", "clock changes"];
    let mut part = Part::table("When policies run", Weight::Change, &columns);
    for change in &review.policies {
        let Some(schedule) = &change.schedule else { continue };
        for (word, runs) in [("before", &schedule.before), ("after", &schedule.after)] {
            let Some(runs) = runs else { continue };
            part.rows.push(row(change, word, runs));
        }
        let stops = schedule.before.as_ref().is_some_and(|runs| !runs.next.is_empty())
            && schedule.after.as_ref().is_some_and(|runs| runs.next.is_empty());
        if stops {
            part.weight = Weight::Danger;
        }
    }
    part
}

fn row(change: &PolicyChange, word: &str, runs: &Runs) -> Vec<Text> {
    let next: Vec<String> = runs.next.iter().map(|slot| minute(slot.instant())).collect();
    let next = if next.is_empty() { "never".to_owned() } else { next.join(", ") };
    let next = match &runs.paused {
        Some(paused) => Text::own(format!("{next} (")).name(paused).and(")"),
        None => Text::own(next),
    };
    let notes = match runs.clock_notes.as_slice() {
        [] => Text::own("nothing special"),
        [one] => Text::own(one),
        [first, others @ ..] => Text::own(format!("{first}; {}", count(others.len(), "more note"))),
    };
    vec![
        Text::foreign(change.policy.as_str()),
        Text::own(word),
        Text::foreign(&runs.cron).and(" ").name(&runs.time_zone),
        Text::own(runs.in_30_days.to_string()),
        next,
        notes,
    ]
}
