//! How much one plan may take: shares, numbers and classes of deletes.

use std::collections::BTreeMap;

use super::{EngineChecks, Guard, Refusal, SeriesName, series_name};
use crate::inventory::{Image, ImageState};
use crate::plan::document::Change;

/// A share of fewer points than this says nothing: such series are held by their floor alone.
const SMALL_SERIES: usize = 10;

/// Whether so many deletes are too large a share of READY points.
pub(crate) fn is_over(percent: u32, deletes: usize, ready: usize) -> bool {
    ready >= SMALL_SERIES && deletes * 100 > percent as usize * ready
}

impl EngineChecks<'_> {
    pub(super) fn series_share(&self) -> Option<Refusal> {
        let limit = self.policies.config.guards.series_percent;
        let mut by_series: BTreeMap<SeriesName, (Vec<&Change>, usize)> = BTreeMap::new();
        for (change, image) in self.data_deletes() {
            let name = series_name(self.policies, &change.key, image);
            let (changes, partial) = by_series.entry(name).or_default();
            changes.push(change);
            *partial += usize::from(image.state != ImageState::Ready);
        }
        let mut over = Vec::new();
        let (mut worst, mut series) = (String::new(), 0);
        for (name, (changes, partial)) in by_series {
            let ready = partial + self.series.get(&name).map_or(0, Vec::len);
            if is_over(limit, changes.len(), ready) {
                series += 1;
                if worst.is_empty() {
                    worst = format!(
                        "{} of {ready} restore points of {} by {}",
                        changes.len(),
                        changes[0].source_name,
                        name.0
                    );
                }
                over.extend(changes);
            }
        }
        if series > 1 {
            worst = format!("{worst}, and {} more series", series - 1);
        }
        self.refuse(Guard::SeriesShare, over, format!("more than {limit} % of a series: {worst}"))
    }

    pub(super) fn engine_share(&self) -> Option<Refusal> {
        let limit = self.policies.config.guards.engine_percent;
        let of = |(change, image): (_, &Image)| (change, image.state != ImageState::Ready);
        let (deletes, partial): (Vec<&Change>, Vec<bool>) = self.data_deletes().map(of).unzip();
        let managed = self.managed + partial.into_iter().filter(|is_partial| *is_partial).count();
        if !is_over(limit, deletes.len(), managed) {
            return None;
        }
        let message = format!(
            "{} of {} images of {} are more than {limit} %",
            deletes.len(),
            managed,
            self.engine.name
        );
        self.refuse(Guard::EngineShare, deletes, message)
    }

    pub(super) fn engine_count(&self) -> Option<Refusal> {
        let limit = self.policies.config.guards.engine_count as usize;
        // Failed attempts too: an engine may be wrong about what failed.
        let deletes: Vec<&Change> = self.changes().collect();
        if deletes.len() <= limit {
            return None;
        }
        let message = format!(
            "{} images of {} are more than {limit} in one plan",
            deletes.len(),
            self.engine.name
        );
        self.refuse(Guard::EngineCount, deletes, message)
    }

    /// One refusal for each class, since each is approved by itself.
    pub(super) fn risk_classes(&self) -> impl Iterator<Item = Refusal> {
        self.policies.config.guards.refuse.iter().filter_map(|risk| {
            let risky = self.changes().filter(|change| change.risk == Some(*risk));
            let message = format!("the configuration refuses deletes of the class {}", risk.word());
            self.refuse(Guard::RiskClass, risky, message)
        })
    }
}
