//! What a file is that an image is made of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a file is that holds a disk and is imported as an image.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ImportFormat {
    /// The format of QEMU.
    Qcow2,
    /// The bytes of the disk themselves.
    Raw,
    /// The format of `VMware`.
    Vmdk,
}

impl ImportFormat {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
        }
    }
}
