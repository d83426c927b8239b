//! From the files of a policy directory to policies or findings.

mod claims;
mod config;
mod documents;
mod engines;
mod idle;
mod notify;
mod policies;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use similar::get_close_matches;

use super::effective::Layer;
use super::finding::{Code, Finding, Place, SourceFile};
use super::lint::Unsound;
use super::meaning::Periods;
use super::meant::{Policies, Policy};
use super::select::Patterns;
use super::written::PatchSpec;
use super::yaml::{self, Node};
use super::{EngineKind, lint};
use crate::name;
use config::Configured;
use documents::{Document, holds_only_policies};
use policies::{Batch, Common, Outcome, Patch, built_in_for, sha256};
use schemas::Schemas;

/// What came of reading policies.
#[derive(Debug)]
pub struct Loaded {
    /// The policies, unless a finding is an error by which they mean nothing.
    pub policies: Option<Policies>,
    /// Everything that was found, in order of file and position.
    pub findings: Vec<Finding>,
}

/// How policies are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading<'a> {
    /// The environment whose overlay holds.
    pub environment: Option<&'a str>,
    /// Endpoints that engines are to have instead of those of the files: `URL`, or `ENGINE=URL`.
    pub endpoints: &'a [String],
    /// Whether some files could not be read: what they hold is not known to be missing.
    pub unreadable: bool,
    /// Whether each value of a policy is told with where it comes from.
    pub origins: bool,
    /// The time, where what it says about the policies is to be found too.
    pub now: Option<Timestamp>,
}

/// The engine that an endpoint is given for, where one is named, and the endpoint.
pub fn given_endpoint(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, url)) if !name.contains(':') => (Some(name), url),
        _ => (None, text),
    }
}

/// The files and directories that a configuration includes, with where it says so. A file that is
/// no configuration includes nothing.
pub fn includes(file: &Arc<SourceFile>) -> Vec<(String, Place)> {
    if !file.text.contains("include") {
        return Vec::new();
    }
    let (nodes, _) = yaml::read(file);
    let is_config = |node: &&Node| node.get("kind").and_then(Node::as_text) == Some("Config");
    nodes
        .iter()
        .filter(is_config)
        .filter_map(|node| node.at("/spec/include"))
        .flat_map(|node| match &node.value {
            yaml::Value::List(items) => items.iter().collect(),
            _ => vec![node],
        })
        .filter_map(|node| {
            let place = Place { file: Arc::clone(file), span: node.span.clone() };
            Some((node.as_text()?.to_owned(), place))
        })
        .collect()
}

/// Reads all files of a policy directory. `kinds` are the engines there are.
pub fn load(files: Vec<SourceFile>, kinds: &[EngineKind]) -> Loaded {
    let reading = Reading { origins: true, ..Reading::default() };
    load_with(files.into_iter().map(Arc::new).collect(), kinds, reading)
}

/// The same, for an environment, or where some files could not be read.
pub fn load_with(
    files: Vec<Arc<SourceFile>>,
    kinds: &[EngineKind],
    reading: Reading<'_>,
) -> Loaded {
    let again = files.clone();
    let schemas = Schemas::new(kinds);
    let mut loader = Loader { kinds, endpoints: reading.endpoints, findings: Vec::new() };
    let Sorted { configs, overlays, batches } = loader.read(files, &schemas);
    let nothing = json!({});
    let overlay = loader.overlay(&overlays, reading.environment);
    let patches = overlay.map(|overlay| loader.patches(overlay)).unwrap_or_default();
    let config_document = loader.only_config(&configs);
    let overlaid = overlay.filter(|overlay| overlay.json.pointer("/spec/config").is_some());
    let mut config =
        config_document.and_then(|document| loader.config(document, overlay, reading.environment));
    let defaults: Vec<Layer<'_>> = overlaid
        .map(|overlay| overlay.layer("/spec/config/defaults", &nothing))
        .into_iter()
        .chain(config_document.map(|document| document.layer("/spec/defaults", &nothing)))
        .collect();
    let known = config.as_ref().map(|config| &config.config);
    let common = Common {
        schemas: &schemas,
        config: known,
        overlay,
        patches: &patches,
        defaults: &defaults,
        nothing: &nothing,
        built_in: built_in_for(known),
        periods: Periods::default(),
        origins: reading.origins,
    };
    let Gathered { mut policies, digests, names, mut unsound } =
        loader.gather(common.outcomes(batches));
    // What is wrong there is wrong in all policies, or may be.
    unsound.all = config_document.is_some_and(|one| one.has_error_in("/spec", "defaults"))
        || (reading.environment.is_some()
            && overlay.is_none_or(|overlay| !overlay.errors.is_empty()));
    loader.check_whole(&names, overlay, &patches, reading.unreadable);
    policies.sort_by(|one, other| one.name.cmp(&other.name));
    if let Some(config) = &mut config {
        let names = names.iter().map(String::as_str).collect();
        loader.findings.extend(config.check_names(&names));
    }
    if let Some(document) = config_document {
        let known = config.as_ref().map(|config| &config.config);
        loader.idle(document, known, &overlays, reading.environment);
    }
    let mut findings = loader.findings;
    if config_document.is_none() {
        // The defaults are not known, so nobody can say what is inherited.
        findings.retain(|finding| finding.code != Code::KeepsEverything);
    }
    let policies = config.map(|config| {
        let digest = digest(&config, digests);
        config.policies(policies, digest)
    });
    let said = policies.as_ref().map(|all| lint::alone(all, &unsound, reading.now));
    let said = said.unwrap_or_default();
    if let (Some(policies), false) = (&policies, reading.origins)
        && lint::needs_origins(policies, &said)
    {
        return load_with(again, kinds, Reading { origins: true, ..reading });
    }
    ended(policies, findings, said, &unsound, reading.now)
}

