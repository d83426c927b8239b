//! An image: why it is there, and until when.

use jiff::Timestamp;

use crate::desired::Desired;
use crate::inventory::{ImageState, LABEL_LET_GO};
use crate::plan::{Change, Plan, Reason, ReasonCode};
use crate::report::{ImageRow, clean, minute, state, table};
use crate::retention::{Fate, Rule};
use crate::simulate::forecast::Forecast;

/// What the plan says of an image.
pub(super) fn fate<'a>(plan: &'a Plan, id: &str) -> Option<(String, &'a [Reason])> {
    let kept = plan.kept.iter().find(|kept| kept.id == id);
    if let Some(kept) = kept {
        return Some(("kept".to_owned(), &kept.reasons));
    }
    let is_it = |image: &crate::plan::ImageRef| image.id.as_deref() == Some(id);
    if let Some(held) = plan.held_back.iter().find(|held| is_it(&held.image)) {
        return Some((
            format!("held back: the next plan would {} it", held.action.word()),
            &held.reasons,
        ));
    }
    let replaces = |change: &&Change| {
        let create = change.create.as_ref().and_then(|create| create.replaces.as_ref());
        let copy = change.copy.as_ref().and_then(|copy| copy.replaces.as_ref());
        create.or(copy).is_some_and(is_it)
    };
    if let Some(create) = plan.changes.iter().find(replaces) {
        return Some(("the next plan makes it anew".to_owned(), &create.reasons));
    }
    let is_planned = |change: &&Change| change.unless.is_none() && is_it(&change.image);
    let change = plan.changes.iter().find(is_planned)?;
    Some((format!("the next plan will {} it", change.action.word()), &change.reasons))
}

/// What keeps an image on which the next plan changes something and which stays all the same: there
/// the plan says only why it changes.
pub(super) fn kept_by(plan: &Plan, desired: &Desired<'_>, id: &str, now: Timestamp) -> Vec<Reason> {
    let stays = |change: &&Change| {
        let update = change.update.as_ref();
        change.image.id.as_deref() == Some(id)
            && change.unless.is_none()
            && update.is_some_and(|update| !update.set_labels.contains_key(LABEL_LET_GO))
    };
    let is_told = plan.kept.iter().any(|kept| kept.id == id);
    if is_told || !plan.changes.iter().any(|change| stays(&change)) {
        return Vec::new();
    }
    let series = desired.engines.iter().flat_map(|engine| &engine.series);
    let mut points = series.flat_map(|series| series.points.iter().chain(&series.copies));
    let Some(point) = points.find(|point| point.image.id == id) else { return Vec::new() };
    let ((Fate::Kept(keeps), _) | (_, Fate::Kept(keeps))) = (&point.fate_after, &point.fate) else {
        return Vec::new();
    };
    let mut reasons: Vec<Reason> = keeps.iter().map(Reason::from).collect();
    let held = reasons.iter_mut().find(|reason| reason.code == ReasonCode::Held);
    if let (Some(held), Some(why)) = (held, point.hold) {
        held.detail = format!("held: {why}");
    }
    if point.is_held(now) && reasons.iter().all(|reason| reason.code != ReasonCode::Held) {
        reasons.push(Reason::new(ReasonCode::Held, "held"));
    }
    reasons
}

/// An image, what the plan says of it, what keeps it, and what becomes of it.
pub(super) fn image_text(
    row: &ImageRow,
    fate: Option<(String, &[Reason])>,
    kept_by: &[Reason],
    forecast: Option<&Forecast>,
) -> String {
    let mut text = format!("{}\n", clean(&row.image.name));
    match &row.key {
        Some(key) => {
            let what = if row.copy { "a copy of the restore point " } else { "" };
            text.push_str(&format!(
                "  {what}of {} by {}, slot {}\n",
                clean(&row.source),
                key.policy,
                minute(key.slot.instant())
            ));
        }
        None => text.push_str("  not stillframe's: never touched\n"),
    }
    if row.image.state != ImageState::Ready {
        let why = row.image.message.as_deref().map(|why| format!(": {}", clean(why)));
        text.push_str(&format!("  {}{}\n", state(&row.image), why.unwrap_or_default()));
    }
    if let Some((what, reasons)) = fate {
        text.push_str(&format!("  {what}\n"));
        for reason in reasons {
            text.push_str(&format!("    {}\n", clean(&reason.detail)));
        }
        if !kept_by.is_empty() {
            text.push_str("  and keep it\n");
        }
        for reason in kept_by {
            text.push_str(&format!("    {}\n", clean(&reason.detail)));
        }
    } else if row.key.is_some() {
        text.push_str("  its policy is not in the files: left alone\n");
    }
    if let Some(forecast) = forecast {
        text.push_str(&forecast_text(forecast));
    }
    text
}

/// When each rule lets go, what follows from it, and what would change it.
pub(in crate::cli) fn forecast_text(forecast: &Forecast) -> String {
    let mut text = String::new();
    let end = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), minute);
    let rules = forecast.rules.iter().map(|one| {
        let rule = one.rule.map_or("at least", Rule::word).to_owned();
        vec![rule, end(one.lets_go_at)]
    });
    let holds = forecast.holds.iter().map(|hold| {
        let reason = hold.reason.as_deref();
        let what = reason.map_or_else(
            || "hold (by label)".to_owned(),
            |reason| format!("hold: {}", clean(reason)),
        );
        vec![what, end(hold.ends_at)]
    });
    let rows: Vec<Vec<String>> = rules.chain(holds).collect();
    if !rows.is_empty() {
        text.push_str("  each rule lets go\n");
        text.extend(table(&rows).iter().map(|line| format!("    {line}\n")));
    }
    let steps = [
        ("deprecated for its age", forecast.aged_at),
        ("obsolete for its age", forecast.obsolete_at),
        ("let go and deprecated", forecast.deprecated_at),
        ("deleted", forecast.deleted_at),
    ];
    let steps: Vec<String> =
        steps.iter().filter_map(|(word, at)| Some(format!("{word} {}", minute((*at)?)))).collect();
    let never = forecast.never.map(|never| format!("never deleted: {}", never.text()));
    let ends: Vec<String> = steps.into_iter().chain(never).collect();
    if !ends.is_empty() {
        text.push_str(&format!("  if nothing changes: {}\n", ends.join(", ")));
    }
    if !forecast.changed_by.is_empty() {
        text.push_str("  what would change that\n");
        for influence in &forecast.changed_by {
            text.push_str(&format!("    {}\n", influence.text()));
        }
    }
    text
}
