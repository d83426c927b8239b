//! Instance templates and resource policies: what people have described in files beside their instances.
//!
//! They are shown and nothing is made of them here. What they say of a machine or a schedule is in the
//! words of the API and is given back as it was written. One file that cannot be read hides all of
//! them: a list that is cut short would say that nothing needs an image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::link::{Links, Scope};
use super::object::Object;
use super::page;
use super::request::Request;
use crate::name::is_rfc1035_label;
use crate::policy::finding::{Code, Finding, Place, SourceFile};
use crate::policy::schema::{Schema, simplify};
use crate::policy::written::ApiVersion;
use crate::policy::yaml;
use crate::serve::stock::number_of;

/// The directory beside the one with the instance files.
const DIRECTORY: &str = "compute-engine";
/// What names an image, a family or a snapshot within the disks of a template.
const SOURCES: [&str; 2] = ["sourceImage", "sourceSnapshot"];

/// What a document describes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ResourceKind {
    /// What instances are made from.
    InstanceTemplate,
    /// A schedule, a placement or another policy of resources.
    ResourcePolicy,
}

impl ResourceKind {
    /// What one of them is called in `kind`.
    fn word(self) -> &'static str {
        match self {
            Self::InstanceTemplate => "instanceTemplate",
            Self::ResourcePolicy => "resourcePolicy",
        }
    }
}

/// A resource of Compute Engine that `serve --dialect gce` lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceDocument {
    /// Always `stillframe/v1`.
    pub api_version: ApiVersion,
    /// What it is.
    pub kind: ResourceKind,
    /// Which one it is.
    pub metadata: ResourceMetadata,
    /// What it says.
    pub spec: ResourceSpec,
}

/// Which resource it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceMetadata {
    /// Its name.
    pub name: String,
}

/// What a resource says. The names are those of the Compute Engine API.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ResourceSpec {
    /// The region that it is in. A template without one is global; a resource policy needs one.
    pub region: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Of a template: what instances of it are like (`InstanceProperties` of the API).
    pub properties: Option<BTreeMap<String, Value>>,
    /// Of a resource policy: when snapshots are made, and how long they are kept.
    pub snapshot_schedule_policy: Option<BTreeMap<String, Value>>,
    /// Of a resource policy: when instances are started and stopped.
    pub instance_schedule_policy: Option<BTreeMap<String, Value>>,
    /// Of a resource policy: where instances are put.
    pub group_placement_policy: Option<BTreeMap<String, Value>>,
    /// Of a resource policy: which disks belong together.
    pub disk_consistency_group_policy: Option<BTreeMap<String, Value>>,
    /// Of a resource policy: what is run.
    pub workload_policy: Option<BTreeMap<String, Value>>,
}

impl ResourceSpec {
    fn policies(&self) -> [(&'static str, &Option<BTreeMap<String, Value>>); 5] {
        [
            ("snapshotSchedulePolicy", &self.snapshot_schedule_policy),
            ("instanceSchedulePolicy", &self.instance_schedule_policy),
            ("groupPlacementPolicy", &self.group_placement_policy),
            ("diskConsistencyGroupPolicy", &self.disk_consistency_group_policy),
            ("workloadPolicy", &self.workload_policy),
        ]
    }

    /// What is wrong that the schema does not say.
    fn mistake(&self, kind: ResourceKind) -> Option<&'static str> {
        let policies = self.policies().iter().filter(|(_, policy)| policy.is_some()).count();
        match kind {
            ResourceKind::InstanceTemplate if self.properties.is_none() => {
                Some("a template needs `properties`")
            }
            ResourceKind::InstanceTemplate if policies > 0 => {
                Some("a template has `properties` and no policy")
            }
            ResourceKind::ResourcePolicy if self.region.is_none() => {
                Some("a resource policy needs a `region`")
            }
            ResourceKind::ResourcePolicy if policies != 1 || self.properties.is_some() => {
                Some("a resource policy has one policy: `snapshotSchedulePolicy` or another one")
            }
            _ => None,
        }
    }
}

/// The JSON Schema of these documents.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(ResourceDocument).to_value();
    simplify(&mut schema);
    schema
}

