//! Runs the cases of a test document over policies.

use std::collections::BTreeMap;

use serde_json::json;
use similar::get_close_matches;

use super::case::{Case, Images, Named, Source, Suite};
use super::history::{Stretch, carry_out};
use super::judge::{Failure, Judge};
use super::outcome::{Outcome, Scope};
use super::world::{NewImage, World, instance};
use super::written::How;
use crate::desired::mark_of;
use crate::inventory::LABEL_MISSING;
use crate::name::{Key, PolicyName};
use crate::policy::finding::{Code, Finding, Place};
use crate::policy::select::Decision;
use crate::policy::{Loaded, Policies, Policy};

/// How a case went.
#[derive(Debug)]
pub struct Verdict {
    /// The name of its document.
    pub suite: String,
    /// Its name.
    pub case: String,
    /// Where its name stands.
    pub place: Place,
    /// The expectations that are not met.
    pub failures: Vec<Failure>,
}

impl Verdict {
    /// Whether every expectation is met.
    pub fn has_passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Worlds after their histories, by what is given: cases that share it share the work.
type Worlds = BTreeMap<String, World>;

impl Suite {
    /// Whether a case needs policies without mistakes.
    pub fn needs_policies(&self) -> bool {
        self.cases.iter().any(|case| !case.expect.only_findings)
    }
}

/// Runs the cases of one document.
pub struct Runner<'a> {
    suite: &'a Suite,
    loaded: &'a Loaded,
    worlds: Worlds,
}

impl<'a> Runner<'a> {
    /// A document and the policies it runs over.
    pub fn new(suite: &'a Suite, loaded: &'a Loaded) -> Self {
        Self { suite, loaded, worlds: Worlds::new() }
    }

    /// Runs a case, unless names in it fit nothing, which are findings, or the policies have
    /// mistakes that it says nothing of.
    pub fn run(&mut self, case: &Case) -> (Option<Verdict>, Vec<Finding>) {
        let mut findings = Vec::new();
        let outcome = self.outcome(case, &mut findings);
        let verdict = outcome.map(|outcome| Verdict {
            suite: self.suite.name.clone(),
            case: case.name.clone(),
            place: case.place.clone(),
            failures: Judge::new(&self.suite.text, case, &outcome).judge(),
        });
        (verdict, findings)
    }

    fn outcome(&mut self, case: &Case, findings: &mut Vec<Finding>) -> Option<Outcome> {
        let mut found = self.loaded.findings.clone();
        let policies = self.loaded.policies.as_ref();
        found.extend(policies.iter().flat_map(|policies| policies.expired(case.now)));
        let named = case.policy.as_ref().map(|policy| policy.name.as_str());
        let mut outcome = Outcome::of_findings(&found, named);
        if case.expect.only_findings && policies.is_none() {
            return Some(outcome);
        }
        let mut setting = Setting { suite: self.suite, case, policies: policies?, findings };
        let scope = setting.scope();
        let mut world = setting.world(&mut self.worlds);
        if !findings.is_empty() {
            return None;
        }
        outcome.look(scope, case, world.as_mut()?.at(case.now), case.now);
        Some(outcome)
    }
}

/// A case with the policies it runs over.
struct Setting<'a, 'f> {
    suite: &'a Suite,
    case: &'a Case,
    policies: &'a Policies,
    findings: &'f mut Vec<Finding>,
}

