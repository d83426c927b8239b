//! Images that there are, as quotas count them beside what policies will hold.

use std::collections::{BTreeMap, BTreeSet};

use super::super::rhythm::BEGIN;
use super::super::seen::View;
use crate::elapsed::Elapsed;
use crate::inventory::{Image, ImageState, Instance, Quota, QuotaUnit};
use crate::name::{Ownership, PolicyName, SourceId};
use crate::policy::meant::{OnSourceGone, Policies, Policy};
use crate::retention::{Point, Retention, retain};

/// What rules keep so long after stays.
const FOR_EVER: Elapsed = Elapsed::days(100 * 366);

/// Images that there are, as far as they matter.
pub(super) struct There<'a> {
    /// Those of each series whose source is there, copies aside.
    series: BTreeMap<(&'a PolicyName, SourceId), Vec<&'a Image>>,
    /// Those that are not of stillframe.
    foreign: Vec<&'a Image>,
    /// Those that stay though no policy makes any more of them: of policies and of sources that are
    /// gone, and those whose labels nobody can read.
    staying: Vec<&'a Image>,
}

/// Images of one source that the same rules are held against: the originals, or the copies in a place.
type Groups<'a> = BTreeMap<(&'a PolicyName, SourceId, Option<&'a str>), Group<'a>>;

struct Group<'a> {
    policy: &'a Policy,
    points: Vec<(Point<'a>, &'a Image)>,
}

impl<'a> There<'a> {
    pub(super) fn of(policies: &'a Policies, view: &View<'a>) -> Self {
        let mut there = Self { series: BTreeMap::new(), foreign: Vec::new(), staying: Vec::new() };
        let ids = |all: &[&'a Instance]| all.iter().map(|source| &source.id).collect();
        let sources: BTreeMap<&PolicyName, BTreeSet<&SourceId>> =
            view.policies.iter().map(|(policy, all)| (&policy.name, ids(all))).collect();
        let mut gone = Groups::new();
        for image in &view.engine.images {
            let key = match image.ownership() {
                Ownership::Ours(key) => key,
                Ownership::Foreign => {
                    there.foreign.push(image);
                    continue;
                }
                Ownership::Broken(_) => {
                    there.staying.push(image);
                    continue;
                }
            };
            let keeper = policies.keeper(&key.policy);
            let Some(policy) = keeper.filter(|policy| policy.engine == view.engine.name) else {
                there.staying.push(image);
                continue;
            };
            let selected = sources.get(&policy.name);
            if selected.is_some_and(|all| all.contains(&key.source)) {
                if !image.is_copy() {
                    there.series.entry((&policy.name, key.source)).or_default().push(image);
                }
            } else if image.state == ImageState::Ready {
                let location = image.is_copy().then_some(image.location.as_str());
                let group = gone.entry((&policy.name, key.source, location));
                let (id, content) = (image.id.as_str(), image.content());
                let point = Point { slot: key.slot, id, content, ready: true, held: false };
                let group = group.or_insert_with(|| Group { policy, points: Vec::new() });
                group.points.push((point, image));
            }
        }
        there.staying.extend(gone.into_values().flat_map(staying));
        for images in there.series.values_mut() {
            images.sort_by_key(|image| image.created_at);
        }
        there
    }

    /// The images of a series, the oldest first.
    pub(super) fn of_series(
        &self,
        policy: &'a Policy,
        source: &Instance,
    ) -> impl Iterator<Item = &'a Image> + '_ {
        let images = self.series.get(&(&policy.name, source.id.clone()));
        images.into_iter().flatten().copied()
    }

    /// What a quota counts of those that are not of stillframe, and of those that stay.
    pub(super) fn beside(&self, quota: &Quota<'_>) -> (u64, u64) {
        let sum = |images: &[&Image]| {
            let counted = images
                .iter()
                .filter(|image| image.kind == quota.kind && quota.is_of(&image.project));
            counted
                .map(|image| match quota.unit {
                    QuotaUnit::Images => image.members_there(),
                    QuotaUnit::Bytes => image.stored_bytes.unwrap_or(0),
                })
                .fold(0, u64::saturating_add)
        };
        (sum(&self.foreign), sum(&self.staying))
    }
}

/// Those of a source that is gone which nothing ever lets go of.
fn staying(Group { policy, points }: Group<'_>) -> Vec<&Image> {
    let newest = Retention::newest();
    let retention = match policy.lifecycle.on_source_gone {
        OnSourceGone::Keep => return points.into_iter().map(|(_, image)| image).collect(),
        OnSourceGone::Expire => &newest,
        OnSourceGone::Rules => &policy.retention,
    };
    let seen: Vec<Point<'_>> = points.iter().map(|(point, _)| *point).collect();
    let fates = retain(&seen, retention, &policy.schedule.zone, FOR_EVER.after(BEGIN));
    let kept = points.into_iter().zip(fates).filter(|(_, fate)| fate.is_kept());
    kept.map(|((_, image), _)| image).collect()
}
