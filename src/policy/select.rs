//! Selection: which instances a policy means.

mod index;

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use super::finding::Place;
use super::written::{ConditionSpec, Texts};
use super::yaml::escape;
use crate::inventory::Instance;

pub use index::Index;

/// The characters that mean something in a glob.
const SPECIAL: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

/// A glob, or text that stands for itself.
#[derive(Debug, Clone)]
enum Pattern {
    Anything,
    Literal(String),
    /// Text and a single `*` behind it: most globs are this, and need no compiling.
    Beginning(String),
    Glob(GlobMatcher),
}

impl Pattern {
    fn new(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Anything);
        }
        if !text.contains(SPECIAL) {
            return Ok(Self::Literal(text.to_owned()));
        }
        if let Some(beginning) = text.strip_suffix('*').filter(|text| !text.contains(SPECIAL)) {
            return Ok(Self::Beginning(beginning.to_owned()));
        }
        match GlobBuilder::new(text).literal_separator(false).build() {
            Ok(glob) => Ok(Self::Glob(glob.compile_matcher())),
            Err(error) => Err(error.kind().to_string()),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Literal(literal) => literal == text,
            Self::Beginning(beginning) => text.starts_with(beginning),
            Self::Glob(glob) => glob.is_match(text),
        }
    }
}

impl fmt::Display for Pattern {
    /// As it was written.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anything => formatter.write_str("*"),
            Self::Literal(literal) => formatter.write_str(literal),
            Self::Beginning(beginning) => write!(formatter, "{beginning}*"),
            Self::Glob(glob) => formatter.write_str(glob.glob().glob()),
        }
    }
}

/// Patterns, any of which matches.
#[derive(Debug, Clone)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

impl Patterns {
    /// Compiles globs; on failure the position and the reason of each bad one.
    pub fn new(texts: &Texts) -> Result<Self, Vec<(usize, String)>> {
        let mut patterns = Vec::with_capacity(texts.0.len());
        let mut errors = Vec::new();
        for (position, text) in texts.0.iter().enumerate() {
            match Pattern::new(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(reason) => errors.push((position, reason)),
            }
        }
        if errors.is_empty() { Ok(Self { patterns }) } else { Err(errors) }
    }

    /// Whether any matches.
    pub fn matches(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(text))
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, pattern) in self.patterns.iter().enumerate() {
            let bar = if position == 0 { "" } else { "|" };
            write!(formatter, "{bar}{pattern}")?;
        }
        Ok(())
    }
}

/// A condition on instances: everything in it must hold.
#[derive(Debug, Clone)]
pub struct Condition {
    names: Option<Patterns>,
    labels: Vec<(String, Patterns)>,
    zones: Option<Patterns>,
    /// Where it is written, where that is known.
    pub place: Option<Place>,
}

/// What is wrong with a condition: the path within it, and why.
pub type ConditionError = (String, String);

impl Condition {
    /// Compiles a condition; on failure every mistake with its path.
    pub fn new(spec: &ConditionSpec) -> Result<Self, Vec<ConditionError>> {
        let mut errors = Vec::new();
        let mut compile = |texts: &Texts, path: &str| match Patterns::new(texts) {
            Ok(patterns) => Some(patterns),
            Err(mistakes) => {
                // One text stands alone, several stand in a list.
                let alone = texts.0.len() == 1;
                errors.extend(mistakes.into_iter().map(|(position, reason)| {
                    (if alone { path.to_owned() } else { format!("{path}/{position}") }, reason)
                }));
                None
            }
        };
        let names = spec.names.as_ref().and_then(|texts| compile(texts, "/names"));
        let zones = spec.zones.as_ref().and_then(|texts| compile(texts, "/zones"));
        let labels = spec
            .labels
            .iter()
            .flatten()
            .filter_map(|(key, texts)| {
                Some((key.clone(), compile(texts, &format!("/labels/{}", escape(key)))?))
            })
            .collect();
        if errors.is_empty() { Ok(Self { names, labels, zones, place: None }) } else { Err(errors) }
    }

    /// Whether nothing is asked for, which would match every instance.
    pub fn is_empty(spec: &ConditionSpec) -> bool {
        spec.names.is_none()
            && spec.zones.is_none()
            && spec.labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
    }

    /// Whether it asks for labels only.
    pub fn is_of_labels(&self) -> bool {
        self.names.is_none() && self.zones.is_none()
    }

