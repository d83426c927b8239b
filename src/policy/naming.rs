//! Names and descriptions of images: handlebars templates that get data and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use handlebars::{Handlebars, RenderErrorReason, no_escape};
use jiff::fmt::strtime;
use serde_json::{Value, json};
use similar::get_close_matches;

use super::meant::Policy;
use crate::inventory::Instance;
use crate::name::{Key, Slot};
use crate::schedule::Zone;

/// The description where a policy gives none.
pub const DESCRIPTION_DEFAULT: &str = "{{policy.name}} of {{source.name}} at {{slot.local}}";
/// The beginning of the image name where a policy gives none.
pub const NAME_DEFAULT: &str = "{{policy.name}}-{{source.id}}";

const NAME: &str = "name";
const DESCRIPTION: &str = "description";
/// What templates may use, beside labels.
const KNOWN: [&str; 11] = [
    "policy.name",
    "policy.owner",
    "source.id",
    "source.name",
    "source.zone",
    "source.machineType",
    "engine.name",
    "slot.date",
    "slot.time",
    "slot.utc",
    "slot.local",
];
/// What names may use: only what never changes.
const KNOWN_IN_NAMES: [&str; 6] =
    ["policy.name", "source.id", "slot.date", "slot.time", "slot.utc", "slot.local"];
/// A template that asks for more labels than this is not one for a name.
const LABELS_MAX: usize = 64;

/// The templates of a policy, compiled.
#[derive(Clone)]
pub struct Naming {
    templates: Arc<Handlebars<'static>>,
}

impl fmt::Debug for Naming {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Naming")
    }
}

/// What is wrong with a template, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// The errors of both templates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamingErrors {
    /// Of the name.
    pub name: Option<TemplateError>,
    /// Of the description.
    pub description: Option<TemplateError>,
}

/// What holds where a policy says nothing: the same for most policies, so it is compiled once.
static DEFAULT: LazyLock<Result<Naming, NamingErrors>> =
    LazyLock::new(|| Naming::compile(NAME_DEFAULT, DESCRIPTION_DEFAULT));

impl Naming {
    /// Compiles both templates and tries them on sample data.
    pub fn new(name: &str, description: &str) -> Result<Self, NamingErrors> {
        match (name, description) {
            (NAME_DEFAULT, DESCRIPTION_DEFAULT) => DEFAULT.clone(),
            _ => Self::compile(name, description),
        }
    }

    fn compile(name: &str, description: &str) -> Result<Self, NamingErrors> {
        let mut templates = Handlebars::new();
        templates.set_strict_mode(true);
        templates.register_escape_fn(no_escape);
        // A template can write neither to the log nor anywhere else.
        templates.unregister_helper("log");
        let mut compile = |kind: &str, text: &str, sample: Value| -> Option<TemplateError> {
            if let Err(error) = templates.register_template_string(kind, text) {
                let message = format!("not a template: {}", error.reason());
                return Some(TemplateError { message, hint: None });
            }
            try_on(&templates, kind, sample).err()
        };
        let errors = NamingErrors {
            name: compile(NAME, name, sample_name()),
            description: compile(DESCRIPTION, description, sample_description()),
        };
        if errors == NamingErrors::default() {
            Ok(Self { templates: Arc::new(templates) })
        } else {
            Err(errors)
        }
    }

    /// The beginning of an image's name: a function of the key and the policy's zone alone.
    pub fn prefix(&self, key: &Key, zone: &Zone) -> String {
        self.templates.render(NAME, &name_data(key, zone)).unwrap_or_else(|_| key.default_prefix())
    }

    /// The description, at most `length_max` characters. A label that this source does not have is
    /// empty.
    pub fn description(
        &self,
        policy: &Policy,
        source: &Instance,
        slot: Slot,
        length_max: usize,
    ) -> String {
        let zone = &policy.schedule.zone;
        let mut data = description_data(policy, source, slot);
        let text = fill(&self.templates, DESCRIPTION, &mut data, "").unwrap_or_else(|_| {
            format!("{} of {} at {}", policy.name, source.name, local(slot, zone))
        });
        text.chars().take(length_max).collect()
    }
}

/// How many characters of a template stand there whatever is filled in.
pub fn fixed_length(template: &str) -> usize {
    let mut length = 0;
    let mut rest = template;
    while let Some(begin) = rest.find("{{") {
        length += rest[..begin].chars().count();
        rest = match rest[begin..].find("}}") {
            Some(end) => &rest[begin + end + 2..],
            None => "",
        };
    }
    // What stands inside of blocks may be left out, and nobody counts in comments.
    let is_plain = ["{{#", "{{^", "{{!", "{{{", "{{~", "~}}", "\\{{"]
        .iter()
        .all(|mark| !template.contains(mark));
    if is_plain { length + rest.chars().count() } else { 0 }
}

/// Renders with sample data: every label that the template asks for is there.
fn try_on(templates: &Handlebars<'_>, kind: &str, mut sample: Value) -> Result<(), TemplateError> {
    fill(templates, kind, &mut sample, "x").map(|_| ())
}

