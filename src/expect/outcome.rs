//! What a plan does, in the words of test documents, as far as a case is about it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::case::{Case, Fate};
use crate::inventory::{Image, Inventory, LABEL_LET_GO};
use crate::name::{Key, PolicyName, Slot, SourceId};
use crate::plan::guard::{Guard, guard, withheld};
use crate::plan::{Action, Change, Plan, Reason, ReasonCode, plan};
use crate::policy::select::Decision;
use crate::policy::{Finding, Policies, Policy};

/// A restore point.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) slot: Slot,
    /// What it is called: its slot, and its policy and source where a case is about several.
    pub(super) text: String,
    pub(super) reasons: Vec<ReasonCode>,
    /// Why, for people.
    pub(super) detail: String,
    location: String,
    is_copy: bool,
}

impl Item {
    /// Its name with the codes of its reasons.
    pub(super) fn with_reasons(&self) -> String {
        let words: Vec<&str> = self.reasons.iter().map(|code| code.word()).collect();
        format!("{} ({})", self.text, words.join(", "))
    }
}

/// What a plan does.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    items: BTreeMap<Fate, Vec<Item>>,
    /// Every change in a line.
    pub(super) changes: Vec<String>,
    pub(super) missed: usize,
    pub(super) refused: Vec<Guard>,
    /// What is refused, for people.
    pub(super) refusals: Vec<String>,
    /// Names of sources, by the key of an expectation.
    pub(super) sources: BTreeMap<&'static str, Vec<String>>,
    pub(super) next: Vec<Slot>,
    pub(super) findings: Vec<String>,
}

/// What a case is about; everything where nothing is said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) policies: &'a Policies,
    pub(super) policy: Option<&'a Policy>,
    pub(super) source: Option<&'a SourceId>,
}

impl Scope<'_> {
    fn policy_is(&self, name: &PolicyName) -> bool {
        let keeper = || self.policies.keeper(name).map_or(name, |keeper| &keeper.name);
        self.policy.is_none_or(|policy| policy.name == *keeper())
    }

    fn source_is(&self, id: &SourceId) -> bool {
        self.source.is_none_or(|source| source == id)
    }

    fn holds(&self, key: &Key) -> bool {
        self.policy_is(&key.policy) && self.source_is(&key.source)
    }
}

impl Outcome {
    /// Only what was found in the policies.
    pub(super) fn of_findings(findings: &[Finding], policy: Option<&str>) -> Self {
        let is_about = |finding: &&Finding| match (policy, &finding.policy) {
            (Some(policy), Some(other)) => other.as_str() == policy,
            _ => true,
        };
        let words = findings.iter().filter(is_about).map(|finding| finding.code.word().to_owned());
        Self { findings: words.collect(), ..Self::default() }
    }

    /// Plans, and holds the plan against the guards.
    pub(super) fn look(
        &mut self,
        scope: Scope<'_>,
        case: &Case,
        inventory: &Inventory,
        now: Timestamp,
    ) {
        let plan = plan(scope.policies, inventory, now);
        let refusals = guard(&plan, inventory, scope.policies, &[], now);
        let withheld: BTreeSet<(&str, &str)> = withheld(&refusals);
        for refusal in &refusals {
            self.refused.push(refusal.guard);
            self.refusals.push(format!(
                "the guard {} refuses: {}",
                refusal.guard.word(),
                refusal.message
            ));
        }
        let images = inventory.engines.iter().flat_map(|engine| &engine.images);
        let images = images.map(|image| (image.id.as_str(), image)).collect();
        let mut take = Take { scope, images, outcome: self };
        // What is only for where a capture fails is not what the plan comes to.
        let is_meant = |change: &&Change| change.unless.is_none() && scope.holds(&change.key);
        for change in plan.changes.iter().filter(is_meant) {
            let id = change.image.id.as_deref().unwrap_or_default();
            take.change(change, withheld.contains(&(change.engine.as_str(), id)));
        }
        for kept in plan.kept.iter().filter(|kept| scope.holds(&kept.key)) {
            let is_let_go = kept.reasons.iter().any(|reason| reason.code == ReasonCode::InGrace);
            let fate = if is_let_go { Fate::InGrace } else { Fate::Kept };
            take.item(fate, &kept.key, Some(&kept.id), &kept.reasons);
        }
        for held in plan.held_back.iter().filter(|held| scope.holds(&held.key)) {
            take.item(Fate::HeldBack, &held.key, held.image.id.as_ref(), &held.reasons);
        }
        for items in self.items.values_mut() {
            items.sort_by(|one, other| (one.slot, &one.text).cmp(&(other.slot, &other.text)));
        }
        self.missed =
            plan.missed.iter().filter(|missed| scope.holds(&missed.key)).map(|one| one.slots).sum();
        self.sources(scope, inventory, &plan);
        if let (Some(policy), Some(next)) = (scope.policy, &case.expect.next) {
            self.next = policy.schedule.next_slots(now, next.len());
        }
    }

