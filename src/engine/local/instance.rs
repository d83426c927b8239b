//! Instance files: the machines of an embedded engine, described by hand or by another tool.
//!
//! One file per machine, or several documents in one file, with what a machine image records of an
//! instance. A mistake in a file is a gap in the inventory, shown as a policy's mistakes are.

mod network;
mod scheduling;
mod spec;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

pub use network::*;
pub use scheduling::*;
pub use spec::*;

use crate::files::{Found, Stray, joined};
use crate::inventory::{Gap, GapScope};
use crate::name::{self, SourceId};
use crate::policy::finding::{Code, Finding, Place, SourceFile};
use crate::policy::schema::{Schema, simplify};
use crate::policy::yaml;

/// A machine that was read, and the file it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalInstance {
    /// Its id.
    pub id: SourceId,
    /// Its description.
    pub document: InstanceDocument,
    /// The directory that disk paths are relative to.
    pub directory: PathBuf,
    /// The file it was read from; empty where it was read from none.
    pub file: PathBuf,
}

impl LocalInstance {
    /// The path of a disk.
    pub fn disk_path(&self, disk: &DiskSpec) -> PathBuf {
        joined(&self.directory, &disk.path)
    }
}

/// The JSON Schema of instance documents.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(InstanceDocument).to_value();
    simplify(&mut schema);
    schema
}

/// Reads all instance files of a directory. What cannot be read is a gap.
pub fn read_directory(directory: &Path) -> (Vec<LocalInstance>, Vec<Gap>) {
    let mut reader = Reader { instances: Vec::new(), places: Vec::new(), gaps: Vec::new() };
    let Found { files, strays, .. } = match crate::files::find_yaml(directory) {
        Ok(found) => found,
        Err(error) => {
            reader.gap(directory.display().to_string(), error.to_string());
            return (reader.instances, reader.gaps);
        }
    };
    for Stray { path, why } in strays {
        reader.gap(path.display().to_string(), why);
    }
    if files.is_empty() {
        let message = "there is no instance file: is its disk mounted?".to_owned();
        reader.gap(directory.display().to_string(), message);
    }
    match Schema::compile(schema()) {
        Ok(schema) => files.into_iter().for_each(|file| reader.read_file(&file, &schema)),
        Err(error) => reader.gap("the schema of instances".to_owned(), error),
    }
    reader.without_doubles();
    reader.instances.sort_by(|one, other| one.id.cmp(&other.id));
    (reader.instances, reader.gaps)
}

/// Reads the text of an instance file; every mistake is in the error.
pub fn read_text(text: &str) -> Result<Vec<LocalInstance>, String> {
    let mut reader = Reader { instances: Vec::new(), places: Vec::new(), gaps: Vec::new() };
    let file = Arc::new(SourceFile { path: String::new(), text: text.to_owned() });
    reader.read_source(&file, Path::new(""), &Schema::compile(schema())?);
    if reader.gaps.is_empty() {
        return Ok(reader.instances);
    }
    let mistakes: Vec<&str> = reader.gaps.iter().map(|gap| gap.message.as_str()).collect();
    Err(mistakes.join("; "))
}

struct Reader {
    instances: Vec<LocalInstance>,
    /// Where each of them stands.
    places: Vec<String>,
    gaps: Vec<Gap>,
}

impl Reader {
    /// Of two machines with one name or id nobody knows which is meant: none of them counts.
    fn without_doubles(&mut self) {
        let is_double = |one: &LocalInstance, other: &LocalInstance| {
            one.id == other.id || one.document.metadata.name == other.document.metadata.name
        };
        let doubles: Vec<Option<usize>> = self
            .instances
            .iter()
            .enumerate()
            .map(|(index, one)| {
                self.instances
                    .iter()
                    .enumerate()
                    .position(|(position, other)| position != index && is_double(one, other))
            })
            .collect();
        let places = std::mem::take(&mut self.places);
        for (index, double) in doubles.iter().enumerate() {
            let Some(other) = double else { continue };
            let name = &self.instances[index].document.metadata.name;
            let message = format!(
                "the name or the id of `{name}` stands in {} as well: neither counts until one is changed",
                places[*other]
            );
            self.gap(places[index].clone(), message);
        }
        let mut doubles = doubles.iter();
        self.instances.retain(|_| doubles.next().is_some_and(Option::is_none));
    }

