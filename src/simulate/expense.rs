//! What a plan costs and how much of the quotas it takes: now, after it, and in the long run.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::budget::{SteadyTotal, SteadyTotals, steady_totals_of};
use super::taken::Taken;
use crate::cost::{Amount, Bill, MAY_FREE_LESS, Prices, after_plan, of_inventory};
use crate::desired::{Desired, EngineDesired, desired};
use crate::inventory::{
    EngineInventory, Image, ImageKind, ImageState, Instance, Inventory, Quota, QuotaUnit, Via,
};
use crate::name::{Ownership, PolicyName, SourceId};
use crate::plan::{Action, Budget, Change, Costs, Plan, QuotaUse};
use crate::policy::Policies;
use crate::policy::sizes::Sizes;
use crate::schedule::most_at_once;

/// The budget of a plan: nothing where no prices are written and no engine tells a limit.
pub fn budget(
    policies: &Policies,
    inventory: &Inventory,
    plan: &Plan,
    now: Timestamp,
) -> Option<Budget> {
    let prices = policies.config.prices.as_ref();
    let has_limits =
        inventory.engines.iter().any(|one| one.capabilities.limits.quotas().next().is_some());
    if prices.is_none() && !has_limits {
        return None;
    }
    let desired = desired(policies, inventory, now);
    let steady = steady_totals_of(&desired, prices, now);
    Some(Budget {
        costs: prices.map(|prices| costs(prices, inventory, plan, &desired, &steady)),
        quotas: quotas(policies, &desired, plan, &steady, now),
    })
}

fn costs(
    prices: &Prices,
    inventory: &Inventory,
    plan: &Plan,
    desired: &Desired<'_>,
    steady: &SteadyTotals,
) -> Costs {
    let sizes = sizes(desired);
    let size = |change: &Change| {
        let (sizes, has_points) = sizes.get(&(&change.key.policy, &change.key.source))?;
        let bytes = if *has_points { sizes.increment } else { sizes.first };
        (bytes > 0).then_some(bytes)
    };
    let (now, after) = (of_inventory(prices, inventory), after_plan(prices, inventory, plan, size));
    let long_run = steady.values().fold(Amount::default(), |sum, total| sum.plus(total.amount));
    let frees = plan.changes.iter().any(|change| change.action == Action::Delete);
    let mut notes: Vec<String> = left_out(&now, &after);
    let endless: u64 = steady.values().map(|total| total.endless_series).sum();
    if endless > 0 {
        notes.push(format!(
            "in the long run: {endless} series that never let go of anything are not counted"
        ));
    }
    let unknown: u64 =
        steady.values().map(|total| total.unsized_series + total.unpriced_images).sum();
    if unknown > 0 {
        notes
            .push("in the long run: images without a known size or a price are not counted".into());
    }
    if frees {
        notes.push(MAY_FREE_LESS.to_owned());
    }
    Costs {
        as_of: prices.as_of,
        now: prices.money(now.amount),
        after: prices.money(after.amount),
        long_run: prices.money(long_run),
        notes,
    }
}

fn left_out(now: &Bill, after: &Bill) -> Vec<String> {
    let (now, after) = (now.left_out(), after.left_out());
    match (now, after) {
        (now, after) if now == after => now.into_iter().collect(),
        (now, after) => {
            [now.map(|text| format!("now, {text}")), after.map(|text| format!("after it, {text}"))]
                .into_iter()
                .flatten()
                .collect()
        }
    }
}

/// What captures of each series store, and whether it has a point already.
fn sizes<'d>(desired: &'d Desired<'_>) -> BTreeMap<(&'d PolicyName, &'d SourceId), (Sizes, bool)> {
    let series = desired
        .engines
        .iter()
        .flat_map(|engine| engine.series.iter().map(move |series| (engine, series)));
    series
        .map(|(engine, series)| {
            let images = series.points.iter().map(|point| point.image);
            let sizes = Sizes::of(
                images,
                series.policy,
                series.state.instance(),
                &engine.engine.capabilities,
            );
            ((&series.policy.name, &series.source), (sizes, !series.points.is_empty()))
        })
        .collect()
}