    /// What does not hold of an instance, as people say it: `label env is test, not production`.
    pub fn misses(&self, instance: &Instance) -> Vec<String> {
        let mut misses = Vec::new();
        if let Some(names) = self.names.as_ref().filter(|names| !names.matches(&instance.name)) {
            misses.push(format!("its name is not {names}"));
        }
        for (key, patterns) in &self.labels {
            match instance.labels.get(key) {
                Some(value) if patterns.matches(value) => {}
                Some(value) => misses.push(format!("label {key} is {value}, not {patterns}")),
                None => misses.push(format!("it has no label {key}={patterns}")),
            }
        }
        if let Some(zones) = self.zones.as_ref().filter(|zones| !zones.matches(&instance.zone)) {
            misses.push(format!("zone {} is not {zones}", instance.zone));
        }
        misses
    }

    /// Whether everything holds.
    pub fn holds(&self, instance: &Instance) -> bool {
        self.names.as_ref().is_none_or(|names| names.matches(&instance.name))
            && self.zones.as_ref().is_none_or(|zones| zones.matches(&instance.zone))
            && self.labels.iter().all(|(key, patterns)| {
                instance.labels.get(key).is_some_and(|value| patterns.matches(value))
            })
    }
}

impl fmt::Display for Condition {
    /// As people say it: `name web-*, label env=production, zone us-*`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.iter().map(|names| format!("name {names}"));
        let labels = self.labels.iter().map(|(key, values)| format!("label {key}={values}"));
        let zones = self.zones.iter().map(|zones| format!("zone {zones}"));
        let all: Vec<String> = names.chain(labels).chain(zones).collect();
        formatter.write_str(&all.join(", "))
    }
}

/// Which instances a policy means.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// An instance is meant if any of these holds.
    pub any: Vec<Condition>,
    /// … unless any of these holds.
    pub except: Vec<Condition>,
}

/// What a selection says of an instance.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'a> {
    /// It is a source, by this condition.
    Selected(&'a Condition),
    /// It would be, but this condition excludes it.
    Excluded(&'a Condition),
    /// No condition holds.
    NotMatched,
}

impl Selection {
    /// Decides about one instance.
    pub fn decide(&self, instance: &Instance) -> Decision<'_> {
        let Some(by) = self.any.iter().find(|condition| condition.holds(instance)) else {
            return Decision::NotMatched;
        };
        match self.except.iter().find(|condition| condition.holds(instance)) {
            Some(condition) => Decision::Excluded(condition),
            None => Decision::Selected(by),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::SourceId;

    fn instance(name: &str, zone: &str, labels: &[(&str, &str)]) -> Instance {
        Instance {
            id: SourceId::parse("1").unwrap(),
            name: name.into(),
            zone: zone.into(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            status: String::new(),
            project: String::new(),
            machine_type: String::new(),
            disks: Vec::new(),
        }
    }

    fn condition(json: serde_json::Value) -> Condition {
        Condition::new(&serde_json::from_value(json).unwrap()).unwrap()
    }

    #[test]
    fn everything_in_a_condition_must_hold() {
        let condition = condition(serde_json::json!({
            "names": "web-*", "labels": {"env": "production", "tier": ["web", "api"]}, "zones": ["us-*", "eu-?"],
        }));
        let labels = [("env", "production"), ("tier", "api"), ("x", "y")];
        assert!(condition.holds(&instance("web-1", "us-central1-a", &labels)));
        assert!(condition.holds(&instance("web-1", "eu-b", &labels)));
        assert!(!condition.holds(&instance("db-1", "us-central1-a", &labels)));
        assert!(!condition.holds(&instance("web-1", "asia", &labels)));
        assert!(!condition.holds(&instance("web-1", "us-a", &labels[..1])));
        assert!(!condition.holds(&instance("web-1", "us-a", &[("env", "test"), ("tier", "web")])));
        assert_eq!(
            condition.to_string(),
            "name web-*, label env=production, label tier=web|api, zone us-*|eu-?"
        );
    }

    #[test]
    fn exclusion_wins() {
        let selection = Selection {
            any: vec![condition(serde_json::json!({"names": "*"}))],
            except: vec![condition(serde_json::json!({"labels": {"backup": "false"}}))],
        };
        assert!(matches!(selection.decide(&instance("a", "", &[])), Decision::Selected(_)));
        assert!(matches!(
            selection.decide(&instance("a", "", &[("backup", "false")])),
            Decision::Excluded(_)
        ));
        assert!(matches!(
            Selection::default().decide(&instance("a", "", &[])),
            Decision::NotMatched
        ));
    }

    #[test]
    fn bad_patterns_are_found_where_they_stand() {
        let spec: ConditionSpec = serde_json::from_value(serde_json::json!({
            "names": ["ok", "[z-a]"], "labels": {"env": "{a"},
        }))
        .unwrap();
        let paths: Vec<String> =
            Condition::new(&spec).unwrap_err().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/names/1", "/labels/env"]);
    }
}