    fn sources(&mut self, scope: Scope<'_>, inventory: &Inventory, plan: &Plan) {
        let is_about = |id: &SourceId| scope.source_is(id);
        let selected = inventory
            .engines
            .iter()
            .filter(|engine| scope.policy.is_some_and(|policy| policy.engine == engine.name))
            .flat_map(|engine| &engine.instances)
            .filter(|instance| {
                let decide = |policy: &Policy| {
                    matches!(policy.selection.decide(instance), Decision::Selected(_))
                };
                scope.policy.is_some_and(decide)
            });
        let unprotected = plan.unprotected.iter().filter(|one| is_about(&one.id));
        let exempt = plan.exempt.iter().filter(|one| is_about(&one.id));
        let stalled =
            plan.stalled.iter().filter(|one| scope.policy_is(&one.policy) && is_about(&one.source));
        let blocked = plan.blocked.iter().filter(|one| scope.holds(&one.key));
        self.sources = BTreeMap::from([
            ("selected", selected.map(|instance| instance.name.clone()).collect()),
            ("unprotected", unprotected.map(|one| one.name.clone()).collect()),
            ("exempt", exempt.map(|one| one.name.clone()).collect()),
            ("stalled", stalled.map(|one| one.source_name.clone()).collect()),
            ("blocked", blocked.map(|one| one.source_name.clone()).collect()),
        ]);
    }

    /// The restore points of a fate: those of a location, or those that are no copies.
    pub(super) fn items(&self, fate: Fate, location: Option<&str>) -> Vec<&Item> {
        let is_meant = |item: &&Item| match location {
            Some(location) => item.location == location,
            None => !item.is_copy,
        };
        self.items.get(&fate).into_iter().flatten().filter(is_meant).collect()
    }

    /// All restore points by what becomes of them.
    pub(super) fn fates(&self) -> impl Iterator<Item = (Fate, &[Item])> {
        self.items.iter().map(|(fate, items)| (*fate, items.as_slice()))
    }
}

/// Takes a plan apart.
struct Take<'a> {
    scope: Scope<'a>,
    /// By their ids, which are of one kind on all engines of a world.
    images: BTreeMap<&'a str, &'a Image>,
    outcome: &'a mut Outcome,
}

impl Take<'_> {
    fn change(&mut self, change: &Change, is_withheld: bool) {
        let update = change.update.as_ref();
        let is_let_go = update.is_some_and(|update| update.set_labels.contains_key(LABEL_LET_GO));
        let fates: &[Fate] = match change.action {
            Action::Create => &[Fate::Created],
            Action::Deprecate if is_let_go => &[Fate::Deprecated],
            Action::Deprecate => &[Fate::Deprecated, Fate::Kept],
            Action::Obsolete => &[Fate::Obsoleted, Fate::Kept],
            Action::Reactivate => &[Fate::Reactivated, Fate::Kept],
            Action::Relabel => &[Fate::Kept],
            Action::Copy => &[Fate::Copied],
            Action::Drill => &[Fate::Drilled, Fate::Kept],
            Action::Delete if is_withheld => &[Fate::HeldBack],
            Action::Delete => &[Fate::Deleted],
        };
        for fate in fates {
            self.item(*fate, &change.key, change.image.id.as_ref(), &change.reasons);
            let last = self.outcome.items.get_mut(fate).and_then(|items| items.last_mut());
            if let (Some(item), None) = (last, &change.image.id) {
                item.location.clone_from(&change.image.location);
            }
        }
        if let (Some(copy), Some(item)) = (
            &change.copy,
            self.outcome.items.get_mut(&Fate::Copied).and_then(|items| items.last_mut()),
        ) {
            item.location.clone_from(&copy.location);
        }
        if !is_withheld {
            let text = format!("{} {}", change.action.word(), self.text(&change.key));
            self.outcome.changes.push(text);
        }
    }

    fn item(&mut self, fate: Fate, key: &Key, id: Option<&String>, reasons: &[Reason]) {
        let image = id.and_then(|id| self.images.get(id.as_str()));
        let details: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        let item = Item {
            slot: key.slot,
            text: self.text(key),
            reasons: reasons.iter().map(|reason| reason.code).collect(),
            detail: details.join("; "),
            location: image.map(|image| image.location.clone()).unwrap_or_default(),
            is_copy: image.is_some_and(|image| image.is_copy()),
        };
        self.outcome.items.entry(fate).or_default().push(item);
    }

    fn text(&self, key: &Key) -> String {
        let mut text = String::new();
        if self.scope.policy.is_none() {
            text.push_str(&format!("{} ", key.policy));
        }
        if self.scope.source.is_none() {
            text.push_str(&format!("{} ", key.source));
        }
        text + &key.slot.instant().to_string()
    }
}
