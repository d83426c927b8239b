//! What an engine offers so that all disks of a machine are of one instant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Capabilities, Consistency, ImageKind};

/// What makes all disks of a capture be of one instant.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OneInstant {
    /// An image of the whole machine.
    MachineImage,
    /// The machine is stopped for it, and started again.
    Stopped,
}

impl OneInstant {
    /// What a policy says for it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::MachineImage => "kind: machine-image",
            Self::Stopped => "consistency: stopped",
        }
    }
}

impl Capabilities {
    /// What a policy can ask for instead so that all disks are of one instant, where a kind takes each disk
    /// at its own.
    pub fn at_one_instant(&self, kind: ImageKind) -> Vec<OneInstant> {
        let whole = ImageKind::MachineImage;
        let is_whole = self.kinds.contains(&whole) && !self.per_disk_kinds.contains(&whole);
        let stops = self.consistencies_of(kind).contains(&Consistency::Stopped);
        [(is_whole, OneInstant::MachineImage), (stops, OneInstant::Stopped)]
            .into_iter()
            .filter_map(|(is_offered, one)| is_offered.then_some(one))
            .collect()
    }
}