/// How much of each limit is taken. Images that are not ours count as well: they stay.
fn quotas(
    policies: &Policies,
    desired: &Desired<'_>,
    plan: &Plan,
    steady: &SteadyTotals,
    now: Timestamp,
) -> Vec<QuotaUse> {
    let mut quotas = Vec::new();
    let sizes = sizes(desired);
    for EngineDesired { engine, .. } in &desired.engines {
        let is_managed = |image: &Image| matches!(image.ownership(), Ownership::Ours(key) if policies.keeper(&key.policy).is_some_and(|policy| policy.engine == engine.name));
        let limits = &engine.capabilities.limits;
        if limits.quotas().next().is_none() {
            continue;
        }
        let mut uses = Uses::new();
        for image in &engine.images {
            let found = uses.entry((&image.project, image.kind)).or_default();
            let taken = Taken::of(image);
            found.now = found.now.plus(taken);
            found.unsized_images += u64::from(is_unsized(image));
            if !is_managed(image) {
                found.others = found.others.plus(taken);
            }
        }
        changed(&mut uses, plan, engine, &sizes);
        for quota in limits.quotas() {
            let there =
                uses.iter().filter(|((of, kind), _)| quota.is_of(of) && *kind == quota.kind);
            let there = there.fold(Use::default(), |sum, (_, one)| sum.plus(one));
            let to_come = steady.iter().filter(|((name, of, kind), _)| {
                *name == engine.name && quota.is_of(of) && *kind == quota.kind
            });
            let to_come: Vec<&SteadyTotal> = to_come.map(|(_, total)| total).collect();
            let quota_use = used(policies, engine, (quota, &there, &to_come), now);
            // Many projects have nothing of most kinds.
            let QuotaUse { now, after, on_the_way, long_run, .. } = quota_use;
            let most = [now, after, on_the_way, long_run].into_iter().max();
            let is_of_nothing = most == Some(0) && !quota_use.is_endless;
            if quota.project.is_none() || !is_of_nothing {
                quotas.push(quota_use);
            }
        }
    }
    quotas
}

fn is_unsized(image: &Image) -> bool {
    image.stored_bytes.is_none() && image.state == ImageState::Ready
}

/// What is taken of one quota: by what there is, what the plan does, and what is to come.
fn used(
    policies: &Policies,
    engine: &EngineInventory,
    (quota, there, to_come): (Quota<'_>, &Use, &[&SteadyTotal]),
    now: Timestamp,
) -> QuotaUse {
    let unit = quota.unit;
    let total =
        |total: &&SteadyTotal| Taken { images: total.images, bytes: total.bytes }.in_unit(unit);
    let long_run = to_come.iter().map(total).fold(there.others.in_unit(unit), u64::saturating_add);
    let mut captured: BTreeMap<&PolicyName, u64> = BTreeMap::new();
    for (policy, taken) in to_come.iter().flat_map(|total| &total.captured) {
        let sum = captured.entry(policy).or_default();
        *sum = sum.saturating_add(taken.in_unit(unit));
    }
    let captured = captured
        .into_iter()
        .filter_map(|(name, amount)| policies.get(name).map(|policy| (&policy.schedule, amount)));
    let at_once = engine.capabilities.captures_max.max(1);
    let unsized_series: u64 = to_come.iter().map(|total| total.unsized_series).sum();
    let peak = there.now.plus(there.made).minus(there.replaced);
    QuotaUse {
        engine: engine.name.clone(),
        project: quota.project.unwrap_or_default().to_owned(),
        kind: quota.kind,
        unit,
        limit: quota.most,
        now: there.now.in_unit(unit),
        after: peak.minus(there.gone).in_unit(unit),
        peak: peak.in_unit(unit),
        on_the_way: match unit {
            QuotaUnit::Images => there.steps.len().min(at_once) as u64,
            QuotaUnit::Bytes => there.steps.iter().rev().take(at_once).sum(),
        },
        long_run,
        long_run_peak: long_run.saturating_add(most_at_once(captured, now)),
        is_endless: to_come.iter().any(|total| total.endless_series > 0),
        uncounted: match unit {
            QuotaUnit::Images => 0,
            QuotaUnit::Bytes => there.unsized_images + unsized_series,
        },
    }
}

/// How many images of a kind there are in a project, and what a plan does about them.
#[derive(Debug, Clone, Default)]
struct Use {
    now: Taken,
    /// Those of them that no policy looks after.
    others: Taken,
    made: Taken,
    /// What goes before what is made in its place.
    replaced: Taken,
    /// What goes once all is made.
    gone: Taken,
    /// The bytes of each snapshot that is made as a step on the way to a disk image, and goes: those
    /// with the least first.
    steps: Vec<u64>,
    /// Images of whose size nothing is known.
    unsized_images: u64,
}

impl Use {
    fn plus(mut self, other: &Self) -> Self {
        self.steps.extend(&other.steps);
        self.steps.sort_unstable();
        Self {
            now: self.now.plus(other.now),
            others: self.others.plus(other.others),
            made: self.made.plus(other.made),
            replaced: self.replaced.plus(other.replaced),
            gone: self.gone.plus(other.gone),
            steps: self.steps,
            unsized_images: self.unsized_images + other.unsized_images,
        }
    }
}

/// By project and kind.
type Uses<'a> = BTreeMap<(&'a str, ImageKind), Use>;

