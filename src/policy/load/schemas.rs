//! The schemas of documents, each compiled when it is first needed.

use std::sync::OnceLock;

use crate::policy::schema::Schema;
use crate::policy::{EngineKind, config_schema, overlay_schema, policy_schema};

/// The schemas that have been needed.
pub(super) struct Schemas<'a> {
    kinds: &'a [EngineKind],
    policy: OnceLock<Result<Schema, String>>,
    config: OnceLock<Result<Schema, String>>,
    overlay: OnceLock<Result<Schema, String>>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(kinds: &'a [EngineKind]) -> Self {
        let [policy, config, overlay] = [const { OnceLock::new() }; 3];
        Self { kinds, policy, config, overlay }
    }

    /// The schema of a kind of document that there is.
    pub(super) fn of(&self, kind: &str) -> Result<&Schema, String> {
        let compiled = match kind {
            "BackupPolicy" => self.policy.get_or_init(|| Schema::compile(policy_schema())),
            "Config" => self.config.get_or_init(|| Schema::compile(config_schema(self.kinds))),
            _ => self.overlay.get_or_init(|| Schema::compile(overlay_schema(self.kinds))),
        };
        compiled.as_ref().map_err(Clone::clone)
    }
}
