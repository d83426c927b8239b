//! From the files of a policy directory to policies or findings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use similar::get_close_matches;

use super::effective::{Layer, Layers, built_in};
use super::finding::{Code, Finding, Place, SourceFile};
use super::meaning::Meaning;
use super::meant::{Config, EngineConfig, Guards, Policies, Policy};
use super::schema::{Checked, Schema};
use super::written::GuardsSpec;
use super::yaml::{self, Node};
use super::{EngineKind, config_schema, policy_schema};
use crate::name;

/// Where the ledger is kept, relative to the configuration file, unless it says otherwise.
const LEDGER_DEFAULT: &str = "../.stillframe/ledger.ndjson";

/// What came of reading policies.
#[derive(Debug)]
pub struct Loaded {
    /// The policies, unless a finding is an error.
    pub policies: Option<Policies>,
    /// Everything that was found, in order of file and position.
    pub findings: Vec<Finding>,
}

/// A document that was read and held against its schema.
struct Document {
    file: Arc<SourceFile>,
    node: Node,
    json: Value,
    damaged: BTreeSet<String>,
}

impl Document {
    fn layer<'a>(&'a self, prefix: &'static str, nothing: &'a Value) -> Layer<'a> {
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
}

/// Reads all files of a policy directory. `kinds` are the engines there are.
pub fn load(files: Vec<SourceFile>, kinds: &[EngineKind]) -> Loaded {
    load_some(files, kinds, false)
}

