//! From the files of a policy directory to policies or findings.

mod config;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use similar::get_close_matches;

use super::effective::{Layer, Layers, built_in};
use super::finding::{Code, Finding, Place, SourceFile};
use super::meaning::Meaning;
use super::meant::{Config, Policies, Policy};
use super::schema::Checked;
use super::select::Patterns;
use super::written::PatchSpec;
use super::yaml::{self, Node};
use super::{EngineKind, lint};
use crate::name;
use schemas::Schemas;

/// What came of reading policies.
#[derive(Debug)]
pub struct Loaded {
    /// The policies, unless a finding is an error.
    pub policies: Option<Policies>,
    /// Everything that was found, in order of file and position.
    pub findings: Vec<Finding>,
}

/// How policies are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading<'a> {
    /// The environment whose overlay holds.
    pub environment: Option<&'a str>,
    /// Whether some files could not be read: what they hold is not known to be missing.
    pub unreadable: bool,
    /// Whether each value of a policy is told with where it comes from.
    pub origins: bool,
}

/// A document that was read and held against its schema.
struct Document {
    file: Arc<SourceFile>,
    node: Node,
    json: Value,
    damaged: BTreeSet<String>,
}

impl Document {
    fn layer<'a>(&'a self, prefix: &'a str, nothing: &'a Value) -> Layer<'a> {
        let json = self.json.pointer(prefix).unwrap_or(nothing);
        Layer { json, document: &self.node, prefix, file: &self.file }
    }

    /// The place of the whole document, for people: its `kind` line.
    fn place(&self) -> Place {
        let span =
            self.node.entry("kind").map_or(self.node.span.start..self.node.span.start, |entry| {
                entry.key_span.start..entry.value.span.end
            });
        Place { file: Arc::clone(&self.file), span }
    }

    fn name(&self) -> &str {
        self.json.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }
}

/// The documents of all files, by their kind.
#[derive(Default)]
struct Documents {
    configs: Vec<Document>,
    policies: Vec<Document>,
    overlays: Vec<Document>,
}

/// What an overlay says about some policies.
struct Patch {
    names: Patterns,
    /// Where in the overlay it stands.
    prefix: String,
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
    let mut loader =
        Loader { kinds, origins: reading.origins, findings: Vec::new(), built_in: BTreeMap::new() };
    let again = files.clone();
    let documents = loader.read(files);
    let nothing = json!({});
    let overlay = loader.overlay(&documents, reading.environment);
    let patches = overlay.map(|overlay| loader.patches(overlay)).unwrap_or_default();
    let config_document = loader.only_config(&documents.configs);
    let overlaid = overlay.filter(|overlay| overlay.json.pointer("/spec/config").is_some());
    let mut config = config_document.and_then(|document| {
        let over = overlaid.map(|overlay| overlay.layer("/spec/config", &nothing));
        loader.config(document, over, reading.environment)
    });
    let defaults: Vec<Layer<'_>> = overlaid
        .map(|overlay| overlay.layer("/spec/config/defaults", &nothing))
        .into_iter()
        .chain(config_document.map(|document| document.layer("/spec/defaults", &nothing)))
        .collect();
    let mut meant: Vec<Policy> = Vec::new();
    let mut digests = Map::new();
    let mut first_places: BTreeMap<name::PolicyName, Place> = BTreeMap::new();
    for document in &documents.policies {
        let over: Vec<Layer<'_>> = patches
            .iter()
            .rev()
            .filter(|patch| patch.names.matches(document.name()))
            .filter_map(|patch| Some(overlay?.layer(&patch.prefix, &nothing)))
            .collect();
        let known = config.as_ref().map(|config| &config.config);
        let layer = document.layer("/spec", &nothing);
        let Some((policy, effective)) = loader.policy(document, layer, over, &defaults, known)
        else {
            continue;
        };
        if let Some(first) = first_places.get(&policy.name) {
            loader.findings.push(
                Finding::new(
                    Code::DuplicatePolicy,
                    policy.place.clone(),
                    format!("there are two policies named `{}`", policy.name),
                )
                .related(first.clone(), "the first one"),
            );
            continue;
        }
        first_places.insert(policy.name.clone(), policy.place.clone());
        digests.insert(policy.name.to_string(), effective);
        meant.push(policy);
    }
    loader.check_whole(&documents, overlay, &patches, reading.unreadable);
    meant.sort_by(|one, other| one.name.cmp(&other.name));
    let names: BTreeSet<&str> = documents.policies.iter().map(Document::name).collect();
    if let Some(config) = &mut config {
        loader.findings.extend(config.check_names(&names));
    }
    let mut findings = loader.findings;
    if config_document.is_none() {
        // The defaults are not known, so nobody can say what is inherited.
        findings.retain(|finding| finding.code != Code::KeepsEverything);
    }
    let policies = config.map(|config| {
        let digest = digest(&config, digests);
        config.policies(meant, digest)
    });
    if let Some(policies) = policies.as_ref().filter(|_| !reading.origins)
        && lint::needs_origins(policies, &findings)
    {
        return load_with(again, kinds, Reading { origins: true, ..reading });
    }
    ended(policies, findings)
}

/// What came of it all, with what can be said of the policies as a whole.
fn ended(policies: Option<Policies>, mut findings: Vec<Finding>) -> Loaded {
    if let Some(policies) = &policies {
        findings = lint::with_lint(policies, findings);
    }
    findings.sort_by(|one, other| one.sort_key().cmp(&other.sort_key()));
    findings.dedup();
    let has_error = findings.iter().any(Finding::is_error);
    Loaded { policies: policies.filter(|_| !has_error), findings }
}

