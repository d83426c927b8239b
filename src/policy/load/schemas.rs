//! The schemas of documents, each compiled when it is first needed.

use std::collections::BTreeMap;

use crate::policy::schema::Schema;
use crate::policy::{EngineKind, config_schema, overlay_schema, policy_schema};

/// The schemas that have been needed.
pub(super) struct Schemas<'a> {
    pub(super) kinds: &'a [EngineKind],
    pub(super) compiled: BTreeMap<String, Schema>,
}

impl Schemas<'_> {
    pub(super) fn of(&mut self, kind: &str) -> Result<&Schema, String> {
        if !self.compiled.contains_key(kind) {
            let json = match kind {
                "BackupPolicy" => policy_schema(),
                "Config" => config_schema(self.kinds),
                _ => overlay_schema(self.kinds),
            };
            self.compiled.insert(kind.to_owned(), Schema::compile(json)?);
        }
        self.compiled.get(kind).ok_or_else(|| format!("no schema for {kind}"))
    }
}