/// What came of it all, with what can be said of the policies as a whole.
fn ended(
    policies: Option<Policies>,
    mut findings: Vec<Finding>,
    said: Vec<Finding>,
    unsound: &Unsound,
    now: Option<Timestamp>,
) -> Loaded {
    if let Some(policies) = &policies {
        findings = lint::with_lint(policies, findings, said, unsound);
    }
    let has_error = findings.iter().any(Finding::is_error);
    // An exemption that has ended changes nothing of what the policies mean.
    if let (Some(policies), Some(now)) = (&policies, now) {
        findings.extend(policies.expired(now));
    }
    findings.sort_by(|one, other| one.sort_key().cmp(&other.sort_key()));
    findings.dedup();
    Loaded { policies: policies.filter(|_| !has_error), findings }
}

/// A SHA-256 over what the policies mean, as hex.
fn digest(config: &Configured, policies: Map<String, Value>) -> String {
    let engines: BTreeMap<&String, &String> =
        config.config.engines.iter().map(|(name, engine)| (name, &engine.kind)).collect();
    let mut value = json!({"engines": engines, "guards": config.config.guards});
    // What is not written is not part of it, so that it does not change with this program.
    for key in ["blackouts", "moved", "removed", "exemptions"] {
        if let Some(written) = config.json.get(key) {
            value[key] = written.clone();
        }
    }
    // Moved, not copied: of many policies this is large.
    value["policies"] = Value::Object(policies);
    sha256(&value)
}

struct Loader<'a> {
    kinds: &'a [EngineKind],
    endpoints: &'a [String],
    findings: Vec<Finding>,
}

/// All documents but the policies, which come in batches.
#[derive(Default)]
struct Sorted {
    configs: Vec<Document>,
    overlays: Vec<Document>,
    batches: Vec<Batch>,
}

/// The policies of all files.
#[derive(Default)]
struct Gathered {
    policies: Vec<Policy>,
    /// By name, the SHA-256 over what holds.
    digests: Map<String, Value>,
    /// Of all documents, also of those that are no policy yet.
    names: BTreeSet<String>,
    unsound: Unsound,
}

