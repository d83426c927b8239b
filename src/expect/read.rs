//! From the text of a test document to its cases, every mistake found at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use similar::get_close_matches;

use super::case::{Case, Expect, Fate, History, Images, Named, Points, Source, Suite, Text};
use super::slots::{FORMS, SlotPattern, instant};
use super::test_schema;
use super::written::{
    CaseSpec, ExpectSpec, HistorySpec, ImageGiven, PointsSpec, SourceGiven, TestDocument, TestSpec,
};
use crate::inventory::{ImageState, LABEL_HOLD, LABEL_LET_GO, LABEL_MISSING, LABEL_STAGED, Stage};
use crate::name::{Slot, SourceId, stamp};
use crate::plan::ReasonCode;
use crate::policy::SourceFile;
use crate::policy::finding::{Code, Finding, Place};
use crate::policy::schema::{Checked, Schema};
use crate::policy::written::Texts;
use crate::policy::yaml::{self, Node, escape};

/// Reads test documents.
#[derive(Debug)]
pub struct Reader {
    schema: Schema,
}

impl Reader {
    /// A reader; the schema is part of the program and compiled by its tests.
    pub fn new() -> Result<Self, String> {
        Schema::compile(test_schema()).map(|schema| Self { schema })
    }

    /// All documents of a file whose form is right, and everything that is wrong.
    pub fn read(&self, file: &Arc<SourceFile>) -> (Vec<Suite>, Vec<Finding>) {
        let (nodes, mut findings) = yaml::read(file);
        let mut suites = Vec::new();
        let mut is_empty = findings.is_empty();
        for node in nodes {
            if node.to_json().is_null() {
                continue;
            }
            is_empty = false;
            if node.get("kind").and_then(Node::as_text) != Some("PolicyTest") {
                findings.push(other_kind(&node, file));
                continue;
            }
            let Checked { findings: found, json, .. } = self.schema.check(&node, file);
            let is_sound = found.is_empty();
            findings.extend(found);
            let Ok(document) = serde_json::from_value::<TestDocument>(json) else { continue };
            let text = Text { file: Arc::clone(file), node };
            let (suite, mut found) = Meaning { text, findings: Vec::new() }.suite(&document);
            if is_sound && found.is_empty() {
                suites.push(suite);
            }
            findings.append(&mut found);
        }
        if is_empty {
            let place = Place { file: Arc::clone(file), span: 0..0 };
            findings.push(
                Finding::new(Code::BadTest, place, "the file holds no test")
                    .hint("write a document of kind PolicyTest, or remove the file"),
            );
        }
        findings.sort_by(|one, other| one.sort_key().cmp(&other.sort_key()));
        findings.dedup();
        (suites, findings)
    }
}

fn other_kind(node: &Node, file: &Arc<SourceFile>) -> Finding {
    let span = node.entry("kind").map_or(node.span.start..node.span.start + 1, |entry| {
        if entry.value.span.is_empty() { entry.key_span.clone() } else { entry.value.span.clone() }
    });
    let place = Place { file: Arc::clone(file), span };
    let finding =
        Finding::new(Code::UnknownKind, place, "a file named `*.test.yaml` holds tests only");
    match node.get("kind").and_then(Node::as_text) {
        Some("BackupPolicy" | "Config" | "Overlay") => {
            finding.hint("put it into a file with another name: from here it is not read")
        }
        Some(word) if !get_close_matches(word, &["PolicyTest"], 1, 0.6).is_empty() => {
            finding.hint("did you mean `PolicyTest`?")
        }
        _ => finding.hint("begin it with `apiVersion: stillframe/v1` and `kind: PolicyTest`"),
    }
}

/// Gives values their meaning, and gathers what has none.
struct Meaning {
    text: Text,
    findings: Vec<Finding>,
}

impl Meaning {
    fn find(&mut self, code: Code, pointer: &str, message: impl Into<String>, hint: &str) {
        let finding = Finding::new(code, self.text.place(pointer), message);
        self.findings.push(if hint.is_empty() { finding } else { finding.hint(hint) });
    }