/// Adds what a plan makes and takes away.
fn changed<'a>(
    uses: &mut Uses<'a>,
    plan: &'a Plan,
    engine: &'a EngineInventory,
    sizes: &BTreeMap<(&PolicyName, &SourceId), (Sizes, bool)>,
) {
    let images: BTreeMap<&str, &Image> =
        engine.images.iter().map(|image| (image.id.as_str(), image)).collect();
    let instances: BTreeMap<&SourceId, &Instance> =
        engine.instances.iter().map(|instance| (&instance.id, instance)).collect();
    let project_of = |source: &SourceId| instances.get(source).map_or("", |one| &*one.project);
    let seen = |id: Option<&String>| images.get(id?.as_str()).copied();
    let changes = || plan.changes.iter().filter(|change| change.engine == engine.name);
    let size_of = |change: &Change| {
        let known = sizes.get(&(&change.key.policy, &change.key.source));
        known.map_or((0, 0), |(sizes, has_points)| {
            (if *has_points { sizes.increment } else { sizes.first }, sizes.first)
        })
    };
    let steps = images.values().filter_map(|image| Some((image.step_to()?, *image)));
    let steps: BTreeMap<&str, &Image> = steps.collect();
    // What is copied may be yet to be made.
    let coming: BTreeMap<&str, (&str, ImageKind)> = changes()
        .filter_map(|change| {
            let create = change.create.as_ref()?;
            Some((change.image.name.as_str(), (project_of(&change.key.source), create.kind)))
        })
        .collect();
    for change in changes() {
        let (size, first) = size_of(change);
        let (mut made, mut replaced) = (None, None);
        match (change.action, &change.create, &change.copy) {
            (Action::Create, Some(create), _) => {
                let members = if create.disk_by_disk { create.disks.len() as u64 } else { 1 };
                let taken = Taken { images: members, bytes: size };
                made = Some(((project_of(&change.key.source), create.kind), taken));
                replaced = create.replaces.as_ref().and_then(|image| seen(image.id.as_ref()));
            }
            (Action::Copy, _, Some(copy)) => {
                let original = seen(change.image.id.as_ref());
                let place = original.map(|image| (image.project.as_str(), image.kind));
                let place = place.or_else(|| coming.get(&*change.image.name).copied());
                let bytes = original.and_then(|image| image.stored_bytes).unwrap_or(size);
                made = place.map(|place| (place, Taken { images: 1, bytes }));
                replaced = copy.replaces.as_ref().and_then(|image| seen(image.id.as_ref()));
            }
            (Action::Delete, ..) => {
                if let Some(image) = seen(change.image.id.as_ref()) {
                    let there = uses.entry((&image.project, image.kind)).or_default();
                    there.gone = there.gone.plus(Taken::of(image));
                }
            }
            _ => {}
        }
        if change.create.as_ref().is_some_and(|create| create.via == Via::Snapshot) {
            let place = (project_of(&change.key.source), ImageKind::Snapshot);
            let on_the_way = uses.entry(place).or_default();
            // What a run has left is there already, and goes.
            match steps.get(change.image.name.as_str()) {
                Some(step) => on_the_way.gone = on_the_way.gone.plus(Taken::of(step)),
                None => on_the_way.steps.push(first),
            }
        }
        if let Some((place, taken)) = made {
            let there = uses.entry(place).or_default();
            there.made = there.made.plus(taken);
        }
        if let Some(image) = replaced {
            let there = uses.entry((&image.project, image.kind)).or_default();
            there.replaced = there.replaced.plus(Taken::of(image));
        }
    }
}
