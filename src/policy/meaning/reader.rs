//! Reads values that stand in more than one place of the language, with a finding at its place for
//! each that means nothing.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::elapsed::Elapsed;
use crate::policy::effective::Layers;
use crate::policy::finding::{Code, Finding, Place};
use crate::policy::meant::{Allowed, Blackout, Window};
use crate::policy::select::Patterns;
use crate::policy::written::{AllowSpec, BlackoutSpec, LengthText, RetentionSpec, Texts};
use crate::retention::{Retention, Rule};
use crate::schedule::{Crontab, Zone};

/// Knows where values stand, and gathers what is wrong with them.
pub(in crate::policy) struct Reader<'a> {
    pub(in crate::policy) layers: &'a Layers<'a>,
    pub(in crate::policy) findings: Vec<Finding>,
}

impl<'a> Reader<'a> {
    pub(in crate::policy) fn new(layers: &'a Layers<'a>) -> Self {
        Self { layers, findings: Vec::new() }
    }

    pub(in crate::policy) fn find(
        &mut self,
        code: Code,
        pointer: &str,
        message: impl Into<String>,
    ) -> &mut Finding {
        let place = self.layers.place(pointer);
        self.findings.push(Finding::new(code, place, message));
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    pub(in crate::policy) fn length(
        &mut self,
        text: Option<&LengthText>,
        pointer: &str,
    ) -> Option<Elapsed> {
        let text = text?;
        match Elapsed::parse(&text.0) {
            Ok(length) => Some(length),
            Err(error) => {
                let message = format!("`{}` is not a length of time", text.0);
                self.find(Code::BadLength, pointer, message).hint = Some(error.to_string());
                None
            }
        }
    }

    pub(in crate::policy) fn zone(&mut self, name: &str, pointer: &str) -> Option<Zone> {
        let zone = Zone::find(name);
        if zone.is_none() {
            let message = format!("there is no time zone `{name}`");
            self.find(Code::BadTimeZone, pointer, message).hint = Some(Zone::hint(name));
        }
        zone
    }

    /// Expressions, unless one of them is wrong.
    pub(in crate::policy) fn crontabs(
        &mut self,
        texts: &Texts,
        pointer: &str,
    ) -> Option<Vec<Crontab>> {
        let mut crontabs: Vec<Crontab> = Vec::with_capacity(texts.0.len());
        let mut is_sound = true;
        for (position, text) in texts.0.iter().enumerate() {
            let pointer = self.item(pointer, position);
            match Crontab::parse(text) {
                Ok(crontab) if crontabs.iter().any(|other| other.as_str() == crontab.as_str()) => {
                    self.find(Code::BadCron, &pointer, format!("`{text}` is written twice"));
                    is_sound = false;
                }
                Ok(crontab) => crontabs.push(crontab),
                Err(errors) => {
                    is_sound = false;
                    let whole = self.layers.place(&pointer);
                    for error in errors {
                        let place = within(&whole, text, error.column, error.length);
                        self.findings.push(
                            Finding::new(Code::BadCron, place, error.message)
                                .maybe_hint(error.hint),
                        );
                    }
                }
            }
        }
        is_sound.then_some(crontabs)
    }

    /// Finds a text that says nothing, where somebody is to read it.
    pub(in crate::policy) fn says_something(
        &mut self,
        text: Option<&str>,
        pointer: &str,
        what: &str,
    ) {
        if text.is_some_and(|text| text.trim().is_empty()) {
            self.find(Code::MissingKey, pointer, format!("{what} is empty")).hint =
                Some("write it for the people who read this later".to_owned());
        }
    }

    /// The pointer to an item of texts, which stand in a list or alone.
    pub(in crate::policy) fn item(&self, pointer: &str, position: usize) -> String {
        let is_list = self.layers.json.pointer(pointer).is_some_and(serde_json::Value::is_array);
        if is_list { format!("{pointer}/{position}") } else { pointer.to_owned() }
    }

    /// A date, which is its beginning in a zone, or an instant.
    pub(in crate::policy) fn time(
        &mut self,
        text: Option<&str>,
        zone: &Zone,
        pointer: &str,
    ) -> Option<Timestamp> {
        let text = text?;
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

    pub(in crate::policy) fn patterns(
        &mut self,
        texts: Option<&Texts>,
        pointer: &str,
    ) -> Option<Patterns> {
        match Patterns::new(texts?) {
            Ok(patterns) => Some(patterns),
            Err(mistakes) => {
                for (position, reason) in mistakes {
                    let pointer = self.item(pointer, position);
                    self.find(Code::BadPattern, &pointer, format!("not a pattern: {reason}"));
                }
                None
            }
        }
    }

    pub(in crate::policy) fn rules(written: &RetentionSpec) -> Retention {
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
        let rules = Rule::ALL
            .into_iter()
            .zip(counts)
            .filter_map(|(rule, count)| Some((rule, count?)))
            .collect();
        Retention { rules, at_least: written.at_least.unwrap_or(1) }
    }

    /// Blackouts; `zone` is the one of those that name none.
    pub(in crate::policy) fn blackouts(
        &mut self,
        written: Option<&[BlackoutSpec]>,
        zone: &Zone,
    ) -> Vec<Blackout> {
        let mut blackouts = Vec::new();
        for (position, spec) in written.unwrap_or_default().iter().enumerate() {
            blackouts.extend(self.blackout(spec, zone, &format!("/blackouts/{position}")));
        }
        blackouts
    }

    fn blackout(&mut self, spec: &BlackoutSpec, zone: &Zone, pointer: &str) -> Option<Blackout> {
        self.says_something(spec.reason.as_deref(), &format!("{pointer}/reason"), "the reason");
        let own = spec.time_zone.as_deref();
        let zone = match own {
            Some(name) => self.zone(name, &format!("{pointer}/timeZone"))?,
            None => zone.clone(),
        };
        let (creates, deletes) = (spec.creates.unwrap_or(true), spec.deletes.unwrap_or(false));
        if !creates && !deletes {
            self.find(Code::BadBlackout, pointer, "this blackout stops nothing").hint =
                Some("take `creates: false` out, or write `deletes: true`".to_owned());
        }
        let returns = spec.cron.is_some() || spec.duration.is_some();
        let once = spec.from.is_some() || spec.until.is_some();
        if returns == once {
            let message = if returns {
                "a blackout returns or lasts from one day to another, not both"
            } else {
                "this blackout does not say when"
            };
            self.find(Code::BadBlackout, pointer, message).hint = Some(
                "write `cron` and `duration` for a window that returns, `from` and `until` for dates"
                    .to_owned(),
            );
            return None;
        }
        let window = if returns {
            self.returning(spec, zone, pointer)?
        } else {
            self.once(spec, &zone, pointer)?
        };
        let place = self.layers.place(pointer).first_line();
        Some(Blackout { window, creates, deletes, reason: spec.reason.clone(), place })
    }

    fn returning(&mut self, spec: &BlackoutSpec, zone: Zone, pointer: &str) -> Option<Window> {
        let begins =
            spec.cron.as_ref().and_then(|texts| self.crontabs(texts, &format!("{pointer}/cron")));
        let duration = self.length(spec.duration.as_ref(), &format!("{pointer}/duration"));
        for (key, is_missing) in
            [("cron", spec.cron.is_none()), ("duration", spec.duration.is_none())]
        {
            if is_missing {
                let message = format!("a blackout that returns needs `{key}`");
                self.find(Code::MissingKey, pointer, message);
            }
        }
        let duration = duration?;
        if duration == Elapsed::ZERO || duration > Elapsed::days(366) {
            let message =
                format!("a blackout lasts at least a second and at most 366d, not {duration}");
            self.find(Code::BadBlackout, &format!("{pointer}/duration"), message);
            return None;
        }
        Some(Window::Returning { begins: begins?, zone, duration })
    }

    fn once(&mut self, spec: &BlackoutSpec, zone: &Zone, pointer: &str) -> Option<Window> {
        let from = self.time(spec.from.as_deref(), zone, &format!("{pointer}/from"));
        let until = self.time(spec.until.as_deref(), zone, &format!("{pointer}/until"));
        for (key, is_missing) in [("from", spec.from.is_none()), ("until", spec.until.is_none())] {
            if is_missing {
                let message = format!("a blackout between dates needs `{key}`");
                self.find(Code::MissingKey, pointer, message).hint =
                    Some("for something without an end, write `paused`".to_owned());
            }
        }
        let (from, until) = (from?, until?);
        if until <= from {
            let message = "this blackout ends before it begins";
            self.find(Code::BadBlackout, &format!("{pointer}/until"), message);
            return None;
        }
        Some(Window::Once { from, until })
    }

    /// Warnings that are meant, as they stand under `metadata.allow` of a document.
    pub(in crate::policy) fn allowed(&mut self, metadata: &serde_json::Value) -> Vec<Allowed> {
        let written = metadata.get("allow").and_then(serde_json::Value::as_array);
        let mut allowed = Vec::new();
        for (position, value) in written.into_iter().flatten().enumerate() {
            let Ok(spec) = serde_json::from_value::<AllowSpec>(value.clone()) else {
                // What is missing or of a wrong type has a finding from the schema.
                continue;
            };
            let at =
                |key: &str| self.layers.document_place(&format!("/metadata/allow/{position}{key}"));
            match Code::allowable(&spec.code) {
                Ok(code) if spec.reason.trim().is_empty() => {
                    let message = format!("`{code}` is allowed without a reason");
                    self.findings.push(Finding::new(Code::BadAllow, at("/reason"), message));
                }
                Ok(code) => {
                    allowed.push(Allowed { code, reason: spec.reason, place: at("/code") });
                }
                Err((message, hint)) => self
                    .findings
                    .push(Finding::new(Code::BadAllow, at("/code"), message).maybe_hint(hint)),
            }
        }
        allowed
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
