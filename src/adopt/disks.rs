//! Whether an image holds the disks that a policy captures, and has room for the labels of one.

use std::collections::BTreeSet;

use super::Reader;
use crate::inventory::{Disk, Image, Instance, OWN_LABELS};
use crate::name::LABEL_PREFIX;

impl Reader<'_> {
    /// Why its labels keep an image from being adopted: beside the key there must be room for what is
    /// marked later, or it could never be let go.
    pub(super) fn lack_of_room(&self, image: &Image) -> Option<String> {
        let others = image.labels.keys().filter(|label| !label.starts_with(LABEL_PREFIX)).count();
        (others > self.engine.capabilities.labels_room()).then(|| {
            format!(
                "it has {others} labels, and no room for the {OWN_LABELS} that stillframe may put on it"
            )
        })
    }

    /// Refuses an image that holds other disks. Where the engine does not know which it holds, one of
    /// several could be any of them.
    pub(super) fn refuse_other_disks(
        &self,
        image: &Image,
        instance: &Instance,
    ) -> Result<(), String> {
        let capabilities = &self.engine.capabilities;
        let boot = instance.disks.iter().filter(|disk| disk.boot).map(|disk| disk.name.clone());
        let of_kind = capabilities.boot_disk_kinds.contains(&image.kind);
        // An engine may capture nothing else with images of a kind.
        let boot: Option<Vec<String>> = of_kind.then(|| boot.collect());
        let Some(held) = image.disks.as_ref().or(boot.as_ref().filter(|boot| boot.len() == 1))
        else {
            let mut one_each =
                [&capabilities.one_disk_kinds, &capabilities.per_disk_kinds].into_iter();
            let holds_one = one_each.any(|kinds| kinds.contains(&image.kind));
            return if instance.disks.len() > 1 && holds_one {
                Err(format!(
                    "a {} holds one disk, {} has {}, and nothing says which one it is of",
                    image.kind.word(),
                    instance.name,
                    instance.disks.len()
                ))
            } else {
                Ok(())
            };
        };
        let capture = &self.policy.capture;
        let takes = |disk: &&Disk| capture.disks.takes(&disk.name, disk.boot);
        let captured = instance.disks.iter().filter(takes).map(|disk| disk.name.as_str());
        let (held, wanted): (BTreeSet<&str>, BTreeSet<&str>) =
            (held.iter().map(String::as_str).collect(), captured.collect());
        if held == wanted {
            return Ok(());
        }
        Err(format!(
            "it holds of {} {}, and {} captures {}",
            instance.name,
            names(&held),
            self.policy.name,
            names(&wanted)
        ))
    }
}

fn names(disks: &BTreeSet<&str>) -> String {
    match disks.len() {
        0 => "no disk".to_owned(),
        1 => format!("the disk {}", disks.iter().copied().collect::<String>()),
        _ => format!("the disks {}", disks.iter().copied().collect::<Vec<_>>().join(", ")),
    }
}