/// A resource that was read.
struct Described {
    document: ResourceDocument,
    /// When its file was written.
    written: Option<Timestamp>,
}

impl Described {
    fn scope(&self) -> Scope {
        self.document.spec.region.as_deref().map_or(Scope::Global, Scope::region)
    }

    fn number(&self) -> String {
        let ResourceDocument { kind, metadata, spec, .. } = &self.document;
        let region = spec.region.as_deref().unwrap_or_default();
        number_of(&format!("{} {region}/{}", kind.word(), metadata.name))
    }

    /// As the API shows it.
    fn json(&self, links: &Links, collection: &str) -> Value {
        let ResourceDocument { kind, metadata, spec, .. } = &self.document;
        let mut shown = Object::default();
        shown.set("kind", &format!("compute#{}", kind.word()));
        shown.set("id", &self.number());
        shown.set("creationTimestamp", &self.written.map(|time| time.to_string()));
        shown.set("name", &metadata.name);
        shown.set("description", &spec.description);
        shown.set("region", &spec.region.as_deref().map(|region| links.region(region)));
        let properties = spec.properties.as_ref().map(|properties| {
            let mut properties: Map<String, Value> = properties.clone().into_iter().collect();
            name_sources(&mut properties, links);
            properties
        });
        shown.set("properties", &properties);
        for (field, policy) in spec.policies() {
            if let Some(policy) = policy {
                // One that says nothing more is one all the same.
                shown.0.insert(field.to_owned(), json!(policy));
            }
        }
        if *kind == ResourceKind::ResourcePolicy {
            shown.set("status", &"READY");
        }
        shown.set("selfLink", &links.link(&self.scope(), collection, &metadata.name));
        shown.json()
    }
}

/// The service gives whole links, whatever was written.
fn name_sources(properties: &mut Map<String, Value>, links: &Links) {
    let disks = properties.get_mut("disks").and_then(Value::as_array_mut);
    for disk in disks.into_iter().flatten() {
        let Some(made_of) = disk.get_mut("initializeParams").and_then(Value::as_object_mut) else {
            continue;
        };
        for field in SOURCES {
            if let Some(Value::String(text)) = made_of.get_mut(field) {
                *text = links.whole(text);
            }
        }
    }
}

/// Reads all files of a directory, which need not be there. The first mistake is the error.
fn read_directory(directory: &Path) -> Result<Vec<Described>, String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    // A link that leads nowhere is no directory that is not there.
    match std::fs::symlink_metadata(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory, error)),
        Ok(_) => {}
    }
    let files = crate::files::yaml_files(directory).map_err(|error| failed(directory, error))?;
    let schema = Schema::compile(schema())?;
    let mut all: Vec<Described> = Vec::new();
    let mut known = BTreeSet::new();
    for path in files {
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        let written = written.and_then(|time| Timestamp::try_from(time).ok());
        let file = Arc::new(SourceFile { path: path.display().to_string(), text });
        for (place, document) in read(&file, &schema)? {
            let region = document.spec.region.clone();
            if !known.insert((document.kind, region, document.metadata.name.clone())) {
                return Err(format!("{place}: `{}` is described twice", document.metadata.name));
            }
            all.push(Described { document, written });
        }
    }
    Ok(all)
}

/// The documents of a file, each with its place.
fn read(file: &Arc<SourceFile>, schema: &Schema) -> Result<Vec<(Place, ResourceDocument)>, String> {
    let told = |finding: &Finding| {
        let place = finding.place.as_ref().map(Place::to_string).unwrap_or_default();
        let hint = finding.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{place}: {}{hint}", finding.message)
    };
    let (documents, findings) = yaml::read(file);
    if let Some(finding) = findings.first() {
        return Err(told(finding));
    }
    let mut read = Vec::new();
    for node in documents.iter().filter(|node| !node.to_json().is_null()) {
        let checked = schema.check(node, file);
        if let Some(finding) = checked.findings.iter().find(|finding| finding.is_error()) {
            return Err(told(finding));
        }
        let place = Place { file: Arc::clone(file), span: node.span.clone() };
        let wrong = |code, message: String| told(&Finding::new(code, place.clone(), message));
        let document: ResourceDocument = serde_json::from_value(checked.json)
            .map_err(|error| wrong(Code::WrongType, error.to_string()))?;
        let names = [Some(&document.metadata.name), document.spec.region.as_ref()];
        if let Some(name) = names.into_iter().flatten().find(|name| !is_rfc1035_label(name)) {
            let message = format!(
                "`{name}` is not a name: 1 to 63 of a-z, 0-9 and `-`, a letter first and no `-` last"
            );
            return Err(wrong(Code::BadName, message));
        }
        if let Some(mistake) = document.spec.mistake(document.kind) {
            return Err(wrong(Code::MissingKey, mistake.to_owned()));
        }
        read.push((place, document));
    }
    Ok(read)
}

