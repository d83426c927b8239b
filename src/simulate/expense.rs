//! What a plan costs and how much of the quotas it takes: now, after it, and in the long run.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::budget::{SteadyTotals, steady_totals_of};
use super::size::Sizes;
use crate::cost::{Amount, Bill, MAY_FREE_LESS, Prices, after_plan, of_inventory};
use crate::desired::{Desired, desired};
use crate::inventory::{EngineInventory, Image, ImageKind, Instance, Inventory, Via};
use crate::name::{Ownership, PolicyName, SourceId};
use crate::plan::{Action, Budget, Change, Costs, Plan, QuotaUse};
use crate::policy::Policies;

/// The budget of a plan: nothing where no prices are written and no engine tells a limit.
pub fn budget(
    policies: &Policies,
    inventory: &Inventory,
    plan: &Plan,
    now: Timestamp,
) -> Option<Budget> {
    let prices = policies.config.prices.as_ref();
    let has_limits =
        inventory.engines.iter().any(|one| one.capabilities.limits.counts().next().is_some());
    if prices.is_none() && !has_limits {
        return None;
    }
    let desired = desired(policies, inventory, now);
    let steady = steady_totals_of(&desired, prices, now);
    Some(Budget {
        costs: prices.map(|prices| costs(prices, inventory, plan, &desired, &steady)),
        quotas: quotas(policies, inventory, plan, &steady),
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
    let series = desired.engines.iter().flat_map(|engine| &engine.series);
    series
        .map(|series| {
            let images = series.points.iter().map(|point| point.image);
            let sizes = Sizes::of(images, series.policy, series.state.instance());
            ((&series.policy.name, &series.source), (sizes, !series.points.is_empty()))
        })
        .collect()
}

/// How much of each limit is taken. Images that are not ours count as well: they stay.
fn quotas(
    policies: &Policies,
    inventory: &Inventory,
    plan: &Plan,
    steady: &SteadyTotals,
) -> Vec<QuotaUse> {
    let mut quotas = Vec::new();
    for engine in &inventory.engines {
        let is_managed = |image: &Image| matches!(image.ownership(), Ownership::Ours(key) if policies.keeper(&key.policy).is_some_and(|policy| policy.engine == engine.name));
        let limits = &engine.capabilities.limits;
        if limits.counts().next().is_none() {
            continue;
        }
        let mut uses = Uses::new();
        for image in &engine.images {
            let found = uses.entry((&image.project, image.kind)).or_default();
            found.now += image.members();
            if !is_managed(image) {
                found.others += image.members();
            }
        }
        changed(&mut uses, plan, engine);
        for (project, kind, limit) in limits.counts() {
            let is_of = |of: &str| project.is_none_or(|project| project == of);
            let there = uses.iter().filter(|((of, one), _)| is_of(of) && *one == kind);
            let there = there.fold(Use::default(), |sum, (_, one)| sum.plus(*one));
            let to_come = steady
                .iter()
                .filter(|((name, of, one), _)| *name == engine.name && is_of(of) && *one == kind);
            let (images, endless) = to_come.fold((0, 0), |(images, endless), (_, total)| {
                (images + total.images, endless + total.endless_series)
            });
            let quota = QuotaUse {
                engine: engine.name.clone(),
                project: project.unwrap_or_default().to_owned(),
                kind,
                limit,
                now: there.now,
                after: (there.now + there.made).saturating_sub(there.gone),
                on_the_way: there.steps.min(engine.capabilities.captures_max.max(1) as u64),
                long_run: there.others + images,
                is_endless: endless > 0,
            };
            // Many projects have nothing of most kinds.
            let most = quota.now + quota.after + quota.on_the_way + quota.long_run;
            let is_of_nothing = most == 0 && !quota.is_endless;
            if project.is_none() || !is_of_nothing {
                quotas.push(quota);
            }
        }
    }
    quotas
}

/// How many images of a kind there are in a project, and what a plan does about them.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    now: u64,
    /// Those of them that no policy looks after.
    others: u64,
    made: u64,
    gone: u64,
    /// Snapshots that are made as steps on the way to disk images, and go.
    steps: u64,
}

impl Use {
    fn plus(self, other: Self) -> Self {
        Self {
            now: self.now + other.now,
            others: self.others + other.others,
            made: self.made + other.made,
            gone: self.gone + other.gone,
            steps: self.steps + other.steps,
        }
    }
}

/// By project and kind.
type Uses<'a> = BTreeMap<(&'a str, ImageKind), Use>;

/// Adds how many images a plan makes and takes away.
fn changed<'a>(uses: &mut Uses<'a>, plan: &'a Plan, engine: &'a EngineInventory) {
    let images: BTreeMap<&str, &Image> =
        engine.images.iter().map(|image| (image.id.as_str(), image)).collect();
    let instances: BTreeMap<&SourceId, &Instance> =
        engine.instances.iter().map(|instance| (&instance.id, instance)).collect();
    let project_of = |source: &SourceId| instances.get(source).map_or("", |one| &*one.project);
    let seen = |id: Option<&String>| images.get(id?.as_str()).copied();
    let changes = || plan.changes.iter().filter(|change| change.engine == engine.name);
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
        let (mut made, mut gone) = (None, None);
        match (change.action, &change.create, &change.copy) {
            (Action::Create, Some(create), _) => {
                let members = if create.disk_by_disk { create.disks.len() as u64 } else { 1 };
                made = Some(((project_of(&change.key.source), create.kind), members));
                gone = create.replaces.as_ref().and_then(|image| seen(image.id.as_ref()));
            }
            (Action::Copy, _, Some(copy)) => {
                let original = seen(change.image.id.as_ref());
                let place = original.map(|image| (image.project.as_str(), image.kind));
                let place = place.or_else(|| coming.get(&*change.image.name).copied());
                made = place.map(|place| (place, 1));
                gone = copy.replaces.as_ref().and_then(|image| seen(image.id.as_ref()));
            }
            (Action::Delete, ..) => gone = seen(change.image.id.as_ref()),
            _ => {}
        }
        if change.create.as_ref().is_some_and(|create| create.via == Via::Snapshot) {
            let place = (project_of(&change.key.source), ImageKind::Snapshot);
            let on_the_way = uses.entry(place).or_default();
            // What a run has left is there already, and goes.
            match steps.get(change.image.name.as_str()) {
                Some(_) => on_the_way.gone += 1,
                None => on_the_way.steps += 1,
            }
        }
        if let Some((place, members)) = made {
            uses.entry(place).or_default().made += members;
        }
        if let Some(image) = gone {
            uses.entry((&image.project, image.kind)).or_default().gone += image.members();
        }
    }
}
