//! What the policies will hold in the long run, against what engines take.

mod there;

use std::collections::BTreeMap;

use super::about;
use super::reach::kept_in_the_long_run;
use super::rhythm::{BEGIN, Rhythms};
use super::seen::View;
use crate::elapsed::Elapsed;
use crate::inventory::{ImageKind, Instance, Quota, QuotaUnit, Via};
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::{Policies, Policy};
use crate::policy::sizes::Sizes;
use crate::schedule::most_at_once;
use there::There;

pub(super) fn lint(policies: &Policies, views: &[View<'_>]) -> Vec<Finding> {
    let mut rhythms = Rhythms::default();
    let mut findings = Vec::new();
    for view in views {
        let limits = &view.engine.capabilities.limits;
        if limits.quotas().next().is_none() {
            continue;
        }
        let there = There::of(policies, view);
        let mut told = Vec::new();
        for quota in limits.quotas() {
            // What has no end comes to each limit: that is said once.
            let endless = keeps_everything(view, &quota);
            if let Some(found) = endless.filter(|_| !told.contains(&quota.kind)) {
                told.push(quota.kind);
                findings.push(found);
            }
            findings.extend(beyond_quota(view, &there, &quota, &mut rhythms));
        }
    }
    findings
}

/// The policies with images of the kind of a quota, each with those of its sources that it counts.
fn counted<'v, 'a>(
    view: &'v View<'a>,
    quota: &'v Quota<'_>,
) -> impl Iterator<Item = (&'a Policy, Vec<&'a Instance>)> + 'v {
    let of_kind = view.policies.iter().filter(|(policy, _)| policy.capture.kind == quota.kind);
    let sources = of_kind.map(|(policy, sources)| {
        let sources = sources.iter().copied().filter(|source| quota.is_of(&source.project));
        (*policy, sources.collect::<Vec<_>>())
    });
    sources.filter(|(_, sources)| !sources.is_empty())
}

/// How many images one restore point of each source comes to.
fn members(view: &View<'_>, policy: &Policy, sources: &[&Instance]) -> u64 {
    let capabilities = &view.engine.capabilities;
    sources.iter().map(|source| policy.capture.members(source, capabilities)).sum()
}

/// Policies without a rule come to any limit.
fn keeps_everything(view: &View<'_>, quota: &Quota<'_>) -> Option<Finding> {
    let is_endless = |policy: &Policy| policy.retention.effective().next().is_none();
    let mut endless = counted(view, quota).filter(|(policy, _)| is_endless(policy));
    let (policy, sources) = endless.next()?;
    let others = endless.count();
    let (engine, kind) = (&view.engine.name, quota.kind.word());
    let message = format!(
        "`{}` lets go of no image of the kind {kind}, and `{engine}` takes {}{}",
        policy.name,
        amount(quota.most, quota.unit),
        of_project(quota)
    );
    let each = members(view, policy, &sources);
    let label = match others {
        0 => format!("{each} more at each slot"),
        1 => format!("{each} more at each slot; one other policy does so too"),
        others => format!("{each} more at each slot; {others} other policies do so too"),
    };
    Some(
        about(policy, Code::BeyondQuota, "retention", message).label(label).hint(
            "write a rule under `retention`: once the limit is reached, captures are refused",
        ),
    )
}

/// Restore points that one source of a policy has in the long run in each place: those that are kept
/// and those that wait out their grace.
fn points_of_a_source(policy: &Policy, rhythms: &mut Rhythms) -> Option<u64> {
    let rhythm = rhythms.of(&policy.schedule)?;
    let kept = kept_in_the_long_run(&policy.schedule, &policy.retention, &rhythm)?;
    let grace = policy.lifecycle.grace.as_seconds() / rhythm.longest.as_seconds().max(1);
    Some(kept + u64::try_from(grace).ok()?)
}

