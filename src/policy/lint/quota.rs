//! What the policies will hold in the long run, against what engines take.

use std::collections::BTreeMap;

use super::reach::kept_in_the_long_run;
use super::rhythm::Rhythms;
use super::seen::View;
use super::{about, is_own};
use crate::inventory::{ImageKind, Instance, Limits};
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
        for (kind, limit) in &limits.images {
            findings.extend(beyond_quota(view, *kind, *limit, &mut rhythms));
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

fn beyond_quota(
    view: &View<'_>,
    kind: ImageKind,
    limit: u64,
    rhythms: &mut Rhythms,
) -> Option<Finding> {
    let foreign = view
        .engine
        .images
        .iter()
        .filter(|image| image.kind == kind && matches!(image.ownership(), Ownership::Foreign));
    let foreign = u64::try_from(foreign.count()).ok()?;
    let mut most: Option<(u64, &Policy, u64, usize)> = None;
    let mut all = foreign;
    // Policies with one rhythm and one retention are counted alike.
    let mut known: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for (policy, sources) in &view.policies {
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
        let count = each * u64::try_from(sources.len()).ok()?;
        all += count;
        if most.is_none_or(|(before, ..)| count > before) {
            most = Some((count, policy, each, sources.len()));
        }
    }
    let (count, policy, each, sources) = most?;
    (all > limit).then(|| {
        let message = format!(
            "in the long run `{}` is to hold {all} images of the kind {}, and takes {limit}",
            view.engine.name,
            kind.word()
        );
        let (plural, others) = (if sources == 1 { "" } else { "s" }, all - count - foreign);
        let rest = match (others, foreign) {
            (0, 0) => String::new(),
            (others, 0) => format!("; other policies hold {others}"),
            (0, foreign) => format!("; {foreign} are not of stillframe"),
            (others, foreign) => {
                format!("; other policies hold {others}, {foreign} are not of stillframe")
            }
        };
        about(policy, Code::BeyondQuota, "retention", message)
            .label(format!("{each} of each of {sources} source{plural}{rest}"))
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
