//! What the values of one policy mean, with a finding for each that means nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;
use similar::get_close_matches;

use super::effective::Layers;
use super::finding::{Code, Finding, Place};
use super::meant::{Capture, DiskChoice, Lifecycle, Pause, Policy};
use super::naming::{Naming, TemplateError};
use super::select::{Condition, Patterns, Selection};
use super::written::{
    ConditionSpec, LengthText, PausedSpec, PolicySpec, RetentionSpec, ScheduleSpec, Texts,
};
use super::yaml::escape;
use crate::elapsed::Elapsed;
use crate::inventory::{Capabilities, KeyChoice};
use crate::name::{self, LABEL_PREFIX, PolicyName};
use crate::retention::{Retention, Rule};
use crate::schedule::{Crontab, Schedule, Zone};

/// Labels that stillframe itself may put on an image.
const OWN_LABELS: usize = 9;
/// The longest name of a key that any engine takes.
const KEY_LENGTH_MAX: usize = 512;

/// Reads one policy.
pub(super) struct Meaning<'a> {
    layers: &'a Layers<'a>,
    damaged: &'a BTreeSet<String>,
    capabilities: Option<&'a Capabilities>,
    findings: Vec<Finding>,
}

impl<'a> Meaning<'a> {
    pub(super) fn new(
        layers: &'a Layers<'a>,
        damaged: &'a BTreeSet<String>,
        capabilities: Option<&'a Capabilities>,
    ) -> Self {
        Self { layers, damaged, capabilities, findings: Vec::new() }
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
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
        let spec: PolicySpec = match serde_json::from_value(self.layers.json.clone()) {
            Ok(spec) => spec,
            Err(error) => {
                // The schema lets through nothing that the types refuse; a test holds them to it.
                self.findings.push(Finding::new(Code::WrongType, place, error.to_string()));
                return None;
            }
        };
        let selection = self.selection(&spec);
        let schedule = spec.schedule.as_ref().and_then(|written| self.schedule(written));
        let zone = schedule.as_ref().map_or(Zone::UTC, |schedule| schedule.zone.clone());
        let retention = self.retention(spec.retention.as_ref());
        let stalled_after = spec.retention.as_ref().and_then(|retention| {
            self.length(retention.stalled_after.as_ref(), "/retention/stalledAfter")
        });
        let lifecycle = self.lifecycle(&spec);
        let capture = self.capture(&spec);
        let labels = self.labels(&spec);
        let location = self.location(&spec);
        let kms_key = self.kms_key(&spec);
        let naming = self.naming(&spec);
        let paused = spec.paused.as_ref().and_then(|paused| self.pause(paused, &zone));
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
            lifecycle,
            location,
            kms_key,
            labels,
            naming: naming?,
            paused,
            place,
            effective: self.layers.list(&spec),
        })
    }

    fn find(&mut self, code: Code, pointer: &str, message: impl Into<String>) -> &mut Finding {
        let place = self.layers.place(pointer);
        self.findings.push(Finding::new(code, place, message));
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn is_damaged(&self, pointer: &str) -> bool {
        let whole = format!("{}{pointer}", self.layers.policy.prefix);
        self.damaged.iter().any(|damaged| damaged.starts_with(&whole))
    }

    fn name(&mut self, text: &str) -> Option<PolicyName> {
        let parsed = PolicyName::parse(text);
        if parsed.is_err() {
            let layer = self.layers.policy;
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
            self.findings.push(
                Finding::new(Code::BadName, place, format!("`{text}` is not a name for a policy"))
                    .hint(hint),
            );
        }
        parsed.ok()
    }

    fn length(&mut self, text: Option<&LengthText>, pointer: &str) -> Option<Elapsed> {
        let text = text?;
        match Elapsed::parse(&text.0) {
            Ok(length) => Some(length),
            Err(error) => {
                self.find(
                    Code::BadLength,
                    pointer,
                    format!("`{}` is not a length of time", text.0),
                )
                .hint = Some(error.to_string());
                None
            }
        }
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
                    self.find(Code::EmptyMatch, &pointer, "this condition asks for nothing").hint =
                        Some("write `names: [\"*\"]` where every instance is meant".to_owned());
                }
                continue;
            }
            match Condition::new(spec) {
                Ok(condition) => conditions.push(condition),
                Err(mistakes) => {
                    for (path, reason) in mistakes {
                        self.find(
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

    fn schedule(&mut self, written: &ScheduleSpec) -> Option<Schedule> {
        let zone = written.time_zone.as_deref().and_then(|name| self.zone(name));
        let deadline = self.length(written.deadline.as_ref(), "/schedule/deadline");
        let jitter = self.length(written.jitter.as_ref(), "/schedule/jitter").unwrap_or_default();
        let crontab = written.cron.as_deref().and_then(|text| self.crontab(text));
        if deadline == Some(Elapsed::ZERO) {
            self.find(
                Code::BadLength,
                "/schedule/deadline",
                "a deadline of 0 lets nothing be created",
            );
        }
        let schedule = Schedule { crontab: crontab?, zone: zone?, deadline, jitter };
        if deadline.is_some_and(|deadline| jitter >= deadline && jitter > Elapsed::ZERO) {
            self.find(
                Code::BadLength,
                "/schedule/jitter",
                format!("the jitter {jitter} is not shorter than the deadline: some sources would never be due"),
            );
        }
        Some(schedule)
    }

    fn crontab(&mut self, text: &str) -> Option<Crontab> {
        match Crontab::parse(text) {
            Ok(crontab) => Some(crontab),
            Err(errors) => {
                let whole = self.layers.place("/schedule/cron");
                for error in errors {
                    let place = within(&whole, text, error.column, error.length);
                    self.findings.push(
                        Finding::new(Code::BadCron, place, error.message).maybe_hint(error.hint),
                    );
                }
                None
            }
        }
    }

    fn zone(&mut self, name: &str) -> Option<Zone> {
        let zone = Zone::find(name);
        if zone.is_none() {
            let names = Zone::names();
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            let city = known.iter().find(|known| {
                known
                    .rsplit('/')
                    .next()
                    .is_some_and(|city| city.eq_ignore_ascii_case(&name.replace(' ', "_")))
            });
            let close = city
                .or_else(|| None)
                .copied()
                .or_else(|| get_close_matches(name, &known, 1, 0.6).first().copied());
            let hint = match close {
                Some(close) => format!("did you mean `{close}`?"),
                None => {
                    "zones have names like `Europe/Berlin`; offsets say nothing about clock changes"
                        .to_owned()
                }
            };
            self.find(
                Code::BadTimeZone,
                "/schedule/timeZone",
                format!("there is no time zone `{name}`"),
            )
            .hint = Some(hint);
        }
        zone
    }

    fn retention(&mut self, written: Option<&RetentionSpec>) -> Retention {
        let Some(written) = written else {
            return Retention::default();
        };
        let counts = [
            written.hours,
            written.days,
            written.weeks,
            written.last,
            written.hourly,
            written.daily,
            written.weekly,
            written.monthly,
            written.yearly,
        ];
        let rules: BTreeMap<Rule, u32> = Rule::ALL
            .into_iter()
            .zip(counts)
            .filter_map(|(rule, count)| Some((rule, count?)))
            .collect();
        if rules.is_empty() && !self.is_damaged("/retention") {
            self.find(
                Code::KeepsEverything,
                "/retention",
                "no rule lets go of anything: everything is kept for ever",
            )
            .hint = Some("write a rule, like `days: 30`".to_owned());
        }
        Retention { rules, at_least: written.at_least.unwrap_or(1) }
    }

    fn lifecycle(&mut self, spec: &PolicySpec) -> Lifecycle {
        let written = spec.lifecycle.clone().unwrap_or_default();
        let deprecate_after =
            self.length(written.deprecate_after.as_ref(), "/lifecycle/deprecateAfter");
        let obsolete_after =
            self.length(written.obsolete_after.as_ref(), "/lifecycle/obsoleteAfter");
        if let (Some(deprecate), Some(obsolete)) = (deprecate_after, obsolete_after) {
            if obsolete <= deprecate {
                self.find(
                    Code::BadLength,
                    "/lifecycle/obsoleteAfter",
                    format!(
                        "obsolete after {obsolete} does not come after deprecated after {deprecate}"
                    ),
                );
            }
        }
        Lifecycle {
            deprecate_after,
            obsolete_after,
            grace: self
                .length(written.grace.as_ref(), "/lifecycle/grace")
                .unwrap_or(Elapsed::hours(24)),
            source_gone_grace: self
                .length(written.source_gone_grace.as_ref(), "/lifecycle/sourceGoneGrace")
                .unwrap_or(Elapsed::days(14)),
        }
    }

    fn capture(&mut self, spec: &PolicySpec) -> Option<Capture> {
        let written = spec.capture.clone().unwrap_or_default();
        let kind = written.kind.unwrap_or_default();
        let consistency = written.consistency.unwrap_or_default();
        if let Some(capabilities) = self.capabilities {
            if !capabilities.kinds.contains(&kind) {
                let kinds: Vec<&str> = capabilities.kinds.iter().map(|kind| kind.word()).collect();
                self.find(
                    Code::MissingCapability,
                    "/capture/kind",
                    format!("the engine makes no {}", kind.word()),
                )
                .hint = Some(format!("it makes {}", kinds.join(", ")));
            }
            if !capabilities.consistencies.contains(&consistency) {
                self.find(
                    Code::MissingCapability,
                    "/capture/consistency",
                    format!("the engine has no {}-consistent capture", consistency.word()),
                );
            }
        }
        let disks = match written.disks.unwrap_or_else(|| Texts(vec!["all".to_owned()])) {
            Texts(words) if words == ["all"] => DiskChoice::All,
            Texts(words) if words == ["boot"] => DiskChoice::Boot,
            texts => match Patterns::new(&texts) {
                Ok(patterns) => DiskChoice::Named(patterns),
                Err(mistakes) => {
                    for (position, reason) in mistakes {
                        let pointer =
                            if texts.0.len() == 1 { String::new() } else { format!("/{position}") };
                        self.find(
                            Code::BadPattern,
                            &format!("/capture/disks{pointer}"),
                            format!("not a pattern: {reason}"),
                        );
                    }
                    return None;
                }
            },
        };
        Some(Capture { kind, disks, consistency })
    }

    fn labels(&mut self, spec: &PolicySpec) -> BTreeMap<String, String> {
        let labels = spec.labels.clone().unwrap_or_default();
        for (key, value) in &labels {
            let pointer = format!("/labels/{}", escape(key));
            let key_place =
                || self.layers.layer(&pointer).unwrap_or(self.layers.policy).key_place(&pointer);
            if key.starts_with(LABEL_PREFIX) {
                let message =
                    format!("labels that begin with `{LABEL_PREFIX}` belong to stillframe");
                self.findings.push(Finding::new(Code::BadLabel, key_place(), message));
            } else if !name::is_label_key(key) {
                self.findings.push(
                    Finding::new(
                        Code::BadLabel,
                        key_place(),
                        format!("`{key}` is not a label key"),
                    )
                    .hint("1 to 63 of a-z, 0-9, `-` and `_`, beginning with a letter"),
                );
            }
            if !name::is_label_value(value) {
                self.find(Code::BadLabel, &pointer, format!("`{value}` is not a label value"))
                    .hint = Some("up to 63 of a-z, 0-9, `-` and `_`".to_owned());
            }
        }
        let room = self
            .capabilities
            .map_or(64, |capabilities| capabilities.labels_max)
            .saturating_sub(OWN_LABELS);
        if labels.len() > room {
            self.find(
                Code::OutOfRange,
                "/labels",
                format!("{} labels: there is room for {room}", labels.len()),
            );
        }
        labels
    }

    fn location(&mut self, spec: &PolicySpec) -> String {
        let location =
            spec.storage.as_ref().and_then(|storage| storage.location.clone()).unwrap_or_default();
        let known: &[String] =
            self.capabilities.map_or(&[], |capabilities| &capabilities.locations);
        if !known.is_empty() && !known.contains(&location) {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let hint = match get_close_matches(location.as_str(), &names, 1, 0.6).first() {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("it has {}", names.join(", ")),
            };
            self.find(
                Code::UnknownLocation,
                "/storage/location",
                format!("the engine has no storage location `{location}`"),
            )
            .hint = Some(hint);
        }
        location
    }

    fn kms_key(&mut self, spec: &PolicySpec) -> Option<String> {
        let key = spec.encryption.as_ref().and_then(|encryption| encryption.kms_key.clone())?;
        let is_key = (1..=KEY_LENGTH_MAX).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@+".contains(&byte));
        if !is_key {
            self.find(Code::BadKey, "/encryption/kmsKey", format!("`{key}` is not the name of a key")).hint =
                Some("letters, digits and `-_./:@+`, like `projects/p/locations/us/keyRings/r/cryptoKeys/k`".to_owned());
        }
        if self.capabilities.is_some_and(|capabilities| capabilities.key == KeyChoice::None) {
            self.find(
                Code::MissingCapability,
                "/encryption/kmsKey",
                "the engine encrypts under no key of yours",
            );
        }
        Some(key)
    }

    fn naming(&mut self, spec: &PolicySpec) -> Option<Naming> {
        let written = spec.naming.clone().unwrap_or_default();
        let (name, description) =
            (written.name.unwrap_or_default(), written.description.unwrap_or_default());
        match Naming::new(&name, &description) {
            Ok(naming) => Some(naming),
            Err(errors) => {
                let mut report = |pointer: &str, error: Option<TemplateError>| {
                    if let Some(TemplateError { message, hint }) = error {
                        self.find(Code::BadTemplate, pointer, message).hint = hint;
                    }
                };
                report("/naming/name", errors.name);
                report("/naming/description", errors.description);
                None
            }
        }
    }

    fn pause(&mut self, written: &PausedSpec, zone: &Zone) -> Option<Pause> {
        let pause = Pause {
            creates: written.creates.unwrap_or(false),
            deletes: written.deletes.unwrap_or(false),
            until: written.until.as_deref().and_then(|text| self.time(text, zone, "/paused/until")),
            reason: written.reason.clone(),
        };
        if !pause.creates && !pause.deletes && !self.is_damaged("/paused") {
            self.find(Code::MissingKey, "/paused", "the pause does not say of what").hint =
                Some("write `creates: true`, `deletes: true` or both".to_owned());
        }
        Some(pause)
    }

    /// A date, which is its beginning in the policy's zone, or an instant.
    fn time(&mut self, text: &str, zone: &Zone, pointer: &str) -> Option<Timestamp> {
        let date = text.parse::<Date>().ok().filter(|_| text.len() == 10);
        let time = match date {
            Some(date) => {
                date.to_zoned(zone.time_zone().clone()).ok().map(|zoned| zoned.timestamp())
            }
            None => text.parse::<Timestamp>().ok(),
        };
        if time.is_none() {
            self.find(Code::BadTime, pointer, format!("`{text}` is not a time")).hint = Some(
                "write a date like `2026-12-01` or an instant like `2026-12-01T08:00:00Z`"
                    .to_owned(),
            );
        }
        time
    }
}

/// The part of a scalar's place that some characters of its text take, where the text stands there
/// as it is.
fn within(whole: &Place, text: &str, column: usize, length: usize) -> Place {
    let written = whole.file.text.get(whole.span.clone()).unwrap_or_default();
    let Some(start) = written.find(text).filter(|_| !text.is_empty()) else {
        return whole.clone();
    };
    let byte = |characters: usize| {
        text.char_indices().nth(characters).map_or(text.len(), |(byte, _)| byte)
    };
    let start = whole.span.start + start;
    Place {
        file: Arc::clone(&whole.file),
        span: start + byte(column)..start + byte(column + length),
    }
}