/// What a policy comes to in the long run.
struct Held<'a> {
    policy: &'a Policy,
    /// All of it, and how much more there is for a while when it captures.
    amount: u64,
    captured: u64,
    /// Images of each source, or of each of its disks, where the quota counts images.
    each: u64,
    sources: usize,
    /// How many disks, where there is an image of each.
    disks: Option<u64>,
}

impl<'a> Held<'a> {
    /// Of so many restore points of each source.
    fn of(
        (view, there, quota): (&View<'a>, &There<'a>, &Quota<'_>),
        (policy, sources): (&'a Policy, Vec<&'a Instance>),
        points: u64,
    ) -> Self {
        let capabilities = &view.engine.capabilities;
        let places = policy.copies.len() as u64 + 1;
        let is_spread = policy.schedule.jitter > Elapsed::ZERO;
        let (mut amount, mut captured) = (0_u64, 0_u64);
        for source in &sources {
            let (all, next) = match quota.unit {
                QuotaUnit::Images => {
                    let members = policy.capture.members(source, capabilities);
                    (points.saturating_mul(members), members)
                }
                QuotaUnit::Bytes => {
                    let images = there.of_series(policy, source);
                    let sizes = Sizes::of(images, policy, Some(source), capabilities);
                    (sizes.of_points(points), sizes.increment)
                }
            };
            amount = amount.saturating_add(all.saturating_mul(places));
            let next = next.saturating_mul(places);
            captured = if is_spread { captured.max(next) } else { captured.saturating_add(next) };
        }
        let is_per_disk = capabilities.per_disk_kinds.contains(&quota.kind);
        Self {
            policy,
            amount,
            captured,
            each: points * places,
            sources: sources.len(),
            disks: is_per_disk.then(|| members(view, policy, &sources)),
        }
    }

    /// What there is of it, for people.
    fn text(&self, unit: QuotaUnit) -> String {
        let plural = if self.sources == 1 { "" } else { "s" };
        let of = match self.disks {
            Some(disks) => format!("{disks} disks of {} source{plural}", self.sources),
            None => format!("{} source{plural}", self.sources),
        };
        match unit {
            QuotaUnit::Images => format!("{} of each of {of}", self.each),
            QuotaUnit::Bytes => format!("{} of {of}", amount(self.amount, unit)),
        }
    }
}

/// What snapshots take that are there at once as steps on the way to disk images, and a policy that
/// needs some.
fn steps<'a>(view: &View<'a>, there: &There<'a>, quota: &Quota<'_>) -> Option<(&'a Policy, u64)> {
    let capabilities = &view.engine.capabilities;
    let mut first = None;
    let mut steps: Vec<u64> = Vec::new();
    for (policy, sources) in &view.policies {
        let is_via = policy.capture.via == Via::Snapshot && quota.kind == ImageKind::Snapshot;
        for source in sources.iter().filter(|source| is_via && quota.is_of(&source.project)) {
            first = first.or(Some(*policy));
            steps.push(match quota.unit {
                QuotaUnit::Images => 1,
                QuotaUnit::Bytes => {
                    let images = there.of_series(policy, source);
                    Sizes::of(images, policy, Some(source), capabilities).first
                }
            });
        }
    }
    // Nobody knows which are made at once: it is not said to be the largest.
    steps.sort_unstable();
    let at_once = capabilities.captures_max.max(1);
    Some((first?, steps.into_iter().take(at_once).fold(0, u64::saturating_add)))
}