impl Inner {
    /// What people have described beside their instances.
    async fn described(&self) -> Result<Vec<Described>, Refusal> {
        let beside = self.engine.instance_files().parent().unwrap_or(Path::new("")).join(DIRECTORY);
        let read = self.engine.on_a_thread(move |_| Ok(read_directory(&beside))).await?;
        read.map_err(Refusal::unseen)
    }

    /// The regions that people have described something in.
    pub(super) async fn described_regions(&self) -> Result<BTreeSet<String>, Refusal> {
        let all = self.described().await?;
        Ok(all.into_iter().filter_map(|one| one.document.spec.region).collect())
    }

    /// Answers a request for what people have described beside their instances.
    pub(super) async fn answer_described(&self, request: &Request, kind: ResourceKind) -> Answer {
        let links = &self.links;
        let mut all = self.described().await?;
        all.retain(|one| one.document.kind == kind);
        let collection = &request.collection;
        match request.parts() {
            ("GET", None, None) if request.scope == Scope::Aggregated => {
                let items = all.iter().map(|one| (one.scope(), one.json(links, collection)));
                page::aggregated(request, links, kind.word(), items.collect())
            }
            ("GET", None, None) => {
                let here = all.iter().filter(|one| one.scope() == request.scope);
                let shown = here.map(|one| one.json(links, collection)).collect();
                page::list(request, links, kind.word(), shown)
            }
            ("GET", Some(name), None) => {
                let is_it = |one: &&Described| {
                    one.scope() == request.scope
                        && (one.document.metadata.name == name || one.number() == name)
                };
                let found = all.iter().find(is_it);
                let found = found.map(|one| one.json(links, collection));
                found.ok_or_else(|| {
                    Refusal::not_found(&links.path(&request.scope, collection, name))
                })
            }
            _ => Err(request.not_done()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("all.yaml"), text).unwrap();
        read_directory(directory.path()).err().unwrap_or_default()
    }

    fn document(kind: &str, spec: &str) -> String {
        format!(
            "apiVersion: stillframe/v1\nkind: {kind}\nmetadata: {{name: one}}\nspec: {{{spec}}}\n"
        )
    }

    #[test]
    fn what_is_wrong_is_said_at_its_place() {
        let template = document("InstanceTemplate", "properties: {machineType: small}");
        assert_eq!(mistake(&template), "");
        let policy = "region: hall, diskConsistencyGroupPolicy: {}";
        assert_eq!(mistake(&document("ResourcePolicy", policy)), "");
        for (text, says) in [
            (document("InstanceTemplate", ""), "all.yaml:1:1: a template needs `properties`"),
            (document("InstanceTemplate", &format!("properties: {{}}, {policy}")), "no policy"),
            (document("ResourcePolicy", "snapshotSchedulePolicy: {}"), "needs a `region`"),
            (document("ResourcePolicy", "region: hall"), "has one policy"),
            (
                document("ResourcePolicy", &format!("{policy}, workloadPolicy: {{}}")),
                "has one policy",
            ),
            (document("ResourcePolicy", &policy.replace("hall", "Hall")), "`Hall` is not a name"),
            (document("InstanceTemplate", "propertys: {}"), "propertys"),
            (document("Template", "properties: {}"), "Template"),
            (format!("{template}---\n{template}"), "all.yaml:6:1: `one` is described twice"),
        ] {
            let said = mistake(&text);
            assert!(said.contains(says) && said.contains("all.yaml:"), "{says}: {said}");
        }
        assert_eq!(read_directory(Path::new("/nowhere/at/all")).map(|all| all.len()), Ok(0));
    }
}
