//! What the policies will hold in the long run, against what engines take.

use std::collections::BTreeMap;

use super::reach::kept_in_the_long_run;
use super::rhythm::Rhythms;
use super::seen::View;
use super::{about, is_own};
use crate::inventory::{ImageKind, Instance, Limits, Via};
use crate::name::Ownership;
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::Policy;

pub(super) fn lint(views: &[View<'_>]) -> Vec<Finding> {
    let mut rhythms = Rhythms::default();
    let mut findings = Vec::new();
    for view in views {
        let limits = &view.engine.capabilities.limits;
        if *limits == Limits::default() {
            continue;
        }
        for (project, kind, limit) in limits.counts() {
            findings.extend(beyond_quota(view, (project, kind, limit), &mut rhythms));
        }
        for (policy, sources) in &view.policies {
            findings.extend(too_large(policy, sources, limits));
        }
    }
    findings
}

/// Images that one source of a policy has in the long run: those that are kept, those that wait out
/// their grace, and a copy of each in each other location.
fn images_of_a_source(policy: &Policy, rhythms: &mut Rhythms) -> Option<u64> {
    let rhythm = rhythms.of(&policy.schedule)?;
    let kept = kept_in_the_long_run(&policy.schedule, &policy.retention, &rhythm)?;
    let grace = policy.lifecycle.grace.as_seconds() / rhythm.longest.as_seconds().max(1);
    let places = u64::try_from(policy.copies.len()).ok()? + 1;
    Some((kept + u64::try_from(grace).ok()?) * places)
}

/// What a policy takes images of.
struct Held {
    sources: usize,
    /// How many disks, where there is an image of each.
    disks: Option<usize>,
}

fn disks(policy: &Policy, sources: &[&Instance], is_per_disk: bool) -> Option<usize> {
    let of = |source: &&Instance| {
        let taken =
            source.disks.iter().filter(|one| policy.capture.disks.takes(&one.name, one.boot));
        taken.count().max(1)
    };
    is_per_disk.then(|| sources.iter().map(of).sum())
}

/// How many snapshots there are at once as steps on the way to disk images of some projects, and a
/// policy that needs some.
fn steps<'a>(
    view: &View<'a>,
    kind: ImageKind,
    is_of: impl Fn(&str) -> bool,
) -> Option<(&'a Policy, u64)> {
    let is_via =
        |policy: &Policy| kind == ImageKind::Snapshot && policy.capture.via == Via::Snapshot;
    let count =
        |sources: &[&Instance]| sources.iter().filter(|source| is_of(&source.project)).count();
    let policies = view.policies.iter().filter(|(policy, _)| is_via(policy));
    let counted = policies.map(|(policy, sources)| (*policy, count(sources)));
    let (first, sources) = counted
        .filter(|(_, sources)| *sources > 0)
        .reduce(|(first, all), (_, sources)| (first, all + sources))?;
    let most = view.engine.capabilities.captures_max.max(1);
    Some((first, u64::try_from(sources.min(most)).ok()?))
}

/// What there is beside the images of a policy, for people.
fn beside(others: u64, foreign: u64, steps: u64) -> String {
    let mut rest = match (others, foreign) {
        (0, 0) => String::new(),
        (others, 0) => format!("; other policies hold {others}"),
        (0, foreign) => format!("; {foreign} are not of stillframe"),
        (others, foreign) => {
            format!("; other policies hold {others}, {foreign} are not of stillframe")
        }
    };
    if steps > 0 {
        rest.push_str(&format!("; disk images are made from {steps} for a while"));
    }
    rest
}

/// What is said where only steps on the way are too many: of images that are there, that many, and what
/// the engine takes.
fn no_room(view: &View<'_>, policy: &Policy, [there, steps, limit]: [u64; 3]) -> Finding {
    let message = format!(
        "`{}` holds {there} snapshots, needs {steps} more for a while, and takes {limit}",
        view.engine.name
    );
    about(policy, Code::BeyondQuota, "capture.via", message)
        .label("each disk image is made from one")
        .hint("have the quota raised, or make them from the disk")
}