/// The same, where some files could not be read: what they hold is not known to be missing.
pub fn load_some(files: Vec<SourceFile>, kinds: &[EngineKind], unreadable: bool) -> Loaded {
    let mut loader = Loader { kinds, findings: Vec::new() };
    let (configs, policies) = loader.read(files);
    let nothing = json!({});
    let config_document = loader.only_config(&configs);
    let config = config_document.and_then(|document| loader.config(document));
    let defaults = config_document.map(|document| document.layer("/spec/defaults", &nothing));
    let mut meant: Vec<Policy> = Vec::new();
    let mut digests = BTreeMap::new();
    let mut first_places: BTreeMap<name::PolicyName, Place> = BTreeMap::new();
    for document in &policies {
        let layer = document.layer("/spec", &nothing);
        let Some((policy, effective)) = loader.policy(document, layer, defaults, config.as_ref())
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
    if policies.is_empty() && !loader.findings.iter().any(Finding::is_error) && !unreadable {
        loader
            .findings
            .push(Finding::nowhere(Code::NoPolicies, "there is no policy: nothing is protected"));
    }
    let mut findings = loader.findings;
    if config_document.is_none() {
        // The defaults are not known, so nobody can say what is inherited.
        findings.retain(|finding| finding.code != Code::KeepsEverything);
    }
    findings.sort_by(|one, other| one.sort_key().cmp(&other.sort_key()));
    findings.dedup();
    if findings.iter().any(Finding::is_error) {
        return Loaded { policies: None, findings };
    }
    meant.sort_by(|one, other| one.name.cmp(&other.name));
    let policies = config.map(|config| {
        let digest = digest(&config, &digests);
        Policies { config, policies: meant, digest }
    });
    Loaded { policies, findings }
}

/// A SHA-256 over what the policies mean, as hex.
fn digest(config: &Config, policies: &BTreeMap<String, Value>) -> String {
    let engines: BTreeMap<&String, &String> =
        config.engines.iter().map(|(name, engine)| (name, &engine.kind)).collect();
    let text =
        json!({"engines": engines, "guards": config.guards, "policies": policies}).to_string();
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

struct Loader<'a> {
    kinds: &'a [EngineKind],
    findings: Vec<Finding>,
}

impl Loader<'_> {
    /// Reads the text of all files into documents of both kinds, held against their schemas.
    fn read(&mut self, files: Vec<SourceFile>) -> (Vec<Document>, Vec<Document>) {
        let compile = |json: Value| Schema::compile(json);
        let schemas = (compile(policy_schema()), compile(config_schema(self.kinds)));
        let (mut configs, mut policies) = (Vec::new(), Vec::new());
        let (policy_schema, config_schema) = match schemas {
            (Ok(policy), Ok(config)) => (policy, config),
            (Err(error), _) | (_, Err(error)) => {
                // The schemas are part of the program and compiled by its tests.
                self.findings.push(Finding::nowhere(Code::SyntaxError, error));
                return (configs, policies);
            }
        };
        for file in files {
            let file = Arc::new(file);
            let (nodes, findings) = yaml::read(&file);
            self.findings.extend(findings);
            for node in nodes {
                let is_blank = node.to_json().is_null();
                match node.get("kind").and_then(Node::as_text) {
                    _ if is_blank => {}
                    Some("BackupPolicy") => policies.push(self.check(&policy_schema, node, &file)),
                    Some("Config") => configs.push(self.check(&config_schema, node, &file)),
                    _ => self.findings.push(unknown_kind(&node, &file)),
                }
            }
        }
        (configs, policies)
    }

    fn check(&mut self, schema: &Schema, node: Node, file: &Arc<SourceFile>) -> Document {
        let Checked { findings, json, damaged } = schema.check(&node, file);
        self.findings.extend(findings);
        Document { file: Arc::clone(file), node, json, damaged }
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

    fn config(&mut self, document: &Document) -> Option<Config> {
        let spec = document.json.get("spec")?;
        let layer =
            Layer { json: spec, document: &document.node, prefix: "/spec", file: &document.file };
        let mut engines = BTreeMap::new();
        for (engine, kinds) in spec.get("engines").and_then(Value::as_object).into_iter().flatten()
        {
            if !name::is_rfc1035_label(engine) {
                let place = layer.place(&format!("/engines/{}", yaml::escape(engine)));
                self.findings.push(
                    Finding::new(
                        Code::BadName,
                        place,
                        format!("`{engine}` is not a name for an engine"),
                    )
                    .hint("1 to 63 of a-z, 0-9 and `-`, beginning with a letter"),
                );
            }
            let Some((kind, settings)) = kinds.as_object().and_then(|kinds| kinds.iter().next())
            else {
                continue;
            };
            let Some(known) = self.kinds.iter().find(|known| known.name == kind) else {
                continue;
            };
            let capabilities = (known.capabilities)(settings);
            engines.insert(
                engine.clone(),
                EngineConfig { kind: kind.clone(), settings: settings.clone(), capabilities },
            );
        }
        let guards = spec.get("guards").cloned().unwrap_or_else(|| json!({}));
        let guards: GuardsSpec = serde_json::from_value(guards).unwrap_or_default();
        let standard = Guards::default();
        Some(Config {
            engines,
            guards: Guards {
                series_percent: guards.series_percent.unwrap_or(standard.series_percent),
                engine_percent: guards.engine_percent.unwrap_or(standard.engine_percent),
                engine_count: guards.engine_count.unwrap_or(standard.engine_count),
                refuse: guards.refuse.unwrap_or(standard.refuse),
            },
            ledger: spec.get("ledger").and_then(Value::as_str).unwrap_or(LEDGER_DEFAULT).to_owned(),
            file: document.file.path.clone(),
        })
    }

    /// A policy and the JSON of its meaning.
    fn policy(
        &mut self,
        document: &Document,
        layer: Layer<'_>,
        defaults: Option<Layer<'_>>,
        config: Option<&Config>,
    ) -> Option<(Policy, Value)> {
        let engine = self.engine_of(layer, defaults, config);
        let capabilities =
            engine.as_ref().and_then(|name| config?.engines.get(name)).map(|e| &e.capabilities);
        let layers = Layers::new(layer, defaults, &built_in(engine.as_deref(), capabilities));
        let mut meaning = Meaning::new(&layers, &document.damaged, capabilities);
        let policy = meaning.policy(&document.json, document.place(), engine);
        self.findings.extend(meaning.into_findings());
        policy.map(|policy| (policy, layers.json))
    }

    /// The engine of a policy: its own, the default, or the only one there is.
    fn engine_of(
        &mut self,
        layer: Layer<'_>,
        defaults: Option<Layer<'_>>,
        config: Option<&Config>,
    ) -> Option<String> {
        let engines = &config?.engines;
        let written = [Some(layer), defaults].into_iter().flatten().find_map(|layer| {
            layer.json.get("engine").and_then(Value::as_str).map(|name| (name, layer))
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
    const KINDS: [&str; 2] = ["BackupPolicy", "Config"];
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
    let hint = match get_close_matches(word, &KINDS, 1, 0.5).first() {
        Some(close) => format!("did you mean `{close}`?"),
        None => "known are BackupPolicy and Config".to_owned(),
    };
    Finding::new(
        Code::UnknownKind,
        place(entry.value.span.clone()),
        format!("stillframe knows no kind `{word}`"),
    )
    .hint(hint)
}