    fn suite(mut self, document: &TestDocument) -> (Suite, Vec<Finding>) {
        let spec = &document.spec;
        let mut names: BTreeMap<String, Place> = BTreeMap::new();
        let mut cases = Vec::new();
        for (position, written) in spec.cases.iter().flatten().enumerate() {
            let pointer = format!("/spec/cases/{position}");
            let Some(case) = self.case(spec, written, &pointer) else { continue };
            if let Some(first) = names.get(&case.name) {
                let message = format!("there are two cases named `{}`", case.name);
                self.findings.push(
                    Finding::new(Code::BadTest, case.place.clone(), message)
                        .related(first.clone(), "the first one"),
                );
            }
            names.entry(case.name.clone()).or_insert_with(|| case.place.clone());
            cases.push(case);
        }
        let suite = Suite {
            text: self.text,
            name: document.metadata.name.clone(),
            policies: spec.policies.as_ref().map(|texts| texts.0.clone()),
            environment: spec.environment.clone(),
            engine: named(spec.engine.as_ref(), "/spec", "engine"),
            cases,
        };
        (suite, self.findings)
    }

    fn case(&mut self, spec: &TestSpec, written: &CaseSpec, pointer: &str) -> Option<Case> {
        let now = self.time(written.now.as_deref(), &format!("{pointer}/now"));
        let given = written.given.clone().unwrap_or_default();
        let mut sources = self.sources(spec.sources.as_deref(), "/spec/sources");
        for own in self.sources(given.sources.as_deref(), &format!("{pointer}/given/sources")) {
            sources.retain(|source: &Source| source.name != own.name);
            sources.push(own);
        }
        let ids: BTreeSet<_> = sources
            .iter()
            .map(|source| (&source.id, source.engine.as_ref().map(|engine| &engine.name)))
            .collect();
        if ids.len() < sources.len() {
            let hint = "give one of them another `id`";
            self.find(Code::BadTest, &format!("{pointer}/name"), "two sources have one id", hint);
        }
        let about = |own: Option<&String>, key: &str, all: Option<&String>| {
            let own = own.map(|name| (name, format!("{pointer}/{key}")));
            let (name, pointer) = own.or_else(|| Some((all?, format!("/spec/{key}"))))?;
            Some(Named { name: name.clone(), pointer })
        };
        let policy = about(written.policy.as_ref(), "policy", spec.policy.as_ref());
        let source = about(written.source.as_ref(), "source", spec.source.as_ref());
        let mut histories = Vec::new();
        for (position, history) in given.history.iter().flatten().enumerate() {
            let pointer = format!("{pointer}/given/history/{position}");
            histories.extend(self.history(history, now, &pointer));
        }
        let mut images = Vec::new();
        for (position, image) in given.images.iter().flatten().enumerate() {
            let pointer = format!("{pointer}/given/images/{position}");
            images.extend(self.images(image, &pointer));
        }
        let expect = self.expect(written.expect.as_ref()?, &format!("{pointer}/expect"));
        if policy.is_none() {
            for key in ["next", "selected"] {
                if self.text.node.at(&format!("{pointer}/expect/{key}")).is_some() {
                    let message = format!("`{key}` is said of one policy, and the case names none");
                    let pointer = format!("{pointer}/expect/{key}");
                    self.find(
                        Code::BadTest,
                        &pointer,
                        message,
                        "write `policy` in the case or in `spec`",
                    );
                }
            }
        }
        Some(Case {
            place: self.text.place(&format!("{pointer}/name")),
            pointer: pointer.to_owned(),
            name: written.name.clone()?,
            now: now?,
            policy,
            source,
            sources,
            histories,
            images,
            expect,
        })
    }

