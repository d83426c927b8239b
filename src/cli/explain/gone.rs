//! A source that is not there any more: what is left of it, and what each policy does about that.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::setup::Seen;
use super::image::fate;
use crate::desired::{Desired, Presence, Series};
use crate::plan::Plan;
use crate::policy::meant::OnSourceGone;
use crate::report::{
    ImageRow, Protection, clean, count, minute, protection, protection_text, state, table,
};
use crate::simulate::forecast::{Forecast, Prospect};

/// What is said about it.
pub(super) struct Gone<'a> {
    pub(super) what: &'a str,
    /// Its images.
    pub(super) rows: &'a [&'a ImageRow],
    pub(super) plan: &'a Plan,
    pub(super) desired: &'a Desired<'a>,
    pub(super) seen: &'a Seen,
}

impl Gone<'_> {
    /// The series that hold its images, with whether their engine was seen whole.
    fn series(&self) -> impl Iterator<Item = (&Series<'_>, bool)> {
        let engines = self.desired.engines.iter();
        let all = engines.flat_map(|engine| {
            engine.series.iter().map(|series| (series, engine.engine.is_complete()))
        });
        all.filter(|(series, _)| {
            let is_in = |row: &&ImageRow| {
                let points = series.points.iter().chain(&series.copies);
                points.into_iter().any(|point| point.image.id == row.image.id)
            };
            self.rows.iter().any(is_in)
        })
    }

    fn forecasts(&self) -> BTreeMap<&str, Forecast> {
        let mut forecasts = BTreeMap::new();
        for (series, is_seen_whole) in self.series() {
            let prospect = Prospect::new(series, is_seen_whole, self.seen.now);
            for point in series.points.iter().chain(&series.copies) {
                let id = point.image.id.as_str();
                forecasts.extend(prospect.of(id).map(|forecast| (id, forecast)));
            }
        }
        forecasts
    }

    fn protections(&self) -> Vec<Protection> {
        let mut all = protection(&self.seen.policies, &self.seen.inventory, self.seen.now);
        all.retain(|one| {
            let is_of = |row: &&ImageRow| {
                row.engine == one.engine
                    && row.key.as_ref().is_some_and(|key| key.source == one.source_id)
            };
            self.rows.iter().any(is_of)
        });
        all
    }

    pub(super) fn json(&self) -> Value {
        let policies: Vec<Value> = self
            .series()
            .map(|(series, _)| {
                let lifecycle = &series.policy.lifecycle;
                json!({
                    "policy": series.policy.name,
                    "on_source_gone": lifecycle.on_source_gone,
                    "gone_since": series.state.marked_since,
                    "grace_ends": series.state.marked_since.map(|since| {
                        lifecycle.source_gone_grace.after(since)
                    }),
                })
            })
            .collect();
        json!({
            "format_version": "1.1",
            "source": null,
            "policies": policies,
            "protected": self.protections(),
            "images": self.rows,
            "forecasts": self.forecasts(),
        })
    }

    pub(super) fn text(&self) -> String {
        let is_unknown =
            self.series().any(|(series, _)| matches!(series.state.presence, Presence::Unknown));
        let how = if is_unknown { "was not seen" } else { "is not there any more" };
        let images = count(self.rows.len(), "image");
        let mut text = format!("{} {how}; {images} of it\n", clean(self.what));
        let protections = self.protections();
        if !protections.is_empty() {
            text.push_str(&protection_text(&protections, self.seen.now));
        }
        for (series, _) in self.series() {
            text.push_str(&format!("  {}: {}\n", series.policy.name, verdict(series)));
        }
        let forecasts = self.forecasts();
        let mut cells =
            vec![["IMAGE", "STATE", "NEXT PLAN", "LET GO", "DELETED"].map(str::to_owned).to_vec()];
        cells.extend(self.rows.iter().map(|row| self.row(row, &forecasts)));
        text.extend(table(&cells).iter().map(|line| format!("  {line}\n")));
        text
    }

    fn row(&self, row: &ImageRow, forecasts: &BTreeMap<&str, Forecast>) -> Vec<String> {
        let id = row.image.id.as_str();
        let forecast = forecasts.get(id);
        let fate = fate(self.plan, id).map_or_else(|| "left alone".to_owned(), |(what, _)| what);
        let let_go = forecast.and_then(|forecast| forecast.deprecated_at);
        let deleted = match forecast.map(|forecast| (forecast.deleted_at, forecast.never)) {
            Some((Some(at), _)) => minute(at),
            Some((None, Some(never))) => format!("never: {}", never.text()),
            _ => "never".to_owned(),
        };
        vec![
            clean(&row.image.name),
            state(&row.image).to_owned(),
            fate,
            let_go.map_or_else(|| "never".to_owned(), minute),
            deleted,
        ]
    }
}

/// What a policy does about a source that is gone.
fn verdict(series: &Series<'_>) -> String {
    let policy = series.policy;
    let lifecycle = &policy.lifecycle;
    if matches!(series.state.presence, Presence::Unknown) {
        return "nothing is deleted until its engine is seen whole".to_owned();
    }
    let what = match lifecycle.on_source_gone {
        OnSourceGone::Keep => return "its restore points stay".to_owned(),
        OnSourceGone::Rules => {
            format!("the rules go on, and at least {} stay", policy.retention.at_least)
        }
        OnSourceGone::Expire => "all but the newest READY restore point go".to_owned(),
    };
    match series.state.marked_since {
        Some(since) => {
            let ends = minute(lifecycle.source_gone_grace.after(since));
            format!("gone since {}; from {ends} on {what}", minute(since))
        }
        None => format!(
            "the next apply notes that it is gone; {} later {what}",
            lifecycle.source_gone_grace
        ),
    }
}
