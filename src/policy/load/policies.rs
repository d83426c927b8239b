//! From documents to policies: each file by itself, many at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use similar::get_close_matches;

use super::documents::{Document, Documents, read};
use super::schemas::Schemas;
use crate::name::PolicyName;
use crate::policy::effective::{Layer, Layers, built_in};
use crate::policy::finding::{Code, Finding, SourceFile};
use crate::policy::meaning::{Meaning, Periods};
use crate::policy::meant::{Config, Policy};
use crate::policy::select::Patterns;

/// So many files are read one after the other: to share out less takes longer than to do it.
const SHARED_FROM: usize = 64;

/// What an overlay says about some policies.
pub(super) struct Patch {
    pub(super) names: Patterns,
    /// Where in the overlay it stands.
    pub(super) prefix: String,
}

/// Policies that are read, or will be.
pub(super) enum Batch {
    /// Documents of a file that holds others too.
    Read(Vec<Document>),
    /// A file that holds nothing else. It is read when its turn comes and forgotten at once: of many
    /// files the trees do not fit into the caches of a processor.
    Unread(Arc<SourceFile>),
}

/// What is the same for all policies.
pub(super) struct Common<'a> {
    pub(super) schemas: &'a Schemas<'a>,
    pub(super) config: Option<&'a Config>,
    pub(super) overlay: Option<&'a Document>,
    pub(super) patches: &'a [Patch],
    pub(super) defaults: &'a [Layer<'a>],
    /// A mapping without anything.
    pub(super) nothing: &'a Value,
    /// What is built in, for each engine and for none.
    pub(super) built_in: BTreeMap<Option<String>, Value>,
    pub(super) periods: Periods,
    /// Whether each value is told with where it comes from.
    pub(super) origins: bool,
}

/// What came of one batch.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) findings: Vec<Finding>,
    /// The names that the documents say, in their order.
    pub(super) names: Vec<String>,
    /// Policies, each with its digest.
    pub(super) policies: Vec<Policy>,
    /// Those of them in which something is wrong.
    pub(super) unsound: Vec<PolicyName>,
}

/// What is built in for the engines of a configuration, and for none.
pub(super) fn built_in_for(config: Option<&Config>) -> BTreeMap<Option<String>, Value> {
    let engines = config.into_iter().flat_map(|config| &config.engines);
    let each = engines.map(|(name, engine)| {
        (Some(name.clone()), built_in(Some(name), Some(&engine.capabilities)))
    });
    each.chain([(None, built_in(None, None))]).collect()
}

impl Common<'_> {
    /// What comes of all batches, in their order.
    pub(super) fn outcomes(&self, batches: Vec<Batch>) -> Vec<Outcome> {
        let is_worth_it = batches.len() >= SHARED_FROM;
        // Where no thread can be had, it goes without.
        let threads = is_worth_it.then(|| ThreadPoolBuilder::new().build().ok()).flatten();
        match threads {
            Some(threads) => threads
                .install(|| batches.into_par_iter().map(|batch| self.outcome(batch)).collect()),
            None => batches.into_iter().map(|batch| self.outcome(batch)).collect(),
        }
    }

    fn outcome(&self, batch: Batch) -> Outcome {
        let mut outcome = Outcome::default();
        let documents = match batch {
            Batch::Read(documents) => documents,
            Batch::Unread(file) => {
                let Documents { policies, findings, configs, overlays } = read(&file, self.schemas);
                debug_assert!(configs.is_empty() && overlays.is_empty(), "{}", file.path);
                outcome.findings = findings;
                policies
            }
        };
        for document in &documents {
            outcome.names.push(document.name().to_owned());
            self.policy(document, &mut outcome);
        }
        outcome
    }

    fn policy(&self, document: &Document, outcome: &mut Outcome) {
        let layer = document.layer("/spec", self.nothing);
        let overlays: Vec<Layer<'_>> = self
            .patches
            .iter()
            .rev()
            .filter(|patch| patch.names.matches(document.name()))
            .filter_map(|patch| Some(self.overlay?.layer(&patch.prefix, self.nothing)))
            .collect();
        let layers: Vec<Layer<'_>> =
            overlays.iter().copied().chain([layer]).chain(self.defaults.iter().copied()).collect();
        let engine = engine_of(&mut outcome.findings, layer, &layers, self.config);
        let known = engine.as_ref().and_then(|name| self.config?.engines.get(name));
        let capabilities = known.map(|engine| &engine.capabilities);
        let built_in = self.built_in.get(&engine).unwrap_or(self.nothing);
        let layers = Layers::new(overlays, layer, self.defaults.to_vec(), built_in);
        let mut meaning = Meaning::new(&layers, &document.damaged, capabilities, &self.periods);
        let policy = meaning.policy(&document.json, document.place(), engine);
        let mut is_sound = document.errors.is_empty();
        for mut finding in meaning.into_findings() {
            is_sound &= !finding.is_error();
            finding.policy = PolicyName::parse(document.name()).ok();
            outcome.findings.push(finding);
        }
        if let Some(mut policy) = policy {
            if !is_sound {
                outcome.unsound.push(policy.name.clone());
            }
            if self.origins {
                policy.effective = layers.list();
            }
            policy.digest = sha256(&layers.json);
            outcome.policies.push(policy);
        }
    }
}

/// The SHA-256 over a value as JSON, as hex.
pub(super) fn sha256(value: &Value) -> String {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// The engine of a policy: its own, the default, or the only one there is.
fn engine_of(
    findings: &mut Vec<Finding>,
    layer: Layer<'_>,
    layers: &[Layer<'_>],
    config: Option<&Config>,
) -> Option<String> {
    let engines = &config?.engines;
    let written = layers.iter().find_map(|layer| {
        layer.json.get("engine").and_then(Value::as_str).map(|name| (name, *layer))
    });
    let known: Vec<&str> = engines.keys().map(String::as_str).collect();
    match (written, known.as_slice()) {
        (None, [only]) => Some((*only).to_owned()),
        // Engines that could not be read have a finding of their own.
        (_, []) => None,
        (None, _) => {
            findings.push(
                Finding::new(
                    Code::UnknownEngine,
                    layer.place(""),
                    "the policy does not say which engine",
                )
                .hint(format!("write `engine:` with one of {}", known.join(", "))),
            );
            None
        }
        (Some((name, _)), _) if engines.contains_key(name) => Some(name.to_owned()),
        (Some((name, layer)), _) => {
            let hint = match get_close_matches(name, &known, 1, 0.6).first() {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("there are {}", known.join(", ")),
            };
            findings.push(
                Finding::new(
                    Code::UnknownEngine,
                    layer.place("/engine"),
                    format!("there is no engine `{name}`"),
                )
                .hint(hint),
            );
            None
        }
    }
}