/// Renders. Labels are free, so those that the template asks for and that are not there are put in
/// with a value.
fn fill(
    templates: &Handlebars<'_>,
    kind: &str,
    sample: &mut Value,
    value: &str,
) -> Result<String, TemplateError> {
    for _ in 0..LABELS_MAX {
        let error = match templates.render(kind, &sample) {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        let path = match error.reason() {
            RenderErrorReason::MissingVariable(path) => path.clone().unwrap_or_default(),
            reason => {
                return Err(TemplateError {
                    message: format!("not a template: {reason}"),
                    hint: None,
                });
            }
        };
        if !add_label(sample, &path, value) {
            let known = if kind == NAME {
                "a name may use policy.name, source.id, slot.date, slot.time, slot.utc and slot.local: \
                 only what never changes, because it is part of the identity"
            } else {
                "a description may use policy.name, policy.owner, source.id, source.name, source.zone, \
                 source.machineType, source.labels.KEY, engine.name, slot.date, slot.time, slot.utc and slot.local"
            };
            let close = get_close_matches(
                path.as_str(),
                if kind == NAME { &KNOWN_IN_NAMES } else { &KNOWN },
                1,
                0.7,
            );
            let hint = match close.first() {
                Some(close) => format!("did you mean `{close}`?"),
                None => known.to_owned(),
            };
            return Err(TemplateError {
                message: format!("there is no `{path}` here"),
                hint: Some(hint),
            });
        }
    }
    Err(TemplateError { message: "the template asks for too many labels".to_owned(), hint: None })
}

/// Puts `source.labels.KEY` into the sample, where it has such labels.
fn add_label(sample: &mut Value, path: &str, value: &str) -> bool {
    let Some(key) = path.strip_prefix("source.labels.") else {
        return false;
    };
    let key = key.trim_start_matches('[').trim_end_matches(']');
    match sample.pointer_mut("/source/labels") {
        Some(Value::Object(labels)) => labels.insert(key.to_owned(), Value::from(value)).is_none(),
        _ => false,
    }
}

fn slot_data(slot: Slot, zone: &Zone) -> Value {
    let civil = zone.time_zone().to_datetime(slot.instant());
    json!({
        "utc": slot.instant().to_string(),
        "local": local(slot, zone),
        "date": civil.date().to_string(),
        "time": format!("{:02}:{:02}", civil.hour(), civil.minute()),
    })
}

/// `2026-11-21 02:00 America/New_York`.
fn local(slot: Slot, zone: &Zone) -> String {
    let civil = zone.time_zone().to_datetime(slot.instant());
    let time = strtime::format("%Y-%m-%d %H:%M", civil).unwrap_or_else(|_| civil.to_string());
    format!("{time} {}", zone.name())
}

fn name_data(key: &Key, zone: &Zone) -> Value {
    json!({
        "policy": {"name": key.policy},
        "source": {"id": key.source},
        "slot": slot_data(key.slot, zone),
    })
}

fn description_data(policy: &Policy, source: &Instance, slot: Slot) -> Value {
    json!({
        "policy": {"name": policy.name, "owner": policy.owner.clone().unwrap_or_default()},
        "source": {
            "id": source.id,
            "name": source.name,
            "zone": source.zone,
            "machineType": source.machine_type,
            "labels": source.labels,
        },
        "engine": {"name": policy.engine},
        "slot": slot_data(slot, &policy.schedule.zone),
    })
}

fn sample_name() -> Value {
    json!({
        "policy": {"name": "sample"},
        "source": {"id": "1"},
        "slot": slot_data(Slot::at(jiff::Timestamp::UNIX_EPOCH), &Zone::UTC),
    })
}

fn sample_description() -> Value {
    json!({
        "policy": {"name": "sample", "owner": "team"},
        "source": {
            "id": "1", "name": "sample", "zone": "zone", "machineType": "type",
            "labels": BTreeMap::<String, String>::new(),
        },
        "engine": {"name": "engine"},
        "slot": slot_data(Slot::at(jiff::Timestamp::UNIX_EPOCH), &Zone::UTC),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{PolicyName, SourceId};

    #[test]
    fn names_use_only_what_never_changes() {
        let key = Key {
            policy: PolicyName::parse("p").unwrap(),
            source: SourceId::parse("1").unwrap(),
            slot: Slot::at(jiff::Timestamp::UNIX_EPOCH),
        };
        let naming = Naming::new("img-{{source.id}}-{{slot.date}}", DESCRIPTION_DEFAULT).unwrap();
        assert_eq!(naming.prefix(&key, &Zone::UTC), "img-1-1970-01-01");
        let errors = Naming::new("{{source.name}}", DESCRIPTION_DEFAULT).unwrap_err();
        assert_eq!(errors.name.unwrap().message, "there is no `source.name` here");
        assert_eq!(errors.description, None);
    }

    #[test]
    fn what_is_filled_in_does_not_count() {
        for (template, length) in [
            ("", 0),
            ("äb {{policy.name}} c{{source.id}}", 5),
            ("a }} b", 6),
            ("ab{{policy.name", 2),
            ("{{#if source.labels.x}}many words{{/if}}", 0),
            ("{{{policy.name}}}", 0),
        ] {
            assert_eq!(fixed_length(template), length, "{template}");
        }
    }

    #[test]
    fn descriptions_may_use_any_label() {
        let text = "{{source.labels.env}} {{source.labels.[cost-center]}} {{#if source.labels.x}}{{source.labels.x}}{{/if}}";
        assert!(Naming::new(NAME_DEFAULT, text).is_ok());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in
            ["{{", "{{#if}}", "{{nothing}}", "{{log \"x\"}}", "{{> partial}}", "{{source.nme}}"]
        {
            assert!(Naming::new(NAME_DEFAULT, text).unwrap_err().description.is_some(), "{text}");
        }
    }
}
