//! How a restore point is captured, for people.

use crate::inventory::{Consistency, Via};
use crate::plan::Create;
use crate::report::text::clean;

/// What else is to be known of a capture.
pub(super) fn notes(create: &Create) -> Vec<String> {
    let mut notes = Vec::new();
    if !create.excluded_disks.is_empty() {
        notes.push(format!("left out: disk {}", clean(&create.excluded_disks.join(", "))));
    }
    if create.consistency == Consistency::Stopped {
        notes.push("the machine is stopped for it, and started again".to_owned());
    } else if let (true, Some(companion)) = (create.disk_by_disk, create.companion) {
        notes.push(format!(
            "disk by disk: the disk that it starts from becomes a {}, each other one a {} of its volume; {}",
            create.kind.word(),
            companion.word(),
            instants(create)
        ));
    } else if create.disk_by_disk {
        notes.push(format!("disk by disk: {}", instants(create)));
    }
    if create.via == Via::Snapshot {
        let text = "from a snapshot, which is made for it and deleted once it is READY";
        notes.push(text.to_owned());
    }
    notes
}

/// Of which instants the disks are, and what the engine offers instead.
fn instants(create: &Create) -> String {
    let disks = create.disks.len();
    let how = match create.consistency {
        Consistency::Application => "application-consistent",
        _ => "crash-consistent",
    };
    let own = format!("its {disks} disks are {how} each by itself, of its own instant");
    let settings: Vec<String> =
        create.one_instant.iter().map(|one| format!("`{}`", one.setting())).collect();
    if settings.is_empty() {
        return own;
    }
    format!("{own}; with {} all are of one instant", settings.join(" or "))
}