    fn gap(&mut self, place: String, message: String) {
        self.gaps.push(Gap { scope: GapScope::Instances, place, message });
    }

    fn find(&mut self, finding: &Finding) {
        let place = finding.place.as_ref().map(Place::to_string).unwrap_or_default();
        let hint = finding.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.gap(place, format!("{}{hint}", finding.message));
    }

    fn read_file(&mut self, path: &Path, schema: &Schema) {
        let file = match std::fs::read_to_string(path) {
            Ok(text) => Arc::new(SourceFile { path: path.display().to_string(), text }),
            Err(error) => return self.gap(path.display().to_string(), error.to_string()),
        };
        let directory = path.parent().unwrap_or(Path::new(""));
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        self.read_source(&file, &directory, schema);
    }

    fn read_source(&mut self, file: &Arc<SourceFile>, directory: &Path, schema: &Schema) {
        let (documents, findings) = yaml::read(file);
        for finding in &findings {
            self.find(finding);
        }
        if findings.is_empty() && documents.iter().all(|document| document.to_json().is_null()) {
            self.gap(
                file.path.clone(),
                "the file holds no instance; remove it, or put back what it held".to_owned(),
            );
        }
        for document in documents {
            if document.to_json().is_null() {
                continue;
            }
            let checked = schema.check(&document, file);
            checked.findings.iter().for_each(|finding| self.find(finding));
            if checked.findings.iter().any(Finding::is_error) {
                continue;
            }
            let at = |pointer: &str| {
                let span =
                    document.at(pointer).map_or(document.span.clone(), |node| node.span.clone());
                Place { file: Arc::clone(file), span }
            };
            match serde_json::from_value::<InstanceDocument>(checked.json) {
                Ok(instance) => self.add(instance, directory, &file.path, &at),
                Err(error) => self.find(&Finding::new(Code::WrongType, at(""), error.to_string())),
            }
        }
    }

    fn add(
        &mut self,
        document: InstanceDocument,
        directory: &Path,
        file: &str,
        at: &dyn Fn(&str) -> Place,
    ) {
        let metadata = &document.metadata;
        let mut mistakes = Vec::new();
        if !name::is_rfc1035_label(&metadata.name) {
            let message = format!(
                "`{}` is not a name for an instance: 1 to 63 of a-z, 0-9 and `-`",
                metadata.name
            );
            mistakes.push(Finding::new(Code::BadName, at("/metadata/name"), message));
        }
        let id = SourceId::parse(metadata.id.as_ref().unwrap_or(&metadata.name));
        if let Err(error) = &id {
            mistakes.push(Finding::new(Code::BadName, at("/metadata/id"), error.to_string()));
        }
        for (index, disk) in document.spec.disks.iter().enumerate() {
            if !name::is_rfc1035_label(&disk.device_name) {
                let place = at(&format!("/spec/disks/{index}/deviceName"));
                let message = format!(
                    "`{}` is not a device name: 1 to 63 of a-z, 0-9 and `-`",
                    disk.device_name
                );
                mistakes.push(Finding::new(Code::BadName, place, message));
            }
            if document.spec.disks[..index]
                .iter()
                .any(|other| other.device_name == disk.device_name)
            {
                let place = at(&format!("/spec/disks/{index}/deviceName"));
                let message = format!("two disks have the device name `{}`", disk.device_name);
                mistakes.push(Finding::new(Code::DuplicateKey, place, message));
            }
        }
        match id {
            Ok(id) if mistakes.is_empty() => {
                self.places.push(at("/metadata/name").to_string());
                self.instances.push(LocalInstance {
                    id,
                    document,
                    directory: directory.to_owned(),
                    file: PathBuf::from(file),
                });
            }
            _ => mistakes.iter().for_each(|mistake| self.find(mistake)),
        }
    }
}