/// A SHA-256 over what the policies mean, as hex.
fn digest(config: &config::Configured, policies: Map<String, Value>) -> String {
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
    data_encoding::HEXLOWER.encode(&Sha256::digest(serde_json::to_vec(&value).unwrap_or_default()))
}

struct Loader<'a> {
    kinds: &'a [EngineKind],
    origins: bool,
    findings: Vec<Finding>,
    /// What is built in, for each engine.
    built_in: BTreeMap<Option<String>, Value>,
}

impl Loader<'_> {
    /// Reads the text of all files into documents of all kinds, held against their schemas.
    fn read(&mut self, files: Vec<Arc<SourceFile>>) -> Documents {
        let mut documents = Documents::default();
        let mut schemas = Schemas { kinds: self.kinds, compiled: BTreeMap::new() };
        for file in files {
            let (nodes, findings) = yaml::read(&file);
            self.findings.extend(findings);
            for node in nodes {
                if node.is_null() {
                    continue;
                }
                let kind = node.get("kind").and_then(Node::as_text).map(str::to_owned);
                let list = match kind.as_deref() {
                    Some("BackupPolicy") => &mut documents.policies,
                    Some("Config") => &mut documents.configs,
                    Some("Overlay") => &mut documents.overlays,
                    _ => {
                        self.findings.push(unknown_kind(&node, &file));
                        continue;
                    }
                };
                match schemas.of(kind.as_deref().unwrap_or_default()) {
                    Ok(schema) => {
                        let Checked { findings, json, damaged } = schema.check(&node, &file);
                        self.findings.extend(findings);
                        list.push(Document { file: Arc::clone(&file), node, json, damaged });
                    }
                    // The schemas are part of the program and compiled by its tests.
                    Err(error) => {
                        self.findings.push(Finding::nowhere(Code::SyntaxError, error));
                        return documents;
                    }
                }
            }
        }
        documents
    }

    /// The overlay of the environment.
    fn overlay<'d>(
        &mut self,
        documents: &'d Documents,
        environment: Option<&str>,
    ) -> Option<&'d Document> {
        let mut first: BTreeMap<&str, &Document> = BTreeMap::new();
        for overlay in &documents.overlays {
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
        documents: &Documents,
        overlay: Option<&Document>,
        patches: &[Patch],
        unreadable: bool,
    ) {
        let is_sound = !self.findings.iter().any(Finding::is_error) && !unreadable;
        if documents.policies.is_empty() && is_sound {
            let message = "there is no policy: nothing is protected";
            self.findings.push(Finding::nowhere(Code::NoPolicies, message));
        }
        let nothing = json!({});
        for patch in patches {
            let is_used = documents.policies.iter().any(|one| patch.names.matches(one.name()));
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

    /// A policy and the JSON of its meaning.
    fn policy(
        &mut self,
        document: &Document,
        layer: Layer<'_>,
        overlays: Vec<Layer<'_>>,
        defaults: &[Layer<'_>],
        config: Option<&Config>,
    ) -> Option<(Policy, Value)> {
        let layers: Vec<Layer<'_>> =
            overlays.iter().copied().chain([layer]).chain(defaults.iter().copied()).collect();
        let engine = self.engine_of(layer, &layers, config);
        let capabilities =
            engine.as_ref().and_then(|name| config?.engines.get(name)).map(|e| &e.capabilities);
        let built_in = self
            .built_in
            .entry(engine.clone())
            .or_insert_with(|| built_in(engine.as_deref(), capabilities));
        let layers = Layers::new(overlays, layer, defaults.to_vec(), built_in);
        let mut meaning = Meaning::new(&layers, &document.damaged, capabilities);
        let policy = meaning.policy(&document.json, document.place(), engine);
        for mut finding in meaning.into_findings() {
            finding.policy = name::PolicyName::parse(document.name()).ok();
            self.findings.push(finding);
        }
        policy.map(|mut policy| {
            if self.origins {
                policy.effective = layers.list();
            }
            (policy, layers.json)
        })
    }

    /// The engine of a policy: its own, the default, or the only one there is.
    fn engine_of(
        &mut self,
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
                self.findings.push(
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
                self.findings.push(
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
}

fn unknown_kind(node: &Node, file: &Arc<SourceFile>) -> Finding {
    const KINDS: [&str; 3] = ["BackupPolicy", "Config", "Overlay"];
    let place = |span| Place { file: Arc::clone(file), span };
    let Some(entry) = node.entry("kind") else {
        let end = node.span.end.min(node.span.start + 1);
        return Finding::new(
            Code::UnknownKind,
            place(node.span.start..end),
            "the document has no `kind`",
        )
        .hint("begin it with `apiVersion: stillframe/v1` and `kind: BackupPolicy`");
    };
    let word = entry.value.as_text().unwrap_or_default();
    if word == "PolicyTest" {
        let message = "a test among policies";
        return Finding::new(Code::UnknownKind, place(entry.value.span.clone()), message).hint(
            "tests stand in files named like `web.test.yaml`, and `stillframe test` reads them",
        );
    }
    let hint = match get_close_matches(word, &KINDS, 1, 0.5).first() {
        Some(close) => format!("did you mean `{close}`?"),
        None => "known are BackupPolicy, Config and Overlay".to_owned(),
    };
    Finding::new(
        Code::UnknownKind,
        place(entry.value.span.clone()),
        format!("stillframe knows no kind `{word}`"),
    )
    .hint(hint)
}
