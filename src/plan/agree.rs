//! What two plans have in common: an approved one and the one made just before it is carried out.

use super::document::{Change, Create, Plan, Update};

/// The fresh plan without the changes that were not approved, and those changes. What was approved
/// and is no longer needed is gone by itself.
pub fn in_both(approved: &Plan, mut fresh: Plan) -> (Plan, Vec<Change>) {
    let changes = std::mem::take(&mut fresh.changes);
    let (both, only_fresh) = changes
        .into_iter()
        .partition(|change| approved.changes.iter().any(|other| is_same(other, change)));
    fresh.changes = both;
    (fresh, only_fresh)
}

/// Whether two changes do the same to the same: what an approval is bound to.
pub fn is_same(one: &Change, other: &Change) -> bool {
    one.action == other.action
        && one.engine == other.engine
        && one.key == other.key
        && one.image.id == other.image.id
        && one.image.name == other.image.name
        && one.image.created_at == other.image.created_at
        && one.image.fingerprint == other.image.fingerprint
        && one.image.location == other.image.location
        && one.create.as_ref().map(captured) == other.create.as_ref().map(captured)
        && one.update.as_ref().map(relabelled) == other.update.as_ref().map(relabelled)
}

/// What a capture takes, what it is kept under and what makes room for it; its deadline is no part
/// of it.
fn captured(create: &Create) -> impl PartialEq + '_ {
    let replaced = create.replaces.as_ref().and_then(|image| image.id.as_ref());
    (create.kind, create.consistency, &create.kms_key, &create.disks, &create.labels, replaced)
}

/// What changes on an image; labels that hold the time of the change differ from plan to plan.
fn relabelled(update: &Update) -> impl PartialEq + '_ {
    let set: Vec<&String> = update.set_labels.keys().collect();
    (update.stage_before, update.stage_after, set, &update.remove_labels)
}
