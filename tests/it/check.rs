//! The independent check refuses what a planner with a bug would do.
//!
//! Each bug is planted in good plans: those of a world made for it, in which every bug can be
//! planted, and those of generated worlds. Some bugs change the plan; some change what was there or
//! what the policies say after the plan was made, which is a planner that did not look. No plan of
//! the real planner is refused: that is a law (`laws/plan.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::SignedDuration;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use stillframe::apply::{
    Confirmed, Ending, Hands, Lasting, Ledger, Listener, SecondLook, Stop, apply,
};
use stillframe::clock::FixedClock;
use stillframe::elapsed::Elapsed;
use stillframe::engine::{Engine, Progress};
use stillframe::inventory::{
    Consistency, Disk, Gap, GapScope, Grant, Image, ImageSource, ImageState, Inventory, LABEL_COPY,
    LABEL_HOLD, LABEL_LET_GO, LABEL_MISSING, Stage,
};
use stillframe::name::{Key, Ownership, Slot, SourceId, stamp};
use stillframe::plan::check::{CheckRule, Violation, check, check_rest, refusals};
use stillframe::plan::guard::{Guard, Refusal, refuses, withheld};
use stillframe::plan::{Action, Change, ImageRef, Plan, Reason, ReasonCode, Update, plan};
use stillframe::policy::Policies;
use stillframe::policy::meant::Hold;
use stillframe::policy::select::Patterns;
use stillframe::reconcile::guarded;

use super::engines::room;
use super::memory::{self, MemoryEngine, instance};
use super::support::Random;
use super::worlds::{
    ELSEWHERE, Gone, ImageSpec, More, POLICIES, PolicySpec, SOURCES, World, carry_out, hours_ago,
    now, pace, worlds,
};

/// A good plan, what it was made over, and what it is checked with.
#[derive(Clone)]
struct Case {
    world: World,
    policies: Policies,
    inventory: Inventory,
    plan: Plan,
}