impl Loader<'_> {
    /// Reads the files that may hold more than policies.
    fn read(&mut self, files: Vec<Arc<SourceFile>>, schemas: &Schemas<'_>) -> Sorted {
        let mut sorted = Sorted::default();
        for file in files {
            if holds_only_policies(&file.text) {
                sorted.batches.push(Batch::Unread(file));
                continue;
            }
            let documents = documents::read(&file, schemas);
            self.findings.extend(documents.findings);
            sorted.configs.extend(documents.configs);
            sorted.overlays.extend(documents.overlays);
            sorted.batches.push(Batch::Read(documents.policies));
        }
        sorted
    }

    /// Puts together what came of all files.
    fn gather(&mut self, outcomes: Vec<Outcome>) -> Gathered {
        let mut gathered = Gathered::default();
        let mut first_places: BTreeMap<name::PolicyName, Place> = BTreeMap::new();
        for outcome in outcomes {
            self.findings.extend(outcome.findings);
            gathered.names.extend(outcome.names);
            gathered.unsound.names.extend(outcome.unsound);
            for policy in outcome.policies {
                if let Some(first) = first_places.get(&policy.name) {
                    let message = format!("there are two policies named `{}`", policy.name);
                    self.findings.push(
                        Finding::new(Code::DuplicatePolicy, policy.place.clone(), message)
                            .related(first.clone(), "the first one"),
                    );
                    continue;
                }
                first_places.insert(policy.name.clone(), policy.place.clone());
                gathered.digests.insert(policy.name.to_string(), policy.digest.clone().into());
                gathered.policies.push(policy);
            }
        }
        gathered
    }

    /// The overlay of the environment.
    fn overlay<'d>(
        &mut self,
        overlays: &'d [Document],
        environment: Option<&str>,
    ) -> Option<&'d Document> {
        let mut first: BTreeMap<&str, &Document> = BTreeMap::new();
        for overlay in overlays {
            if let Some(first) = first.get(overlay.name()) {
                let message = format!("there are two overlays named `{}`", overlay.name());
                self.findings.push(
                    Finding::new(Code::DuplicateOverlay, overlay.place(), message)
                        .related(first.place(), "the first one"),
                );
            }
            first.entry(overlay.name()).or_insert(overlay);
        }
        let environment = environment?;
        let found = first.get(environment).copied();
        if found.is_none() {
            let names: Vec<&str> = first.keys().copied().collect();
            let hint = match (get_close_matches(environment, &names, 1, 0.6).first(), names.len()) {
                (Some(close), _) => format!("did you mean `{close}`?"),
                (None, 0) => "write a document of kind Overlay with that name".to_owned(),
                (None, _) => format!("there are {}", names.join(", ")),
            };
            let message = format!("there is no overlay for the environment `{environment}`");
            self.findings.push(Finding::nowhere(Code::UnknownEnvironment, message).hint(hint));
        }
        found
    }

    /// What an overlay says about policies, in the order in which it says it.
    fn patches(&mut self, overlay: &Document) -> Vec<Patch> {
        let written = overlay.json.pointer("/spec/policies").and_then(Value::as_array);
        let mut patches = Vec::new();
        for (position, value) in written.into_iter().flatten().enumerate() {
            let Ok(spec) = serde_json::from_value::<PatchSpec>(value.clone()) else { continue };
            let prefix = format!("/spec/policies/{position}");
            let nothing = json!({});
            let place = |key: &str| overlay.layer(&prefix, &nothing).place(key);
            let (Some(names), Some(_)) = (&spec.names, &spec.spec) else {
                self.findings.push(
                    Finding::new(Code::MissingKey, place(""), "this entry changes nothing")
                        .hint("write `names` with patterns for policies, and `spec` with what is different in them"),
                );
                continue;
            };
            match Patterns::new(names) {
                Ok(names) => patches.push(Patch { names, prefix: format!("{prefix}/spec") }),
                Err(mistakes) => {
                    for (_, reason) in mistakes {
                        let message = format!("not a pattern: {reason}");
                        self.findings.push(Finding::new(
                            Code::BadPattern,
                            place("/names"),
                            message,
                        ));
                    }
                }
            }
        }
        patches
    }

    /// What can only be said of all documents together.
    fn check_whole(
        &mut self,
        names: &BTreeSet<String>,
        overlay: Option<&Document>,
        patches: &[Patch],
        unreadable: bool,
    ) {
        let is_sound = !self.findings.iter().any(Finding::is_error) && !unreadable;
        if names.is_empty() && is_sound {
            let message = "there is no policy: nothing is protected";
            self.findings.push(Finding::nowhere(Code::NoPolicies, message));
        }
        let nothing = json!({});
        for patch in patches {
            let is_used = names.iter().any(|name| patch.names.matches(name));
            if let (Some(overlay), false, true) = (overlay, is_used, is_sound) {
                let prefix = patch.prefix.trim_end_matches("/spec");
                let place = overlay.layer(prefix, &nothing).place("/names");
                let message = format!("no policy is named `{}`", patch.names);
                self.findings.push(Finding::new(Code::PatchesNothing, place, message));
            }
        }
    }

    fn only_config<'d>(&mut self, configs: &'d [Document]) -> Option<&'d Document> {
        let first = configs.first();
        if first.is_none() {
            self.findings.push(
                Finding::nowhere(Code::MissingConfig, "there is no document of kind Config")
                    .hint("describe the engines in a file like policies/stillframe.yaml, and name it or its directory with --policies"),
            );
        }
        for second in configs.iter().skip(1) {
            let finding = Finding::new(
                Code::DuplicateConfig,
                second.place(),
                "a second document of kind Config",
            );
            let related = first.map(Document::place);
            self.findings.push(match related {
                Some(first) => finding.related(first, "the first one"),
                None => finding,
            });
        }
        first
    }
}
