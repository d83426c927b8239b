//! What the values of one policy mean, with a finding for each that means nothing.

mod image;
pub(super) mod reader;
mod time;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::effective::Layers;
use super::finding::{Code, Finding, Place};
use super::meant::{Lifecycle, Policy};
use super::select::{Condition, Selection};
use super::written::{ConditionSpec, PolicySpec, RetentionSpec};
use crate::elapsed::Elapsed;
use crate::inventory::Capabilities;
use crate::name::PolicyName;
use crate::retention::Retention;
use crate::schedule::Zone;
use reader::Reader;
pub(super) use time::Periods;

/// Reads one policy.
pub(super) struct Meaning<'a> {
    reader: Reader<'a>,
    damaged: &'a BTreeSet<String>,
    capabilities: Option<&'a Capabilities>,
    periods: &'a Periods,
    /// Whether values are held against each other.
    are_together: bool,
}

impl<'a> Meaning<'a> {
    pub(super) fn new(
        layers: &'a Layers<'a>,
        damaged: &'a BTreeSet<String>,
        capabilities: Option<&'a Capabilities>,
        periods: &'a Periods,
    ) -> Self {
        Self { reader: Reader::new(layers), damaged, capabilities, periods, are_together: true }
    }

    /// Looks at each value by itself: beside it there will be others in the end.
    pub(super) fn each_by_itself(self) -> Self {
        Self { are_together: false, ..self }
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.reader.findings
    }

    /// The policy, unless something essential is missing or wrong.
    pub(super) fn policy(
        &mut self,
        json: &Value,
        place: Place,
        engine: Option<String>,
    ) -> Option<Policy> {
        let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let name = text("/metadata/name").and_then(|name| self.name(&name));
        let spec: PolicySpec = match PolicySpec::deserialize(&self.reader.layers.json) {
            Ok(spec) => spec,
            Err(error) => {
                // The schema lets through nothing that the types refuse; a test holds them to it.
                self.reader.findings.push(Finding::new(Code::WrongType, place, error.to_string()));
                return None;
            }
        };
        let selection = self.selection(&spec);
        let schedule = spec.schedule.as_ref().and_then(|written| self.schedule(written));
        let zone = schedule.as_ref().map_or(Zone::UTC, |schedule| schedule.zone.clone());
        let retention = self.retention(spec.retention.as_ref());
        let stalled_after = spec.retention.as_ref().and_then(|retention| {
            self.reader.length(retention.stalled_after.as_ref(), "/retention/stalledAfter")
        });
        let lifecycle = self.lifecycle(&spec);
        let capture = self.capture(&spec);
        let labels = self.labels(&spec);
        let location = self.location(&spec);
        let tier = self.tier(&spec);
        let kms_key = self.kms_key(&spec);
        let naming = self.naming(&spec);
        let paused = spec.paused.as_ref().map(|paused| self.pause(paused, &zone));
        let copies = self.copies(&spec, &location);
        let sharing = self.sharing(&spec);
        let rpo = spec.objectives.as_ref().and_then(|objectives| objectives.rpo.as_ref());
        let rpo = self.reader.length(rpo, "/objectives/rpo");
        let drill = self.drill(spec.drill.as_ref());
        let blackouts = self.reader.blackouts(spec.blackouts.as_deref(), &zone);
        let holds = self.holds(spec.hold.as_deref(), &zone);
        let overlaps = spec.source.as_ref().and_then(|source| source.overlaps_with.as_ref());
        let overlaps_with = self.reader.patterns(overlaps, "/source/overlapsWith");
        let metadata = json.get("metadata").unwrap_or(&Value::Null);
        let allowed = self.reader.allowed(metadata);
        Some(Policy {
            name: name?,
            owner: text("/metadata/owner"),
            description: text("/metadata/description"),
            engine: engine?,
            selection: selection?,
            capture: capture?,
            schedule: schedule?,
            retention,
            stalled_after,
            when_stalled: spec
                .retention
                .as_ref()
                .and_then(|retention| retention.when_stalled)
                .unwrap_or_default(),
            lifecycle,
            location,
            tier,
            copies,
            kms_key,
            labels,
            naming: naming?,
            sharing,
            rpo,
            drill,
            blackouts,
            holds,
            paused,
            overlaps_with,
            allowed,
            removed: None,
            place,
            effective: Vec::new(),
            digest: String::new(),
        })
    }

    fn is_damaged(&self, pointer: &str) -> bool {
        let whole = format!("{}{pointer}", self.reader.layers.own.prefix);
        self.damaged.iter().any(|damaged| damaged.starts_with(&whole))
    }

