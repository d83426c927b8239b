//! The engines of a configuration, and what is wrong with their settings.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use similar::get_close_matches;

use super::{Loader, given_endpoint};
use crate::name;
use crate::policy::effective::Layers;
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::EngineConfig;
use crate::policy::yaml::{escape, unescape};
use crate::policy::{BadSetting, EngineKind};

impl Loader<'_> {
    /// `unread` are pointers to what the schema has found wrong, in the document and in the overlay.
    pub(super) fn engines(
        &mut self,
        layers: &Layers<'_>,
        unread: &[&str],
    ) -> BTreeMap<String, EngineConfig> {
        let mut engines = BTreeMap::new();
        let written = layers.json.get("engines").and_then(Value::as_object);
        for (engine, kinds) in written.into_iter().flatten() {
            if !name::is_rfc1035_label(engine) {
                let place = layers.place(&format!("/engines/{}", escape(engine)));
                let message = format!("`{engine}` is not a name for an engine");
                self.findings.push(
                    Finding::new(Code::BadName, place, message)
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
            let at = format!("/engines/{}/{}", escape(engine), escape(kind));
            let opened = with_endpoint(engine, settings, known, self.endpoints);
            let unread: Vec<&str> =
                unread.iter().filter_map(|pointer| pointer.strip_prefix(&at)).collect();
            for bad in bad_settings(known, settings, &opened, &unread) {
                let place = layers.place(&written_at(&layers.json, &at, &bad));
                self.findings.push(Finding::new(Code::BadSettings, place, bad.message));
            }
            let capabilities = (known.capabilities)(&opened);
            self.claimed_once(engine, &capabilities, &engines, layers);
            engines.insert(
                engine.clone(),
                EngineConfig { kind: kind.clone(), settings: settings.clone(), capabilities },
            );
        }
        engines
    }
}

/// What is wrong with settings, in whatever way they are used. What is wrong with an endpoint that is
/// given is no mistake of the files, and what is wrong with the one that it replaces costs nothing.
fn bad_settings(
    kind: &EngineKind,
    written: &Value,
    opened: &Value,
    unread: &[&str],
) -> Vec<BadSetting> {
    let mut found = (kind.check)(&completed(kind, written));
    let as_opened = (kind.check)(&completed(kind, opened));
    found.retain(|bad| as_opened.iter().any(|other| other.about == bad.about));
    // Where something could not be read, nobody knows that it is missing.
    let is_unread = |about: &String| written.pointer(about).is_none() && is_among(about, unread);
    found.retain(|bad| !bad.about.iter().any(is_unread));
    found
}

/// Settings in which nothing is missing that must be there, which the schema says. The rest can be
/// judged all the same.
fn completed(kind: &EngineKind, settings: &Value) -> Value {
    let mut settings = settings.clone();
    let required = kind.settings_schema["required"].as_array();
    let required = required.into_iter().flatten().filter_map(Value::as_str);
    if let Some(fields) = settings.as_object_mut() {
        for key in required {
            let is_list = kind.settings_schema["properties"][key]["type"] == "array";
            let nothing = if is_list { json!([]) } else { json!("") };
            fields.entry(key).or_insert(nothing);
        }
    }
    settings
}

/// Whether a value, or one that it is in, is among those that could not be read, or is misspelt there.
fn is_among(about: &str, unread: &[&str]) -> bool {
    let (parent, key) = about.rsplit_once('/').unwrap_or_default();
    unread.iter().any(|one| {
        let is_part =
            about.strip_prefix(one).is_some_and(|rest| matches!(rest.get(..1), None | Some("/")));
        let (its_parent, its_key) = one.rsplit_once('/').unwrap_or_default();
        let is_close = || !get_close_matches(&*unescape(its_key), &[key], 1, 0.7).is_empty();
        is_part || (its_parent == parent && is_close())
    })
}

/// Where something wrong stands: what it is about, or the innermost mapping that would hold it.
fn written_at(json: &Value, settings: &str, bad: &BadSetting) -> String {
    let first = bad.about.first().map_or("", String::as_str);
    let mut pointer = format!("{settings}{first}");
    while json.pointer(&pointer).is_none() {
        let Some(slash) = pointer.rfind('/') else { break };
        pointer.truncate(slash);
    }
    pointer
}

/// Settings as the engine is opened with them: with the endpoint that it is given instead.
fn with_endpoint(engine: &str, settings: &Value, kind: &EngineKind, given: &[String]) -> Value {
    let mut settings = settings.clone();
    let is_its = |name: Option<&str>| name.is_none_or(|name| name == engine);
    let its = given.iter().map(|text| given_endpoint(text)).rfind(|(name, _)| is_its(*name));
    if let (Some((_, url)), true, Some(fields)) =
        (its, kind.has_endpoint(), settings.as_object_mut())
    {
        fields.insert("endpoint".to_owned(), url.into());
    }
    settings
}

/// An engine has one kind: where an overlay has another, the one of the file gives way.
pub(super) fn one_kind_each(json: &mut Value, overlay: Option<&Value>) {
    let over = overlay.and_then(|overlay| overlay.get("engines")?.as_object());
    for (engine, kinds) in over.into_iter().flatten() {
        let kept = kinds.as_object().and_then(|kinds| kinds.keys().next());
        let merged = json.pointer_mut(&format!("/engines/{}", escape(engine)));
        if let (Some(kept), Some(Value::Object(merged))) = (kept, merged) {
            merged.retain(|kind, _| kind == kept);
        }
    }
}