    fn sources(&mut self, written: Option<&[SourceGiven]>, pointer: &str) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        for (position, one) in written.unwrap_or_default().iter().enumerate() {
            let pointer = format!("{pointer}/{position}");
            let gone = self.time(one.gone.as_deref(), &format!("{pointer}/gone"));
            let Some(name) = &one.name else { continue };
            let id = one.id.as_ref().unwrap_or(name);
            let Ok(id) = SourceId::parse(id) else {
                let key = if one.id.is_some() { "id" } else { "name" };
                let hint = "give it an `id` of 1 to 63 of a-z, 0-9, `-` and `_`";
                let message = format!("`{id}` is not the id of a source");
                self.find(Code::BadName, &format!("{pointer}/{key}"), message, hint);
                continue;
            };
            if sources.iter().any(|other| other.name == *name) {
                let message = format!("there are two sources named `{name}`");
                self.find(Code::BadTest, &format!("{pointer}/name"), message, "");
            }
            let boot = || vec!["boot".to_owned()];
            sources.push(Source {
                name: name.clone(),
                id,
                zone: one.zone.clone().unwrap_or_default(),
                labels: one.labels.clone().unwrap_or_default(),
                disks: one.disks.as_ref().map_or_else(boot, |disks| disks.0.clone()),
                engine: named(one.engine.as_ref(), &pointer, "engine"),
                gone,
            });
        }
        sources
    }

    fn history(
        &mut self,
        written: &HistorySpec,
        now: Option<Timestamp>,
        pointer: &str,
    ) -> Option<History> {
        let from = self.time(written.from.as_deref(), &format!("{pointer}/from"));
        let until = self.time(written.until.as_deref(), &format!("{pointer}/until")).or(now);
        let missing = self.patterns(written.missing.as_ref(), &format!("{pointer}/missing"));
        let failed = self.patterns(written.failed.as_ref(), &format!("{pointer}/failed"));
        let (from, until, now) = (from?, until?, now?);
        if until > now {
            let pointer = format!("{pointer}/until");
            self.find(Code::BadTest, &pointer, "the history goes beyond `now`", "");
        }
        if until <= from {
            let pointer = format!("{pointer}/from");
            self.find(Code::BadTest, &pointer, "the history ends before it begins", "");
        }
        Some(History {
            pointer: pointer.to_owned(),
            policy: named(written.policy.as_ref(), pointer, "policy"),
            source: named(written.source.as_ref(), pointer, "source"),
            from,
            until,
            how: written.how.unwrap_or_default(),
            missing,
            failed,
        })
    }

    fn images(&mut self, written: &ImageGiven, pointer: &str) -> Option<Images> {
        let at = |key: &str| format!("{pointer}/{key}");
        let mut labels = BTreeMap::new();
        if let Some(hold) = &written.hold {
            let value =
                instant(hold).map_or("yes".to_owned(), |until| format!("until-{}", stamp(until)));
            labels.insert(LABEL_HOLD.to_owned(), value);
        }
        let let_go = self.time(written.let_go.as_deref(), &at("letGo"));
        if let Some(let_go) = let_go {
            labels.insert(LABEL_LET_GO.to_owned(), stamp(let_go));
            labels.insert(LABEL_STAGED.to_owned(), stamp(let_go));
        }
        if let Some(since) = self.time(written.source_missing.as_deref(), &at("sourceMissing")) {
            labels.insert(LABEL_MISSING.to_owned(), stamp(since));
        }
        let slots = written.slot.as_ref()?;
        let is_list = slots.0.len() > 1;
        let mut read = Vec::new();
        for (position, text) in slots.0.iter().enumerate() {
            let pointer = if is_list { format!("{pointer}/slot/{position}") } else { at("slot") };
            if let Ok(instant) = text.parse::<Timestamp>() {
                read.push(Slot::at(instant));
            } else {
                let message = format!("`{text}` is not an instant");
                let hint = "write it like `2026-12-01T02:00:00Z`";
                self.find(Code::BadTime, &pointer, message, hint);
            }
        }
        let stage = if let_go.is_some() { Stage::Deprecated } else { Stage::Active };
        Some(Images {
            pointer: pointer.to_owned(),
            policy: named(written.policy.as_ref(), pointer, "policy"),
            source: named(written.source.as_ref(), pointer, "source"),
            slots: read,
            state: written.state.unwrap_or(ImageState::Ready),
            stage: written.stage.unwrap_or(stage),
            labels,
            in_use_by: written.in_use_by.clone().unwrap_or_default().0,
            location: written.location.clone(),
            copy: written.copy.unwrap_or(false),
        })
    }

    fn expect(&mut self, written: &ExpectSpec, pointer: &str) -> Expect {
        let fates = [
            (Fate::Created, &written.created),
            (Fate::Kept, &written.kept),
            (Fate::Deprecated, &written.deprecated),
            (Fate::Obsoleted, &written.obsoleted),
            (Fate::InGrace, &written.in_grace),
            (Fate::Reactivated, &written.reactivated),
            (Fate::Deleted, &written.deleted),
            (Fate::HeldBack, &written.held_back),
            (Fate::Copied, &written.copied),
            (Fate::Drilled, &written.drilled),
        ];
        let mut expect = Expect::default();
        for (fate, points) in fates {
            if let Some(points) = points {
                let points = self.points(points, &format!("{pointer}/{}", fate.key()));
                expect.points.insert(fate, points);
            }
        }
        let sources = [
            ("selected", &written.selected),
            ("unprotected", &written.unprotected),
            ("exempt", &written.exempt),
            ("stalled", &written.stalled),
            ("blocked", &written.blocked),
        ];
        for (key, names) in sources {
            if let Some(names) = names {
                expect.sources.insert(key, names.clone());
            }
        }
        expect.next = written.next.as_ref().map(|texts| {
            let mut slots = Vec::new();
            for (position, text) in texts.iter().enumerate() {
                let pointer = format!("{pointer}/next/{position}");
                slots.extend(self.time(Some(text), &pointer).map(Slot::at));
            }
            slots
        });
        for (position, word) in written.findings.iter().flatten().enumerate() {
            if !Code::ALL.iter().any(|code| code.word() == word) {
                let words: Vec<&str> = Code::ALL.iter().map(|code| code.word()).collect();
                let pointer = format!("{pointer}/findings/{position}");
                self.unknown(word, &words, "finding", &pointer);
            }
        }
        expect.findings.clone_from(&written.findings);
        expect.missed = written.missed;
        expect.refused.clone_from(&written.refused);
        expect.nothing = written.nothing;
        let others = ExpectSpec { findings: None, ..written.clone() };
        let is_bare = serde_json::to_value(others).is_ok_and(|json| json == serde_json::json!({}));
        expect.only_findings = is_bare && written.findings.is_some();
        expect
    }

    fn points(&mut self, written: &PointsSpec, pointer: &str) -> Points {
        let map = &written.0;
        let mut several = |texts: Option<&Vec<String>>, key: &str| {
            let texts = texts.map(|texts| Texts(texts.clone()));
            self.patterns(texts.as_ref(), &format!("{pointer}/{key}"))
        };
        let slots = map.slots.is_some().then(|| several(map.slots.as_ref(), "slots"));
        let (has, lacks) = (several(map.has.as_ref(), "has"), several(map.lacks.as_ref(), "lacks"));
        let mut one =
            |text: Option<&String>, key: &str| self.pattern(text?, &format!("{pointer}/{key}"));
        let (oldest, newest) =
            (one(map.oldest.as_ref(), "oldest"), one(map.newest.as_ref(), "newest"));
        let mut reasons = Vec::new();
        for (text, code) in map.reasons.iter().flatten() {
            let pattern = self.pattern(text, &format!("{pointer}/reasons/{}", escape(text)));
            reasons.extend(pattern.map(|pattern| (pattern, *code)));
        }
        let mut by_reason = Vec::new();
        for (word, count) in map.by_reason.iter().flatten() {
            if let Some(code) = ReasonCode::ALL.iter().find(|code| code.word() == word) {
                by_reason.push((*code, *count));
            } else {
                let words: Vec<&str> = ReasonCode::ALL.iter().map(|code| code.word()).collect();
                let pointer = format!("{pointer}/byReason/{}", escape(word));
                self.unknown(word, &words, "reason", &pointer);
            }
        }
        Points {
            location: map.location.clone(),
            count: map.count,
            at_least: map.at_least,
            at_most: map.at_most,
            slots,
            has,
            lacks,
            oldest,
            newest,
            reasons,
            by_reason,
        }
    }

    /// A word that is not known, as a value or as a key.
    fn unknown(&mut self, word: &str, known: &[&str], what: &str, pointer: &str) {
        let hint = match get_close_matches(word, known, 1, 0.6).first() {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("known are {}", known.join(", ")),
        };
        self.find(Code::UnknownValue, pointer, format!("there is no {what} `{word}`"), &hint);
    }

    fn patterns(&mut self, texts: Option<&Texts>, pointer: &str) -> Vec<SlotPattern> {
        let mut patterns = Vec::new();
        for (position, text) in texts.iter().flat_map(|texts| &texts.0).enumerate() {
            // A list, a text alone, or a list that stands for its mapping.
            let item = format!("{pointer}/{position}");
            let short = pointer.strip_suffix("/slots").map(|parent| format!("{parent}/{position}"));
            let is_there = |pointer: &String| self.text.node.at(pointer).is_some();
            let at = [Some(item), short].into_iter().flatten().find(is_there);
            let at = at.unwrap_or_else(|| pointer.to_owned());
            patterns.extend(self.pattern(text, &at));
        }
        patterns
    }

    fn pattern(&mut self, text: &str, pointer: &str) -> Option<SlotPattern> {
        match SlotPattern::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(message) => {
                self.find(Code::BadPattern, pointer, message, FORMS);
                None
            }
        }
    }

    fn time(&mut self, text: Option<&str>, pointer: &str) -> Option<Timestamp> {
        let text = text?;
        let time = instant(text);
        if time.is_none() {
            let hint = "write an instant like `2026-12-01T08:00:00Z`, or a day, which is its beginning in UTC";
            self.find(Code::BadTime, pointer, format!("`{text}` is not a time"), hint);
        }
        time
    }
}

fn named(name: Option<&String>, pointer: &str, key: &str) -> Option<Named> {
    name.map(|name| Named { name: name.clone(), pointer: format!("{pointer}/{key}") })
}