    fn name(&mut self, text: &str) -> Option<PolicyName> {
        let parsed = PolicyName::parse(text);
        if parsed.is_err() {
            let layer = self.reader.layers.own;
            let span = layer.document.at("/metadata/name").map_or(0..0, |node| node.span.clone());
            let bent: String = text
                .to_ascii_lowercase()
                .chars()
                .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
                .collect();
            let bent = bent.trim_matches('-');
            let hint = if PolicyName::parse(bent).is_ok() {
                format!("`{bent}` would be one")
            } else {
                "1 to 63 of a-z, 0-9 and `-`, beginning with a letter".to_owned()
            };
            let place = Place { file: Arc::clone(layer.file), span };
            self.reader.findings.push(
                Finding::new(Code::BadName, place, format!("`{text}` is not a name for a policy"))
                    .hint(hint),
            );
        }
        parsed.ok()
    }

    fn selection(&mut self, spec: &PolicySpec) -> Option<Selection> {
        let source = spec.source.as_ref()?;
        let any = self.conditions(source.matches.as_deref()?, "/source/match");
        let except =
            self.conditions(source.exclude.as_deref().unwrap_or_default(), "/source/exclude");
        Some(Selection { any: any?, except: except? })
    }

    fn conditions(&mut self, specs: &[ConditionSpec], pointer: &str) -> Option<Vec<Condition>> {
        let mut conditions = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let pointer = format!("{pointer}/{index}");
            if Condition::is_empty(spec) {
                if !self.is_damaged(&pointer) {
                    self.reader
                        .find(Code::EmptyMatch, &pointer, "this condition asks for nothing")
                        .hint =
                        Some("write `names: [\"*\"]` where every instance is meant".to_owned());
                }
                continue;
            }
            let has_labels = self.capabilities.is_none_or(|known| known.source_labels);
            if spec.labels.is_some() && !has_labels {
                let message = "sources of this engine have no labels: nothing ever fits";
                let pointer = format!("{pointer}/labels");
                self.reader.find(Code::MissingCapability, &pointer, message).hint =
                    Some("select by `names`".to_owned());
            }
            match Condition::new(spec) {
                Ok(mut condition) => {
                    condition.place = Some(self.reader.layers.place(&pointer).first_line());
                    conditions.push(condition);
                }
                Err(mistakes) => {
                    for (path, reason) in mistakes {
                        self.reader.find(
                            Code::BadPattern,
                            &format!("{pointer}{path}"),
                            format!("not a pattern: {reason}"),
                        );
                    }
                }
            }
        }
        (conditions.len() == specs.len()).then_some(conditions)
    }

    fn retention(&mut self, written: Option<&RetentionSpec>) -> Retention {
        let Some(written) = written else {
            return Retention::default();
        };
        let retention = Reader::rules(written);
        if retention.rules.is_empty() && !self.is_damaged("/retention") {
            self.reader
                .find(
                    Code::KeepsEverything,
                    "/retention",
                    "no rule lets go of anything: everything is kept for ever",
                )
                .hint = Some("write a rule, like `days: 30`".to_owned());
        }
        retention
    }

    fn lifecycle(&mut self, spec: &PolicySpec) -> Lifecycle {
        let written = spec.lifecycle.clone().unwrap_or_default();
        let deprecate_after = written.deprecate_after.filter(|text| !text.is_never());
        let deprecate_after =
            self.reader.length(deprecate_after.as_ref(), "/lifecycle/deprecateAfter");
        let obsolete_after = written.obsolete_after.filter(|text| !text.is_never());
        let obsolete_after =
            self.reader.length(obsolete_after.as_ref(), "/lifecycle/obsoleteAfter");
        if let (Some(deprecate), Some(obsolete)) = (deprecate_after, obsolete_after)
            && self.are_together
            && obsolete <= deprecate
        {
            self.reader.find(
                Code::BadLength,
                "/lifecycle/obsoleteAfter",
                format!(
                    "obsolete after {obsolete} does not come after deprecated after {deprecate}"
                ),
            );
        }
        Lifecycle {
            deprecate_after,
            obsolete_after,
            grace: self
                .reader
                .length(written.grace.as_ref(), "/lifecycle/grace")
                .unwrap_or(Elapsed::hours(24)),
            source_gone_grace: self
                .reader
                .length(written.source_gone_grace.as_ref(), "/lifecycle/sourceGoneGrace")
                .unwrap_or(Elapsed::days(14)),
            on_source_gone: written.on_source_gone.unwrap_or_default(),
        }
    }
}
