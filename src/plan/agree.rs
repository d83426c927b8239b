//! What two plans have in common: an approved one and the one made just before it is carried out.

use super::document::{Change, Plan};

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
fn is_same(one: &Change, other: &Change) -> bool {
    one.action == other.action
        && one.engine == other.engine
        && one.key == other.key
        && one.image.id == other.image.id
        && one.image.name == other.image.name
        && one.image.created_at == other.image.created_at
        && one.image.fingerprint == other.image.fingerprint
        && one.image.location == other.image.location
}