fn beyond_quota(
    view: &View<'_>,
    (project, kind, limit): (Option<&str>, ImageKind, u64),
    rhythms: &mut Rhythms,
) -> Option<Finding> {
    let is_of = |of: &str| project.is_none_or(|project| project == of);
    let foreign = view.engine.images.iter().filter(|image| {
        image.kind == kind
            && is_of(&image.project)
            && matches!(image.ownership(), Ownership::Foreign)
    });
    let foreign = u64::try_from(foreign.count()).ok()?;
    let is_per_disk = view.engine.capabilities.per_disk_kinds.contains(&kind);
    let mut most: Option<(u64, &Policy, u64, Held)> = None;
    let mut all = foreign;
    // Policies with one rhythm and one retention are counted alike.
    let mut known: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for (policy, sources) in &view.policies {
        let sources: Vec<&Instance> =
            sources.iter().copied().filter(|source| is_of(&source.project)).collect();
        if policy.capture.kind != kind || sources.is_empty() {
            continue;
        }
        let key = format!(
            "{} {} {:?} {} {}",
            policy.schedule.text(),
            policy.schedule.zone.name(),
            policy.retention,
            policy.lifecycle.grace,
            policy.copies.len()
        );
        let each = *known.entry(key).or_insert_with(|| images_of_a_source(policy, rhythms));
        let Some(each) = each else { continue };
        let held = Held { sources: sources.len(), disks: disks(policy, &sources, is_per_disk) };
        let count = each * u64::try_from(held.disks.unwrap_or(held.sources)).ok()?;
        all += count;
        if most.as_ref().is_none_or(|(before, ..)| count > *before) {
            most = Some((count, policy, each, held));
        }
    }
    let on_the_way = steps(view, kind, is_of);
    all += on_the_way.map_or(0, |(_, steps)| steps);
    if all <= limit {
        return None;
    }
    let Some((count, policy, each, Held { sources, disks })) = most else {
        // Nothing of the kind is kept, and some are there for a while.
        return on_the_way.map(|(policy, steps)| no_room(view, policy, [foreign, steps, limit]));
    };
    Some({
        let message = format!(
            "in the long run `{}` is to hold {all} images of the kind {}{}, and takes {limit}",
            view.engine.name,
            kind.word(),
            project.map(|project| format!(" in the project `{project}`")).unwrap_or_default()
        );
        let steps = on_the_way.map_or(0, |(_, steps)| steps);
        let others = all - count - foreign - steps;
        let plural = if sources == 1 { "" } else { "s" };
        let rest = beside(others, foreign, steps);
        let of = match disks {
            Some(disks) => format!("{disks} disks of {sources} source{plural}"),
            None => format!("{sources} source{plural}"),
        };
        about(policy, Code::BeyondQuota, "retention", message)
            .label(format!("{each} of each of {of}{rest}"))
            .hint("keep fewer, or have the quota raised")
    })
}

fn too_large(policy: &Policy, sources: &[&Instance], limits: &Limits) -> Option<Finding> {
    let mut found: Option<(String, usize)> = None;
    for source in sources {
        let taken =
            source.disks.iter().filter(|disk| policy.capture.disks.takes(&disk.name, disk.boot));
        let (count, bytes) = taken.fold((0_u64, 0_u64), |(count, bytes), disk| {
            (count + 1, bytes.saturating_add(disk.size_bytes.unwrap_or(0)))
        });
        let disks = limits.image_disks.filter(|limit| count > *limit);
        let size = limits.image_bytes.filter(|limit| bytes > *limit);
        let says = match (disks, size) {
            (Some(limit), _) => {
                format!("{} has {count} disks, an image holds {limit}", source.name)
            }
            (None, Some(limit)) => {
                format!("{} has {}, an image holds {}", source.name, gib(bytes), gib(limit))
            }
            (None, None) => continue,
        };
        found.get_or_insert((says, 0)).1 += 1;
    }
    let (says, count) = found?;
    let more =
        if count > 1 { format!(", and {} more are too large", count - 1) } else { String::new() };
    let path = if is_own(policy, "capture.disks") { "capture.disks" } else { "source.match" };
    let whole = policy.capture.kind == ImageKind::MachineImage;
    whole.then(|| {
        about(policy, Code::BeyondImageLimit, path, format!("{says}{more}"))
            .hint("choose its disks under `capture.disks`")
    })
}

fn gib(bytes: u64) -> String {
    format!("{} GiB", bytes.div_ceil(1 << 30))
}