impl<'a> Setting<'a, '_> {
    fn find(&mut self, pointer: &str, message: String, hint: Option<String>) {
        let place = self.suite.text.place(pointer);
        self.findings.push(Finding::new(Code::BadTest, place, message).maybe_hint(hint));
    }

    fn unknown(&mut self, what: &str, named: &Named, known: &[&str]) {
        let hint = match (get_close_matches(named.name.as_str(), known, 1, 0.6).first(), known) {
            (Some(close), _) => format!("did you mean `{close}`?"),
            (None, []) => format!("there is no {what} at all"),
            (None, known) => format!("there are {}", known.join(", ")),
        };
        self.find(&named.pointer, format!("there is no {what} `{}`", named.name), Some(hint));
    }

    fn policy(&mut self, named: &Named) -> Option<&'a Policy> {
        let policies = self.policies;
        let name = PolicyName::parse(&named.name).ok();
        let found = name.and_then(|name| policies.keeper(&name));
        if found.is_none() {
            let known: Vec<&str> = policies.all().map(|policy| policy.name.as_str()).collect();
            self.unknown("policy", named, &known);
        }
        found
    }

    fn source(&mut self, named: &Named) -> Option<&'a Source> {
        let sources = &self.case.sources;
        let is_it =
            |source: &&Source| source.name == named.name || source.id.as_str() == named.name;
        let found = sources.iter().find(is_it);
        if found.is_none() {
            let known: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
            self.unknown("source", named, &known);
        }
        found
    }

    /// The engine of a source: its own, that of the document, or the only one there is.
    fn engine(&mut self, source: &Source) -> Option<&'a str> {
        let engines = &self.policies.config.engines;
        let known: Vec<&'a str> = engines.keys().map(String::as_str).collect();
        match (source.engine.as_ref().or(self.suite.engine.as_ref()), known.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => {
                let message = format!("nothing says which engine holds {}", source.name);
                let hint = format!("write `engine` under `spec`, one of {}", known.join(", "));
                self.find("/spec", message, Some(hint));
                None
            }
            (Some(named), known) => {
                let found = known.iter().copied().find(|name| *name == named.name);
                if found.is_none() {
                    self.unknown("engine", named, known);
                }
                found
            }
        }
    }

    fn scope(&mut self) -> Scope<'a> {
        let case = self.case;
        Scope {
            policies: self.policies,
            policy: case.policy.as_ref().and_then(|named| self.policy(named)),
            source: case.source.as_ref().and_then(|named| self.source(named)).map(|one| &one.id),
        }
    }

    /// The world with its histories and its images; `None` where something is wrong with it.
    fn world(&mut self, worlds: &mut Worlds) -> Option<World> {
        let case = self.case;
        let before = self.findings.len();
        let mut sources = Vec::new();
        for source in &case.sources {
            if let Some(engine) = self.engine(source) {
                sources.push((engine.to_owned(), source.clone()));
            }
        }
        let stretches = self.stretches(&sources);
        let images: Vec<_> = case.images.iter().filter_map(|one| self.images(one)).collect();
        if self.findings.len() > before {
            return None;
        }
        let key = self.given();
        let mut world = worlds.get(&key).cloned().unwrap_or_else(|| {
            let mut world = World::new(&self.policies.config, sources);
            carry_out(&stretches, self.policies, &mut world);
            world
        });
        if !stretches.is_empty() {
            worlds.entry(key).or_insert_with(|| world.clone());
        }
        for given in &images {
            given.put(&mut world);
        }
        Some(world)
    }

    /// All that a world with its histories is made of.
    fn given(&self) -> String {
        let node = &self.suite.text.node;
        let json = |pointer: &str| node.at(pointer).map(crate::policy::yaml::Node::to_json);
        let name = |named: &Option<Named>| named.as_ref().map(|named| named.name.clone());
        let pointer = &self.case.pointer;
        let untils: Vec<_> = self.case.histories.iter().map(|one| one.until).collect();
        let sources = [json("/spec/sources"), json(&format!("{pointer}/given/sources"))];
        let history = json(&format!("{pointer}/given/history"));
        json!([sources, history, untils, name(&self.case.policy), name(&self.case.source)])
            .to_string()
    }

    fn stretches(&mut self, sources: &[(String, Source)]) -> Vec<Stretch<'a>> {
        let case = self.case;
        let mut stretches = Vec::new();
        for history in &case.histories {
            let Some(named) = history.policy.as_ref().or(case.policy.as_ref()) else {
                let hint = "write `policy` here, in the case or in `spec`".to_owned();
                self.find(&history.pointer, "the history names no policy".to_owned(), Some(hint));
                continue;
            };
            let Some(policy) = self.policy(named) else { continue };
            let is_selected = |source: &Source| {
                matches!(policy.selection.decide(&instance(source)), Decision::Selected(_))
            };
            let on_engine = sources.iter().filter(|(engine, _)| *engine == policy.engine);
            let on_engine: Vec<&Source> = on_engine.map(|(_, source)| source).collect();
            let of: Vec<Source> = match history.source.as_ref().or(case.source.as_ref()) {
                None => {
                    on_engine.into_iter().filter(|source| is_selected(source)).cloned().collect()
                }
                Some(named) => {
                    let Some(source) = self.source(named) else { continue };
                    let is_there = on_engine.iter().any(|one| one.id == source.id);
                    // What a policy does not select it never captures; a plain history may say
                    // that it did once.
                    if !is_there || (history.how == How::Planned && !is_selected(source)) {
                        let message = format!("{} does not select {}", policy.name, source.name);
                        let hint = "its name, labels, zone and engine say whether it does; `how: plain` does not ask".to_owned();
                        self.find(&named.pointer, message, Some(hint));
                        continue;
                    }
                    vec![source.clone()]
                }
            };
            if of.is_empty() {
                let message = format!("{} selects none of the sources", policy.name);
                self.find(&history.pointer, message, None);
                continue;
            }
            match Stretch::new(history, policy, of) {
                Ok(stretch) => stretches.push(stretch),
                Err(mistakes) => {
                    for (key, message) in mistakes {
                        self.find(&format!("{}/{key}", history.pointer), message, None);
                    }
                }
            }
        }
        stretches
    }

    /// Images with the policy and the source they are of.
    fn images(&mut self, images: &'a Images) -> Option<Given<'a>> {
        let case = self.case;
        let (policy, source) = (
            images.policy.as_ref().or(case.policy.as_ref()),
            images.source.as_ref().or(case.source.as_ref()),
        );
        for (key, is_missing) in [("policy", policy.is_none()), ("source", source.is_none())] {
            if is_missing {
                let message = format!("the image names no {key}");
                let hint = format!("write `{key}` here, in the case or in `spec`");
                self.find(&images.pointer, message, Some(hint));
            }
        }
        let policy = policy.and_then(|named| {
            // A name that the policy had before is part of the identity of the image.
            Some((PolicyName::parse(&named.name).ok(), self.policy(named)?))
        });
        let source = source.and_then(|named| self.source(named));
        let ((name, policy), source) = (policy?, source?);
        Some(Given { images, name: name?, policy, source, engine: self.engine(source)? })
    }
}

/// Images with what they are of.
struct Given<'a> {
    images: &'a Images,
    name: PolicyName,
    policy: &'a Policy,
    source: &'a Source,
    engine: &'a str,
}

impl Given<'_> {
    fn put(&self, world: &mut World) {
        let images = self.images;
        for slot in &images.slots {
            let key =
                Key { policy: self.name.clone(), source: self.source.id.clone(), slot: *slot };
            let new = NewImage {
                engine: self.engine,
                key: &key,
                policy: self.policy,
                created_at: slot.instant(),
                state: images.state,
                location: images.location.clone(),
                copy: images.copy,
            };
            world.add(&new, |image| {
                image.stage = images.stage;
                image.labels.extend(images.labels.clone());
                if let Some(since) = image.labels.remove(LABEL_MISSING) {
                    image.labels.insert(mark_of(self.policy).to_owned(), since);
                }
                image.in_use_by.clone_from(&images.in_use_by);
            });
        }
    }
}