/// A bug: what a planner would do, whether it can do it in a case, and the rule that refuses it.
type Bug = (&'static str, CheckRule, fn(&mut Case) -> bool);

impl Case {
    fn new(world: World) -> Self {
        let (policies, inventory) = (world.policies(), world.inventory());
        let plan = plan(&policies, &inventory, now());
        Self { world, policies, inventory, plan }
    }

    fn violations(&self) -> Vec<Violation> {
        check(&self.plan, &self.inventory, &self.policies, now())
    }

    fn images(&mut self) -> &mut Vec<Image> {
        &mut self.inventory.engines[0].images
    }

    fn image(&mut self, id: &str) -> &mut Image {
        self.images().iter_mut().find(|image| image.id == id).unwrap()
    }

    /// The position of the first change that is like this.
    fn position(&self, is_it: impl Fn(&Change) -> bool) -> Option<usize> {
        self.plan.changes.iter().position(is_it)
    }

    /// Changes the first change of an action.
    fn edit(&mut self, action: Action, edit: impl FnOnce(&mut Change)) -> bool {
        let found = self.plan.changes.iter_mut().find(|change| change.action == action);
        found.map(edit).is_some()
    }

    /// Changes the image of the first delete of a READY image.
    fn edit_deleted(&mut self, edit: impl FnOnce(&mut Image)) -> bool {
        let Some(id) = self.deleted() else { return false };
        edit(self.image(&id));
        true
    }

    /// The id of the first READY image that goes.
    fn deleted(&self) -> Option<String> {
        self.deleted_of(|_| true)
    }

    /// The id of the first READY image that goes and has such a key.
    fn deleted_of(&self, is_it: impl Fn(&Key) -> bool) -> Option<String> {
        let goes = |change: &&Change| {
            change.action == Action::Delete && change.reasons[0].code == ReasonCode::NoRuleKeeps
        };
        let mut deletes = self.plan.changes.iter().filter(goes);
        deletes.find(|change| is_it(&change.key))?.image.id.clone()
    }

    /// The policies as they would be if the world said something else.
    fn policies_with(&mut self, edit: impl Fn(&mut PolicySpec)) -> bool {
        let mut world = self.world.clone();
        world.policies.iter_mut().for_each(edit);
        self.policies = world.policies();
        true
    }

    /// The READY originals of a source, by the policy in the files that looks after them, the newest
    /// last.
    fn series(&self, source: &str) -> BTreeMap<String, Vec<Image>> {
        let mut series: BTreeMap<String, Vec<Image>> = BTreeMap::new();
        for image in &self.inventory.engines[0].images {
            let Ownership::Ours(key) = image.ownership() else { continue };
            let keeper = self.world.keeper(key.policy.as_str()).unwrap_or_default();
            let is_it = key.source.as_str() == source
                && POLICIES[..2].contains(&keeper)
                && image.state == ImageState::Ready
                && !image.is_copy()
                && key.slot.instant() <= now();
            if is_it {
                series.entry(keeper.to_owned()).or_default().push(image.clone());
            }
        }
        for images in series.values_mut() {
            images.sort_by_key(|image| (key_of(image).slot, image.id.clone()));
        }
        series
    }

    /// The newest READY original of a source, of any policy in the files.
    fn newest(&self, source: &str) -> Option<Image> {
        self.series(source).values().find_map(|images| images.last().cloned())
    }

    /// Adds a change with the look of a good one, in its place, and counts again.
    fn forge(&mut self, action: Action, image: &Image, codes: &[ReasonCode]) -> &mut Change {
        let Ownership::Ours(key) = image.ownership() else { panic!("{} is not ours", image.id) };
        let stages = |after: Stage| Update {
            stage_before: image.stage,
            stage_after: after,
            ..Update::default()
        };
        let mut change = Change {
            action,
            engine: "memory".to_owned(),
            source_name: key.source.to_string(),
            key,
            image: ImageRef::of(image),
            reasons: codes.iter().map(|code| Reason::new(*code, "planted")).collect(),
            risk: None,
            newest_ready: None,
            waits_for: None,
            unless: None,
            create: None,
            update: None,
            copy: None,
            drill: None,
        };
        change.update = match action {
            Action::Deprecate => {
                let mut update = stages(image.stage.max(Stage::Deprecated));
                update.set_labels.insert(LABEL_LET_GO.to_owned(), stamp(now()));
                Some(update)
            }
            Action::Obsolete => Some(stages(Stage::Obsolete)),
            Action::Relabel | Action::Drill | Action::Reactivate => Some(stages(image.stage)),
            Action::Create | Action::Copy | Action::Delete => None,
        };
        let (id, slot) = (change.image.id.clone(), change.key.slot);
        self.plan.changes.push(change);
        self.settle();
        let is_it = |change: &&mut Change| {
            change.action == action && change.image.id == id && change.key.slot == slot
        };
        self.plan.changes.iter_mut().find(is_it).unwrap()
    }

    fn forge_delete(&mut self, image: &Image) {
        self.forge(Action::Delete, image, &[ReasonCode::NoRuleKeeps, ReasonCode::GracePassed]);
    }

    /// Puts the changes in order and counts them, so that nothing else is wrong.
    fn settle(&mut self) {
        self.plan.changes.sort_by_key(|change| {
            let slot = (change.action == Action::Delete).then_some(change.key.slot);
            (change.action, slot)
        });
        let changes = &self.plan.changes;
        let count = |action| changes.iter().filter(|change| change.action == action).count();
        let summary = &mut self.plan.summary;
        summary.create = count(Action::Create);
        summary.deprecate = count(Action::Deprecate);
        summary.obsolete = count(Action::Obsolete);
        summary.reactivate = count(Action::Reactivate);
        summary.relabel = count(Action::Relabel);
        summary.copy = count(Action::Copy);
        summary.drill = count(Action::Drill);
        summary.delete = count(Action::Delete);
    }
}

fn key_of(image: &Image) -> Key {
    let Ownership::Ours(key) = image.ownership() else { panic!("{} is not ours", image.id) };
    key
}

/// Gives a create another slot, in every respect.
fn at_slot(change: &mut Change, by: SignedDuration) {
    change.key.slot = Slot::at(change.key.slot.instant() + by);
    rename(change);
    change.create.as_mut().unwrap().deadline += by;
}

/// Gives a create the name and the labels of its key.
fn rename(change: &mut Change) {
    change.image.name = change.key.image_name(&change.key.default_prefix());
    change.create.as_mut().unwrap().labels.extend(change.key.labels());
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

const BUGS: [Bug; 61] = [
    ("deletes the newest", CheckRule::Floor, |case| {
        let newest = case.newest("web-1");
        newest
            .filter(|image| !is_held(case, image) && !has_twin(case, image))
            .map(|image| case.forge_delete(&image))
            .is_some()
    }),
    ("deletes one of `atLeast`", CheckRule::Floor, |case| {
        for (policy, images) in case.series("web-1") {
            let index = POLICIES.iter().position(|name| *name == policy).unwrap();
            let [.., second, newest] = images.as_slice() else { continue };
            let is_free = |image| !is_held(case, image) && !has_twin(case, image);
            let are_free = is_free(second) && is_free(newest);
            if case.world.policies[index].at_least >= 2 && are_free {
                let second = second.clone();
                case.forge_delete(&second);
                return true;
            }
        }
        false
    }),
    ("deletes all of a series", CheckRule::LastOfSeries, |case| delete_all(case, Some("nightly"))),
    ("deletes all that a source has", CheckRule::LastOfSource, |case| delete_all(case, None)),
    ("deletes what is held", CheckRule::Held, |case| {
        case.edit_deleted(|image| {
            image.labels.insert(LABEL_HOLD.to_owned(), "yes".to_owned());
        })
    }),
    ("deletes what is held for a while", CheckRule::Held, |case| {
        case.edit_deleted(|image| {
            let until = format!("until-{}", stamp(hours_ago(-1)));
            image.labels.insert(LABEL_HOLD.to_owned(), until);
        })
    }),
    ("does not see a hold of the policy", CheckRule::Held, |case| {
        let name = case.deleted().map(|id| key_of(case.image(&id)).policy.to_string());
        let has_holds = name.is_some_and(|name| name == "nightly");
        has_holds && {
            let patterns = everything();
            for policy in &mut case.policies.policies {
                policy.holds = vec![Hold {
                    place: policy.place.clone(),
                    sources: Some(patterns.clone()),
                    images: None,
                    from: None,
                    before: None,
                    until: None,
                    reason: "case".to_owned(),
                }];
            }
            true
        }
    }),
    ("deletes what is foreign", CheckRule::Ownership, |case| {
        case.edit_deleted(|image| image.labels.clear())
    }),
    ("deletes what carries edited labels", CheckRule::Ownership, |case| {
        case.edit_deleted(|image| {
            image.labels.insert("stillframe-slot".to_owned(), stamp(hours_ago(1)));
        })
    }),
    ("deletes what belongs to no policy", CheckRule::Keeper, |case| {
        let Some(id) = case.deleted() else { return false };
        let policy = key_of(case.image(&id)).policy;
        case.policies.policies.retain(|one| one.name != policy);
        case.policies.removed.retain(|one| one.name != policy);
        case.policies.moved.remove(&policy);
        true
    }),
    ("deletes what was never let go", CheckRule::DeprecateFirst, |case| {
        case.edit_deleted(|image| drop(image.labels.remove(LABEL_LET_GO)))
    }),
    ("deletes what somebody has made active again", CheckRule::DeprecateFirst, |case| {
        case.edit_deleted(|image| image.stage = Stage::Active)
    }),
    ("deletes within the grace", CheckRule::DeprecateFirst, |case| {
        let Some(id) = case.deleted() else { return false };
        let policy = key_of(case.image(&id)).policy;
        let policy = case.policies.keeper(&policy).unwrap();
        let grace = policy.lifecycle.grace;
        let since = grace.before(now()) + SignedDuration::from_secs(1);
        case.image(&id).labels.insert(LABEL_LET_GO.to_owned(), stamp(since));
        true
    }),
    ("deletes another version of an image", CheckRule::Binding, |case| {
        case.edit_deleted(|image| "other".clone_into(&mut image.fingerprint))
    }),
    ("deletes another image of the name", CheckRule::Binding, |case| {
        case.edit_deleted(|image| image.created_at = hours_ago(1))
    }),
    ("deletes under another name", CheckRule::Binding, |case| {
        case.edit(Action::Delete, |change| change.image.name.push('x'))
    }),
    ("deletes what is not there", CheckRule::Binding, |case| {
        case.edit(Action::Delete, |change| change.image.id = Some("nothing".to_owned()))
    }),
    ("deletes although images were not seen", CheckRule::Gap, |case| gap(case, GapScope::Images)),
    ("deletes although instances were not seen", CheckRule::Gap, |case| {
        gap(case, GapScope::Instances)
    }),
    ("deletes over a listing with doubles", CheckRule::Gap, |case| {
        let Some(id) = case.deleted() else { return false };
        let double = case.images().iter().find(|image| image.id != id).cloned();
        double.map(|double| case.images().push(double)).is_some()
    }),
    ("deletes what is in use", CheckRule::InUse, |case| {
        case.edit_deleted(|image| image.in_use_by.push("vm".to_owned()))
    }),
    ("deletes for a wrong reason", CheckRule::Reason, |case| {
        let id = case.deleted();
        let found = case.plan.changes.iter_mut().find(|one| id.is_some() && one.image.id == id);
        found.map(|change| change.reasons[0].code = ReasonCode::FailedAttempt).is_some()
    }),
    ("deletes for no reason", CheckRule::Reason, |case| {
        case.edit(Action::Delete, |change| change.reasons.clear())
    }),
    ("deletes what a rule keeps", CheckRule::StillKept, |case| {
        // The newest stays, whatever the rules.
        let Some(image) = case.newest("web-2") else { return false };
        let since = stamp(hours_ago(24 * 30));
        case.image(&image.id).labels.insert(LABEL_LET_GO.to_owned(), since);
        case.forge_delete(&image);
        true
    }),
    ("lets go of what a rule keeps", CheckRule::StillKept, |case| {
        let Some(image) = case.newest("web-1") else { return false };
        case.forge(Action::Deprecate, &image, &[ReasonCode::NoRuleKeeps]);
        true
    }),
    ("lets go of what is held", CheckRule::Held, |case| {
        let Some(position) = case.position(is_let_go) else { return false };
        let id = case.plan.changes[position].image.id.clone().unwrap();
        case.image(&id).labels.insert(LABEL_HOLD.to_owned(), "yes".to_owned());
        true
    }),
    ("lets go without waiting for what comes", CheckRule::StillKept, |case| {
        // Where nothing is stalled, what waits is kept until then.
        let waits = |change: &Change| change.waits_for.is_some() && is_let_go(change);
        let Some(position) = case.position(waits) else { return false };
        let change = &case.plan.changes[position];
        let is_kept = !case.plan.stalled.iter().any(|stalled| {
            stalled.policy == change.key.policy && stalled.source == change.key.source
        });
        case.plan.changes[position].waits_for = None;
        is_kept && case.violations().iter().all(|one| one.rule != CheckRule::Stalled)
    }),
    ("waits for what nobody makes", CheckRule::Reason, |case| {
        let Some(position) = case.position(is_let_go) else { return false };
        case.plan.changes[position].waits_for = Some("nothing".to_owned());
        true
    }),
    ("does both of what is either done or not", CheckRule::Twice, |case| {
        let Some(position) = case.position(|change| change.unless.is_some()) else { return false };
        let change = case.plan.changes[position].clone();
        case.plan.changes[position].unless = None;
        let is_other =
            |other: &Change| other.waits_for == change.unless && other.image.id == change.image.id;
        case.position(is_other).is_some()
    }),
    ("takes away where a capture fails", CheckRule::Reason, |case| {
        case.edit(Action::Delete, |change| change.unless = Some("coming".to_owned()))
    }),
    ("takes a mark away once nobody makes something", CheckRule::Reason, |case| {
        case.edit(Action::Relabel, |change| {
            change.unless = None;
            change.waits_for = Some("nothing".to_owned());
        })
    }),
    ("makes what the schedule does not ask for", CheckRule::CreateSlot, |case| {
        case.edit(Action::Create, |change| at_slot(change, SignedDuration::from_mins(-37)))
    }),
    ("makes what is still to come", CheckRule::CreateSlot, |case| {
        case.edit(Action::Create, |change| at_slot(change, hours(24 * 7)))
    }),
    ("makes what is long past", CheckRule::CreateDeadline, |case| {
        case.edit(Action::Create, |change| at_slot(change, hours(-24 * 7)))
    }),
    ("makes one twice", CheckRule::Twice, |case| {
        let Some(position) = case.position(|change| change.action == Action::Create) else {
            return false;
        };
        let change = case.plan.changes[position].clone();
        case.plan.changes.push(change);
        case.settle();
        true
    }),
    ("makes two of a source at once", CheckRule::CreatePace, |case| {
        case.inventory.engines[0].capabilities.limits = pace();
        let creates = case.plan.changes.iter().filter(|one| one.action == Action::Create);
        let sources: BTreeSet<&SourceId> = creates.clone().map(|one| &one.key.source).collect();
        sources.len() < creates.count()
    }),
    ("makes one too soon after another", CheckRule::CreatePace, |case| {
        case.inventory.engines[0].capabilities.limits = pace();
        let Some(position) = case.position(|change| change.action == Action::Create) else {
            return false;
        };
        let mut key = case.plan.changes[position].key.clone();
        key.slot = Slot::at(now() - SignedDuration::from_hours(9));
        let mut image = memory::image("lately", &key);
        image.created_at = now() - SignedDuration::from_secs(599);
        image.source = Some(ImageSource { id: key.source, name: String::new() });
        image.labels.clear();
        case.images().push(image);
        true
    }),
    ("makes what is there", CheckRule::CreateTaken, |case| {
        let Some(position) = case.position(|change| change.action == Action::Create) else {
            return false;
        };
        let key = case.plan.changes[position].key.clone();
        let mut image = memory::image("there", &key);
        "under-another-name".clone_into(&mut image.name);
        case.images().push(image);
        true
    }),
    ("makes what takes the name of another", CheckRule::CreateTaken, |case| {
        let Some(position) = case.position(|change| change.action == Action::Create) else {
            return false;
        };
        let change = &case.plan.changes[position];
        let mut image = memory::image("stranger", &change.key);
        image.name.clone_from(&change.image.name);
        image.labels.clear();
        case.images().push(image);
        true
    }),
    ("makes one under the labels of another", CheckRule::CreateIdentity, |case| {
        case.edit(Action::Create, |change| {
            let other = Key { source: SourceId::parse("other").unwrap(), ..change.key.clone() };
            change.create.as_mut().unwrap().labels.extend(other.labels());
        })
    }),
    ("makes one under the name of another", CheckRule::CreateIdentity, |case| {
        case.edit(Action::Create, |change| {
            let other = Key { source: SourceId::parse("other").unwrap(), ..change.key.clone() };
            change.image.name = other.image_name(&change.key.default_prefix());
        })
    }),
    ("captures what is gone", CheckRule::CreateSource, |case| {
        let Some(position) = case.position(|change| change.action == Action::Create) else {
            return false;
        };
        let source = case.plan.changes[position].key.source.clone();
        case.inventory.engines[0].instances.retain(|instance| instance.id != source);
        true
    }),
    ("captures a source whose disks were not all seen", CheckRule::CreateSource, |case| {
        let Some(position) = case.position(|change| change.action == Action::Create) else {
            return false;
        };
        let change = &mut case.plan.changes[position];
        let mut instances = case.inventory.engines[0].instances.iter_mut();
        let source = instances.find(|one| one.id == change.key.source).unwrap();
        source.disks.push(Disk::unseen("the list was cut short".to_owned()));
        change.create.as_mut().unwrap().disks.push(Disk::UNSEEN.to_owned());
        true
    }),
    ("goes on with a set of a machine that stood still", CheckRule::CreateTaken, |case| {
        let is_it = |change: &Change| {
            change.create.as_ref().is_some_and(|create| create.replaces.is_none())
        };
        let Some(position) = case.position(is_it) else { return false };
        let change = &mut case.plan.changes[position];
        change.create.as_mut().unwrap().consistency = Consistency::Stopped;
        let mut begun = memory::image("begun", &change.key);
        begun.name.clone_from(&change.image.name);
        begun.state = ImageState::Begun;
        let mut policies = case.policies.policies.iter_mut();
        let policy = policies.find(|policy| policy.name == change.key.policy).unwrap();
        policy.capture.consistency = Consistency::Stopped;
        case.images().push(begun);
        true
    }),
    ("captures not all disks", CheckRule::CreateSource, |case| {
        case.edit(Action::Create, |change| drop(change.create.as_mut().unwrap().disks.pop()))
    }),
    ("creates within a blackout", CheckRule::Paused, |case| {
        let creates = |change: &Change| change.action == Action::Create;
        case.position(creates).is_some() && case.policies_with(|spec| spec.more.blackout = 5)
    }),
    ("creates after the deadline", CheckRule::CreateDeadline, |case| {
        case.edit(Action::Create, |change| change.create.as_mut().unwrap().deadline += hours(48))
    }),
    ("takes the place of what is READY", CheckRule::Replaces, |case| {
        let replaced = case
            .plan
            .changes
            .iter()
            .find_map(|change| change.create.as_ref()?.replaces.as_ref()?.id.clone());
        replaced.map(|id| case.image(&id).state = ImageState::Ready).is_some()
    }),
    ("copies to where no copy is wanted", CheckRule::Copy, |case| {
        case.edit(Action::Copy, |change| {
            "asia".clone_into(&mut change.copy.as_mut().unwrap().location);
        })
    }),
    ("copies what is there already", CheckRule::Copy, |case| {
        let Some(position) = case.position(|change| change.action == Action::Copy) else {
            return false;
        };
        let mut image = memory::image("copied", &case.plan.changes[position].key);
        ELSEWHERE.clone_into(&mut image.location);
        image.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
        case.images().push(image);
        true
    }),
    ("deletes an original without its copy", CheckRule::CopyGate, |case| {
        let Some(id) = case.deleted().filter(|id| !case.clone().image(id).is_copy()) else {
            return false;
        };
        let key = key_of(case.image(&id));
        case.images().retain(|image| !image.is_copy());
        // A removed policy has no copies.
        POLICIES[..3].contains(&key.policy.as_str())
            && case.policies_with(|spec| spec.more.copies = true)
    }),
    ("deletes while paused", CheckRule::Paused, |case| {
        is_in_files(case) && case.policies_with(|spec| spec.paused = true)
    }),
    ("deletes within a freeze", CheckRule::Paused, |case| {
        is_in_files(case) && case.policies_with(|spec| spec.more.blackout = 5)
    }),
    ("deletes of a stalled series", CheckRule::Stalled, |case| {
        let is_there = |key: &Key| SOURCES[..2].contains(&key.source.as_str());
        let Some(id) = case.deleted_of(is_there) else { return false };
        let key = key_of(case.image(&id));
        let is_ordinary = |spec: &PolicySpec| {
            spec.more.schedule == 0 && spec.more.blackout == 0 && !spec.more.stalls_expire
        };
        let index = POLICIES.iter().position(|name| *name == key.policy.as_str()).unwrap();
        let spec = case.world.policies.get(index).cloned();
        for image in case.images() {
            let Ownership::Ours(other) = image.ownership() else { continue };
            if other.source == key.source && other.slot.instant() > hours_ago(24 * 5) {
                image.state = ImageState::Creating;
            }
        }
        spec.is_some_and(|spec| is_ordinary(&spec) && spec.more.stalled_after_days.is_none())
    }),
    ("takes a source for there that is gone", CheckRule::SourceGone, |case| {
        // Where there is no grace, what is gone need not have been gone for it.
        let waits = |key: &Key| {
            let keeper = case.policies.keeper(&key.policy);
            keeper.is_some_and(|policy| policy.lifecycle.source_gone_grace != Elapsed::ZERO)
        };
        let Some(id) = case.deleted_of(waits) else { return false };
        let key = key_of(case.image(&id));
        for image in case.images() {
            image.labels.remove(LABEL_MISSING);
        }
        case.inventory.engines[0].instances.retain(|instance| instance.id != key.source);
        true
    }),
    ("deletes what is left of a source and stays", CheckRule::SourceGone, |case| {
        let is_gone = case.deleted().is_some_and(|id| {
            let key = key_of(case.image(&id));
            !SOURCES[..2].contains(&key.source.as_str())
                && POLICIES[..2].contains(&key.policy.as_str())
        });
        is_gone && case.policies_with(|spec| spec.more.on_source_gone = 1)
    }),
    ("deletes before it creates", CheckRule::Order, |case| {
        let both = [Action::Create, Action::Delete];
        let has = |action| case.position(|change: &Change| change.action == action).is_some();
        let has_both = both.into_iter().all(has);
        case.plan.changes.reverse();
        has_both
    }),
    ("deletes a newer one first", CheckRule::Order, |case| {
        let changes = &case.plan.changes;
        let pairs =
            (0..changes.len()).flat_map(|one| (one + 1..changes.len()).map(move |two| (one, two)));
        let are_out_of_order = |(one, two): &(usize, usize)| {
            let (one, two) = (&changes[*one], &changes[*two]);
            one.action == Action::Delete
                && two.action == Action::Delete
                && (&one.key.policy, &one.key.source) == (&two.key.policy, &two.key.source)
                && one.key.slot < two.key.slot
        };
        let Some((one, two)) = pairs.into_iter().find(are_out_of_order) else { return false };
        case.plan.changes.swap(one, two);
        true
    }),
    ("says less than it does", CheckRule::Summary, |case| {
        let has = case.plan.summary.delete > 0;
        case.plan.summary.delete = 0;
        has
    }),
    ("brings back what no rule keeps", CheckRule::NotKept, |case| {
        let Some(id) = case.deleted() else { return false };
        let image = case.image(&id).clone();
        case.plan.changes.retain(|change| change.image.id.as_ref() != Some(&id));
        case.forge(Action::Reactivate, &image, &[ReasonCode::KeptAgain]);
        true
    }),
    ("says that it let go long ago", CheckRule::Mark, |case| {
        let Some(position) = case.position(is_let_go) else { return false };
        let labels = &mut case.plan.changes[position].update.as_mut().unwrap().set_labels;
        labels.insert(LABEL_LET_GO.to_owned(), stamp(hours_ago(100)));
        true
    }),
];

/// More of them: what is neither made nor deleted.
const MORE_BUGS: [Bug; 14] = [
    ("takes an ownership label away", CheckRule::Mark, |case| {
        let Some(position) = case.position(|change| change.update.is_some()) else { return false };
        let update = case.plan.changes[position].update.as_mut().unwrap();
        update.remove_labels.push("stillframe-key".to_owned());
        true
    }),
    ("goes a stage too far", CheckRule::Mark, |case| {
        case.edit(Action::Deprecate, |change| {
            change.update.as_mut().unwrap().stage_after = Stage::Obsolete;
        })
    }),
    ("clears an attempt away that nothing has superseded", CheckRule::FailedAttempt, |case| {
        let touched: Vec<Option<String>> =
            case.plan.changes.iter().map(|change| change.image.id.clone()).collect();
        let failed = case.images().iter().find(|image| {
            let Ownership::Ours(key) = image.ownership() else { return false };
            image.state == ImageState::Failed
                && !touched.contains(&Some(image.id.clone()))
                && POLICIES[..2].contains(&key.policy.as_str())
        });
        let Some(mut failed) = failed.cloned() else { return false };
        let key = key_of(&failed);
        // All that is READY of its source is older.
        for image in case.images() {
            let Ownership::Ours(other) = image.ownership() else { continue };
            if other.source == key.source && other.slot >= key.slot && image.id != failed.id {
                image.state = ImageState::Creating;
            }
        }
        failed.created_at = hours_ago(1);
        case.image(&failed.id).created_at = hours_ago(1);
        case.forge(Action::Delete, &failed, &[ReasonCode::FailedAttempt]);
        true
    }),
    ("lets go of the last of a disk", CheckRule::FailedAttempt, |case| {
        let since = hours_ago(34);
        remainders(case, since, &["data"], |_| true)
    }),
    ("lets go for what may be replaced", CheckRule::FailedAttempt, |case| {
        remainders(case, hours_ago(10), &["boot", "data"], |spec| spec.more.schedule == 0)
    }),
    ("deletes what is being made", CheckRule::State, |case| {
        case.edit_deleted(|image| image.state = ImageState::Creating)
    }),
    ("deprecates what is not old enough", CheckRule::Age, |case| {
        let is_step = |change: &Change| change.reasons[0].code == ReasonCode::DeprecateAfter;
        case.position(is_step).is_some()
            && case.policies_with(|spec| spec.more.deprecate_after_days = None)
    }),
    ("deprecates the newest", CheckRule::Age, |case| {
        let Some(image) = case.newest("web-1") else { return false };
        let change = case.forge(Action::Deprecate, &image, &[ReasonCode::DeprecateAfter]);
        change.update.as_mut().unwrap().set_labels.clear();
        true
    }),
    ("shares with others", CheckRule::Sharing, |case| {
        case.edit(Action::Create, |change| {
            let all = Grant { role: "owner".to_owned(), members: vec!["all".to_owned()] };
            change.create.as_mut().unwrap().sharing = Some(vec![all]);
        })
    }),
    ("tries what no drill asks for", CheckRule::Drill, |case| {
        let Some(image) = case.newest("web-1") else { return false };
        case.forge(Action::Drill, &image, &[ReasonCode::DrillDue]);
        case.policies_with(|spec| spec.more.drill = false)
    }),
    ("marks a source as missing that is there", CheckRule::SourceMark, |case| {
        let Some(image) = case.newest("web-1") else { return false };
        let change = case.forge(Action::Relabel, &image, &[ReasonCode::SourceMissing]);
        let labels = &mut change.update.as_mut().unwrap().set_labels;
        labels.insert(LABEL_MISSING.to_owned(), stamp(now()));
        true
    }),
    ("says that a source was missing long ago", CheckRule::Mark, |case| {
        let sets = |change: &&mut Change| {
            change.update.as_ref().is_some_and(|one| one.set_labels.contains_key(LABEL_MISSING))
        };
        let Some(change) = case.plan.changes.iter_mut().find(sets) else { return false };
        let labels = &mut change.update.as_mut().unwrap().set_labels;
        labels.insert(LABEL_MISSING.to_owned(), stamp(hours_ago(24 * 30)));
        true
    }),
    ("relabels for no reason", CheckRule::Reason, |case| {
        let Some(image) = case.newest("web-1") else { return false };
        case.forge(Action::Relabel, &image, &[]);
        true
    }),
    ("brings back for a wrong reason", CheckRule::Reason, |case| {
        case.edit(Action::Reactivate, |change| change.reasons[0].code = ReasonCode::GracePassed)
    }),
];

fn everything() -> Patterns {
    let texts = serde_json::from_value(serde_json::json!(["*"])).unwrap();
    Patterns::new(&texts).unwrap()
}

fn is_let_go(change: &Change) -> bool {
    change.action == Action::Deprecate && change.reasons[0].code == ReasonCode::NoRuleKeeps
}

fn is_held(case: &Case, image: &Image) -> bool {
    let key = key_of(image);
    let policy = case.policies.keeper(&key.policy).unwrap();
    image.is_held(now()) || policy.hold_on(&key, image, Some(key.source.as_str()), now()).is_some()
}

/// Whether another image stands for the same restore point.
fn has_twin(case: &Case, image: &Image) -> bool {
    let key = key_of(image);
    let all = case.series(key.source.as_str());
    let of_slot = |other: &&Image| key_of(other).slot == key.slot;
    all.values().any(|images| {
        images.iter().any(|other| other.id == image.id) && images.iter().filter(of_slot).count() > 1
    })
}

fn is_in_files(case: &mut Case) -> bool {
    let Some(id) = case.deleted() else { return false };
    let policy = key_of(case.image(&id)).policy;
    case.policies.get(&policy).is_some()
}

fn gap(case: &mut Case, scope: GapScope) -> bool {
    let gap = Gap { scope, place: "page 2".to_owned(), message: String::new() };
    case.inventory.engines[0].gaps.push(gap);
    case.deleted().is_some()
}

/// Makes a failed attempt one of which a disk is left, and lets go of that for another that holds these.
fn remainders(
    case: &mut Case,
    newer: jiff::Timestamp,
    disks: &[&str],
    is_it: impl Fn(&PolicySpec) -> bool,
) -> bool {
    let touched: Vec<Option<String>> =
        case.plan.changes.iter().map(|change| change.image.id.clone()).collect();
    let specs = case.world.policies.clone();
    let failed = case.images().iter().find(|image| {
        let Ownership::Ours(key) = image.ownership() else { return false };
        let index = POLICIES[..2].iter().position(|name| *name == key.policy.as_str());
        image.state == ImageState::Failed
            && !image.is_step()
            && !image.is_copy()
            && !touched.contains(&Some(image.id.clone()))
            && key.slot.instant() < newer
            && index.is_some_and(|index| is_it(&specs[index]))
    });
    let Some(mut failed) = failed.cloned() else { return false };
    let key = key_of(&failed);
    // Nothing newer of its source is there but this.
    case.images().retain(|image| {
        let Ownership::Ours(other) = image.ownership() else { return true };
        other.source != key.source || other.slot < key.slot || image.id == failed.id
    });
    case.plan.changes.retain(|change| change.key.source != key.source);
    let held = |disks: &[&str]| Some(disks.iter().map(|disk| (*disk).to_owned()).collect());
    failed.state = ImageState::Partial;
    failed.disks = held(&["boot", "data"]);
    let mut part = memory::image("newer", &Key { slot: Slot::at(newer), ..key });
    (part.state, part.disks) = (ImageState::Partial, held(disks));
    *case.image(&failed.id) = failed.clone();
    case.images().push(part);
    case.forge(Action::Deprecate, &failed, &[ReasonCode::NewerRemainder]);
    true
}

/// Deletes all READY originals of `web-1`, of one policy or of all; copies are not there.
fn delete_all(case: &mut Case, policy: Option<&str>) -> bool {
    let is_it = |image: &Image| {
        let Ownership::Ours(key) = image.ownership() else { return false };
        key.source.as_str() == "web-1"
            && policy.is_none_or(|policy| key.policy.as_str() == policy)
            && case.policies.keeper(&key.policy).is_some()
            && (policy.is_none() || !image.is_copy())
            && image.state == ImageState::Ready
            && key.slot.instant() <= now()
    };
    // What another name of the policy has made is of the same series.
    if policy.is_some() && case.world.gone.moved {
        return false;
    }
    let images: Vec<Image> =
        case.inventory.engines[0].images.iter().filter(|one| is_it(one)).cloned().collect();
    let orphans = case.inventory.engines[0].images.iter().any(|image| {
        let Ownership::Ours(key) = image.ownership() else { return false };
        key.source.as_str() == "web-1" && case.policies.keeper(&key.policy).is_none()
    });
    case.plan.changes.retain(|change| change.key.source.as_str() != "web-1");
    for image in &images {
        case.forge_delete(image);
    }
    !images.is_empty() && (policy.is_some() || !orphans)
}

fn spec(retention: &[(&'static str, u32)], at_least: u32, more: More) -> PolicySpec {
    let retention = retention.iter().copied().collect();
    PolicySpec { retention, at_least, grace_hours: 24, paused: false, more }
}

/// A world in which every bug can be planted: something of each kind is to be done.
fn rich() -> World {
    let more =
        More { copies: true, deprecate_after_days: Some(2), on_source_gone: 0, ..More::default() };
    let day = |policy, source, days| ImageSpec::plain(policy, source, days);
    let let_go = |mut image: ImageSpec, hours| {
        image.let_go_hours_ago = Some(hours);
        image
    };
    let mut images = vec![
        // Rotation: the newest four stay, one is let go, two go.
        day(0, 0, 0),
        day(0, 0, 1),
        day(0, 0, 2),
        day(0, 0, 3),
        day(0, 0, 4),
        let_go(day(0, 0, 5), 50),
        let_go(day(0, 0, 6), 50),
        // Let go and kept again.
        let_go(day(1, 0, 1), 5),
        day(1, 0, 0),
        // One is to be made, and something waits for it.
        day(1, 1, 1),
        day(1, 1, 2),
        ImageSpec { marked_missing: true, ..day(1, 1, 3) },
        // Gone, not marked; and gone long ago.
        day(1, 2, 3),
        day(0, 2, 20),
        day(0, 2, 21),
        day(0, 2, 22),
        day(0, 2, 23),
        let_go(day(0, 2, 24), 50),
    ];
    // Copies of what goes.
    for days in [5, 6] {
        images.push(ImageSpec { copy: true, ..day(0, 0, days) });
    }
    images.push(ImageSpec { copy: true, ..day(0, 2, 20) });
    images.iter_mut().filter(|image| image.source == 2 && image.policy == 0).for_each(|image| {
        image.marked_missing = true;
    });
    // An attempt at what is due, and one that nothing has superseded.
    images.push(ImageSpec { state: 9, ..day(1, 1, 0) });
    images.push(ImageSpec { state: 9, ..day(0, 1, 3) });
    images.push(day(0, 1, 5));
    World {
        policies: vec![spec(&[("last", 4)], 2, more), spec(&[("last", 3)], 2, More::default())],
        gone: Gone::default(),
        images,
        foreign: 1,
        paced: false,
    }
}

/// Plants each bug where it can be planted; the names of those that were.
fn plant(case: &Case, whence: &str) -> BTreeSet<&'static str> {
    let good = case.violations();
    assert!(good.is_empty(), "{whence}: {good:#?}");
    let mut planted = BTreeSet::new();
    for (name, rule, plant) in BUGS.iter().chain(&MORE_BUGS) {
        let mut case = case.clone();
        if !plant(&mut case) {
            continue;
        }
        planted.insert(*name);
        let found = case.violations();
        assert!(
            found.iter().any(|one| one.rule == *rule),
            "{whence}: a planner that {name} is not refused by {rule}: {found:#?}\n{:#?}",
            case.world
        );
        let refused = refusals(&case.plan, &found);
        assert!(refused.iter().all(|refusal| refusal.guard == Guard::Check), "{refused:#?}");
    }
    planted
}

#[test]
fn every_planted_bug_is_refused_by_its_rule() {
    let planted = plant(&Case::new(rich()), "the rich world");
    let all: BTreeSet<&str> = BUGS.iter().chain(&MORE_BUGS).map(|bug| bug.0).collect();
    let missing: Vec<&&str> = all.difference(&planted).collect();
    assert!(missing.is_empty(), "these could not be planted: {missing:?}");
    assert!(all.len() >= 60, "{}", all.len());
}

#[test]
fn planted_bugs_are_refused_in_any_world() {
    let random = Random::new();
    let config = Config { rng_seed: RngSeed::Fixed(random.seed()), ..Config::default() };
    let count = config.cases / 10;
    let mut runner = TestRunner::new(config);
    let mut planted: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..count {
        let world = worlds().new_tree(&mut runner).unwrap().current();
        for name in plant(&Case::new(world), &random.to_string()) {
            *planted.entry(name).or_default() += 1;
        }
    }
    assert!(count < 10 || planted.len() >= 25, "only {planted:?} could be planted; {random}");
}

/// Remembers what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Listener for Notes {
    fn began(&self, _: usize) {}
    fn progress(&self, _: usize, _: Progress) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
    fn ended(&self, _: usize, _: &Ending) {}
}

/// A second look that finds this.
struct Found(Confirmed);

#[async_trait]
impl SecondLook for Found {
    async fn look(&self, _: &Plan) -> Confirmed {
        self.0.clone()
    }
}

fn owned(refused: &[Refusal]) -> BTreeSet<(String, String)> {
    let pairs = withheld(refused).into_iter();
    pairs.map(|(engine, image)| (engine.to_owned(), image.to_owned())).collect()
}

/// Carries out the plan of a case, where this is refused at first and that at the second look; the
/// actions that were done, those that were refused, and what was told.
async fn carried_out(
    case: &mut Case,
    first: &[Refusal],
    second: &[Refusal],
) -> (BTreeSet<Action>, BTreeSet<Action>, Vec<String>) {
    let clock = Arc::new(FixedClock(now()));
    let engine = MemoryEngine::new(clock.clone());
    for source in [0, 1, 3] {
        engine.add(instance(SOURCES[source], &[]));
    }
    let images = case.images().iter().map(|image| (image.id.clone(), image.clone())).collect();
    engine.world.lock().unwrap().images = images;
    let directory = tempfile::tempdir().unwrap();
    let engines: Vec<Arc<dyn Engine>> = vec![engine];
    let notes = Arc::new(Notes::default());
    let hands = Hands {
        approvals: Vec::new(),
        engines: &engines,
        tempo: BTreeMap::new(),
        withheld: owned(first),
        ledger: Arc::new(Ledger::new(directory.path().join("ledger.ndjson"))),
        clock,
        listener: notes.clone(),
        stop: Stop::default(),
        lasting: Lasting::default(),
        author: None,
    };
    let changes = (0..case.plan.changes.len()).collect();
    let confirmed = Confirmed {
        changes,
        withheld: owned(second),
        refusals: second.to_vec(),
        ..Confirmed::default()
    };
    let outcomes = apply(&case.plan, &hands, &Found(confirmed)).await.outcomes;
    let of = |is_it: fn(&Ending) -> bool| -> BTreeSet<Action> {
        let outcomes = outcomes.iter().filter(|outcome| is_it(&outcome.ending));
        outcomes.map(|outcome| case.plan.changes[outcome.change].action).collect()
    };
    let notes = notes.0.lock().unwrap().clone();
    (of(Ending::is_done), of(|ending| *ending == Ending::Refused), notes)
}

#[tokio::test]
async fn a_plan_that_breaks_a_rule_takes_nothing_away_and_goes_on_making() {
    let mut case = Case::new(rich());
    // Copies need an engine that makes them, and a failed attempt that makes room is taken away.
    case.plan.changes.retain(|change| {
        change.copy.is_none()
            && change.create.as_ref().is_none_or(|create| create.replaces.is_none())
    });
    case.settle();
    let takes = [Action::Relabel, Action::Deprecate, Action::Delete];
    let (done, refused, _) = carried_out(&mut case, &[], &[]).await;
    assert!(takes.iter().all(|action| done.contains(action)), "{done:?}");
    assert!(refused.is_empty());

    case.plan.summary.delete = 0;
    let violations = case.violations();
    let refusals = refusals(&case.plan, &violations);
    let [refusal] = refusals.as_slice() else { panic!("{refusals:?}") };
    assert!(refusal.message.contains("defect of stillframe"), "{}", refusal.message);
    assert!(refusal.message.contains("summary: it says 0 to delete"), "{}", refusal.message);
    assert_eq!(refusal.override_flag, None);
    let (done, refused, _) = carried_out(&mut case, &refusals, &[]).await;
    assert_eq!(done, [Action::Create, Action::Reactivate].into());
    assert_eq!(refused, takes.into());
    // The same where it is found only when everything is looked at again.
    let (done, refused, notes) = carried_out(&mut case, &[], &refusals).await;
    assert_eq!(done, [Action::Create, Action::Reactivate].into());
    assert_eq!(refused, takes.into());
    assert!(notes.iter().any(|note| note.starts_with("refused by check: ")), "{notes:?}");
}

#[tokio::test]
async fn every_round_runs_the_check_at_both_looks() {
    let mut case = Case::new(rich());
    case.edit(Action::Delete, |change| change.reasons.clear());
    let overrides = &[];
    let refused = |refusals: &[Refusal]| refusals.iter().any(|one| one.guard == Guard::Check);
    let good = Case::new(rich());
    let guarded_plan =
        |case: &Case| guarded(case.plan.clone(), &case.policies, &case.inventory, overrides, now());
    assert!(refused(&guarded_plan(&case).refusals));
    assert!(!refused(&guarded_plan(&good).refusals));

    let clock = Arc::new(FixedClock(now()));
    let engine = MemoryEngine::new(clock.clone());
    for source in [0, 1, 3] {
        engine.add(instance(SOURCES[source], &[]));
    }
    let images = case.images().iter().map(|image| (image.id.clone(), image.clone())).collect();
    engine.world.lock().unwrap().images = images;
    let directory = tempfile::tempdir().unwrap();
    // The memory engine makes no copies, and an original waits for none.
    let mut policies = case.policies.clone();
    policies.policies.iter_mut().for_each(|policy| policy.copies.clear());
    let room = room(engine, clock, policies, &directory);
    let plan = room.plan(&room.observe().await, now());
    assert!(plan.summary.delete > 0 && !refused(&plan.refusals), "{:?}", plan.refusals);
    assert!(!refused(&room.look(&plan).await.refusals));
    let mut bad = plan.clone();
    let mark = bad.changes.iter_mut().find(|change| is_let_go(change)).unwrap();
    let labels = &mut mark.update.as_mut().unwrap().set_labels;
    labels.insert(LABEL_LET_GO.to_owned(), stamp(hours_ago(100)));
    let look = room.look(&bad).await;
    assert!(refused(&look.refusals), "{:?}", look.refusals);
    let deletes = bad.changes.iter().filter(|change| change.action == Action::Delete);
    for change in deletes {
        let image = ("memory".to_owned(), change.image.id.clone().unwrap());
        assert!(look.withheld.contains(&image), "{image:?}");
    }
}

#[test]
fn a_violation_is_a_refusal_also_where_nothing_would_be_taken() {
    let mut case = Case::new(rich());
    case.plan.changes.retain(|change| {
        change.action == Action::Create
            && change.create.as_ref().is_some_and(|create| create.replaces.is_none())
    });
    let refusals = refusals(&case.plan, &case.violations());
    assert!(withheld(&refusals).is_empty());
    assert!(refuses(&refusals));
    assert!(!refuses(&[]));
}

#[test]
fn the_rules_have_codes_of_their_own_and_each_is_broken_by_a_bug() {
    let words: BTreeSet<&str> = CheckRule::ALL.iter().map(|rule| rule.word()).collect();
    assert_eq!(words.len(), CheckRule::ALL.len());
    let broken: BTreeSet<CheckRule> = BUGS.iter().chain(&MORE_BUGS).map(|bug| bug.1).collect();
    let never: Vec<&CheckRule> =
        CheckRule::ALL.iter().filter(|rule| !broken.contains(rule)).collect();
    assert!(never.is_empty(), "no bug breaks {never:?}");
}

#[test]
fn what_is_left_is_checked_over_what_is_there_then() {
    let case = Case::new(rich());
    let mut later = case.clone();
    for change in case.plan.changes.iter().filter(|change| change.action == Action::Create) {
        carry_out(&mut later.inventory, change);
    }
    let all: BTreeSet<usize> = (0..case.plan.changes.len()).collect();
    let rest = |case: &Case| check_rest(&case.plan, &all, &case.inventory, &case.policies, now());
    assert_eq!(rest(&later), []);
    later.edit_deleted(|image| image.in_use_by.push("vm".to_owned()));
    let found = rest(&later);
    assert!(found.len() == 1 && found[0].rule == CheckRule::InUse, "{found:?}");
}
