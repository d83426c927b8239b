//! The disks of sources, against what images can hold.

use super::seen::View;
use super::{about, is_own};
use crate::inventory::{Capabilities, Disk, ImageKind, Instance, KeyChoice, Limits};
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::Policy;

pub(super) fn lint(views: &[View<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for view in views {
        let capabilities = &view.engine.capabilities;
        for (policy, sources) in &view.policies {
            findings.extend(too_large(policy, sources, &capabilities.limits));
            findings.extend(not_held(policy, sources, capabilities));
            findings.extend(other_key(policy, sources, capabilities));
        }
    }
    findings
}

/// The disks of a source that a policy takes.
fn taken<'a>(policy: &Policy, source: &'a Instance) -> Vec<&'a Disk> {
    let takes = |disk: &&Disk| policy.capture.disks.takes(&disk.name, disk.boot);
    source.disks.iter().filter(takes).collect()
}

/// The first of several sources of which the same is said, and how many more there are.
fn first_of(says: Vec<String>) -> Option<String> {
    let more = says.len().checked_sub(1)?;
    let first = says.into_iter().next()?;
    Some(match more {
        0 => first,
        more => format!("{first}, and so for {more} more"),
    })
}

/// Disks that images of the kind cannot be made of together.
fn not_held(
    policy: &Policy,
    sources: &[&Instance],
    capabilities: &Capabilities,
) -> Option<Finding> {
    let kind = policy.capture.kind;
    let is_one = capabilities.one_disk_kinds.contains(&kind);
    let has_boot = capabilities.boot_disk_kinds.contains(&kind);
    let says = sources.iter().filter_map(|source| {
        let disks = taken(policy, source);
        let (name, word) = (&source.name, kind.word());
        if disks.is_empty() {
            None
        } else if has_boot && !disks.iter().any(|disk| disk.boot) {
            Some(format!(
                "a {word} always holds the disk that {name} starts from, and it is not taken"
            ))
        } else if is_one && disks.len() > 1 {
            Some(format!("a {word} holds one disk, and {} of {name} are taken", disks.len()))
        } else {
            None
        }
    });
    let says = first_of(says.collect())?;
    let own = ["capture.disks", "capture.kind"].into_iter().find(|path| is_own(policy, path));
    Some(
        about(policy, Code::BeyondImageLimit, own.unwrap_or("source.match"), says)
            .hint("choose its disks under `capture.disks`"),
    )
}

/// Disks under another key than images are to have, where those have the key of their disk.
fn other_key(
    policy: &Policy,
    sources: &[&Instance],
    capabilities: &Capabilities,
) -> Option<Finding> {
    let wanted = policy.kms_key.as_deref().filter(|_| capabilities.key == KeyChoice::Inherited)?;
    let says = sources.iter().filter_map(|source| {
        // Which key a disk has that was not looked at nobody knows: that is a gap and no fault of a policy.
        let mut disks = taken(policy, source).into_iter().filter(|disk| disk.is_read());
        let other = disks.find(|disk| disk.kms_key.as_deref() != Some(wanted))?;
        let key = other.kms_key.as_deref().unwrap_or("no key of yours");
        Some(format!("{} of {} is under {key}, and so is its image", other.name, source.name))
    });
    let says = first_of(says.collect())?;
    Some(
        about(policy, Code::OtherKey, "encryption.kmsKey", says)
            .hint("take the key out, or encrypt the disks under it"),
    )
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