fn beyond_quota(
    view: &View<'_>,
    there: &There<'_>,
    quota: &Quota<'_>,
    rhythms: &mut Rhythms,
) -> Option<Finding> {
    let mut held: Vec<Held<'_>> = Vec::new();
    // Policies with one rhythm and one retention are counted alike.
    let mut known: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for (policy, sources) in counted(view, quota) {
        let key = format!(
            "{} {} {:?} {}",
            policy.schedule.text(),
            policy.schedule.zone.name(),
            policy.retention,
            policy.lifecycle.grace,
        );
        let points = *known.entry(key).or_insert_with(|| points_of_a_source(policy, rhythms));
        let Some(points) = points else { continue };
        held.push(Held::of((view, there, quota), (policy, sources), points));
    }
    let (foreign, staying) = there.beside(quota);
    let on_the_way = steps(view, there, quota);
    let steps = on_the_way.map_or(0, |(_, steps)| steps);
    let held_by_policies = held.iter().map(|one| one.amount).fold(0, u64::saturating_add);
    let beside = foreign.saturating_add(staying).saturating_add(steps);
    let all = held_by_policies.saturating_add(beside);
    let captures = held.iter().map(|one| (&one.policy.schedule, one.captured));
    let most = all.saturating_add(most_at_once(captures, BEGIN));
    if most <= quota.most {
        return None;
    }
    let number = |number: u64| amount(number, quota.unit);
    // Of equals it is the first.
    let Some(largest) = held.iter().rev().max_by_key(|one| one.amount) else {
        // Nothing of the kind is kept, and some are there for a while.
        let (policy, steps) = on_the_way?;
        return Some(no_room(view, policy, [foreign + staying, steps, quota.most].map(number)));
    };
    let meanwhile = if all > quota.most {
        ",".to_owned()
    } else {
        format!(", {} while captures are made,", number(most))
    };
    let message = format!(
        "in the long run `{}` is to hold {}{}{meanwhile} and takes {}",
        view.engine.name,
        of_kind(&number(all), quota),
        of_project(quota),
        number(quota.most)
    );
    let others = held_by_policies - largest.amount;
    let rest =
        beside_it([others, foreign, staying, steps].map(|part| (part > 0).then(|| number(part))));
    let hint = if all > quota.most {
        "keep fewer, or have the quota raised"
    } else {
        "keep fewer, or have the quota raised: captures are made before anything goes for them"
    };
    Some(
        about(largest.policy, Code::BeyondQuota, "retention", message)
            .label(format!("{}{rest}", largest.text(quota.unit)))
            .hint(hint),
    )
}

/// What is said where only steps on the way are too many: of images that are there, that much, and what
/// the engine takes.
fn no_room(view: &View<'_>, policy: &Policy, [there, steps, limit]: [String; 3]) -> Finding {
    let message = format!(
        "`{}` holds {there} snapshots, needs {steps} more for a while, and takes {limit}",
        view.engine.name
    );
    about(policy, Code::BeyondQuota, "capture.via", message)
        .label("each disk image is made from one")
        .hint("have the quota raised, or make them from the disk")
}

/// What there is beside the images of a policy, for people: of other policies, of others than
/// stillframe, of what no policy makes any more, and steps.
fn beside_it([others, foreign, staying, steps]: [Option<String>; 4]) -> String {
    let parts = [
        others.map(|others| format!("other policies hold {others}")),
        foreign.map(|foreign| format!("{foreign} are not of stillframe")),
        staying.map(|staying| format!("{staying} stay of policies or sources that are gone")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let mut rest = match parts.as_slice() {
        [] => String::new(),
        parts => format!("; {}", parts.join(", ")),
    };
    if let Some(steps) = steps {
        rest.push_str(&format!("; disk images are made from {steps} for a while"));
    }
    rest
}

fn of_kind(number: &str, quota: &Quota<'_>) -> String {
    let kind = quota.kind.word();
    match quota.unit {
        QuotaUnit::Images => format!("{number} images of the kind {kind}"),
        QuotaUnit::Bytes => format!("{number} in images of the kind {kind}"),
    }
}

fn of_project(quota: &Quota<'_>) -> String {
    quota.project.map(|project| format!(" in the project `{project}`")).unwrap_or_default()
}

/// What a quota counts, for people.
fn amount(number: u64, unit: QuotaUnit) -> String {
    match unit {
        QuotaUnit::Images => number.to_string(),
        QuotaUnit::Bytes => format!("{} GiB", number.div_ceil(1 << 30)),
    }
}
