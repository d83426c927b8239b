//! Retention rules that do not say what was meant, with the schedule that they stand beside.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::reach::{Keeper, useless};
use super::rhythm::{Rhythm, key, moved_back, period_length};
use super::{about, is_own, place_of};
use crate::elapsed::Elapsed;
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::{Origin, Policy};
use crate::retention::{Period, Rule};

/// Pairs of a useless rule and one that keeps all that it keeps.
type Pairs = Rc<Vec<(Keeper, Keeper)>>;

/// Useless rules, each schedule and retention looked at once.
#[derive(Default)]
pub(super) struct Useless {
    known: BTreeMap<String, Pairs>,
}

pub(super) fn lint(policy: &Policy, rhythm: &Rhythm, useless: &mut Useless) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(below_period(policy, rhythm));
    let is_written = policy.retention.effective().next().is_some();
    if is_written && is_own(policy, "retention") {
        let unneeded = useless.of(policy, rhythm);
        findings.extend(unneeded.iter().map(|pair| unneeded_rule(policy, *pair)));
        let is_unneeded = |rule: Rule| unneeded.iter().any(|(one, _)| one.rule == rule);
        findings.extend(last_below_day(policy, rhythm).filter(|_| !is_unneeded(Rule::Last)));
        let unfilled = policy.retention.effective().filter(|(rule, _)| !is_unneeded(*rule));
        findings.extend(unfilled.filter_map(|rule| unfilled_tier(policy, rhythm, rule)));
    } else {
        findings.extend(inherited_ages(policy));
    }
    for (length, path) in [
        (policy.lifecycle.deprecate_after, "lifecycle.deprecateAfter"),
        (policy.lifecycle.obsolete_after, "lifecycle.obsoleteAfter"),
    ] {
        findings.extend(length.and_then(|length| never_that_old(policy, rhythm, length, path)));
    }
    findings
}

impl Useless {
    fn of(&mut self, policy: &Policy, rhythm: &Rhythm) -> Pairs {
        let (schedule, retention) = (&policy.schedule, &policy.retention);
        if retention.effective().nth(1).is_none() {
            return Pairs::default();
        }
        let rules = retention.effective().map(|(rule, count)| format!("{}:{count}", rule.word()));
        let text = format!(
            "{} {} {} {}",
            key(schedule),
            schedule.zone.name(),
            rules.collect::<Vec<_>>().join(","),
            retention.at_least
        );
        let known = self.known.entry(text);
        Rc::clone(
            known.or_insert_with(|| Rc::new(useless(&moved_back(schedule), retention, rhythm))),
        )
    }
}

fn path_of(rule: Rule) -> String {
    format!("retention.{}", rule.word())
}

fn unneeded_rule(policy: &Policy, (one, by): (Keeper, Keeper)) -> Finding {
    let message = format!("`{}` keeps nothing that `{}` does not keep", one.text(), by.text());
    let by_path = if by.is_floor { "retention.atLeast".to_owned() } else { path_of(by.rule) };
    let finding = about(policy, Code::UselessRule, &path_of(one.rule), message).hint(
        if one.rule == Rule::Last && !by.is_floor {
            format!(
                "take it out, or write `atLeast: {}` where it is a floor for times without backups",
                one.count
            )
        } else {
            "take it out, or let it reach further".to_owned()
        },
    );
    if by.is_floor && !is_own(policy, &by_path) {
        return finding.label("the newest is always kept");
    }
    finding.related(place_of(policy, &by_path), "this keeps all of it")
}

/// Ages beside each other in the defaults: whatever the schedule, the longest makes the others
/// useless. It is said once, and of no policy.
fn inherited_ages(policy: &Policy) -> Vec<Finding> {
    let ages = || {
        policy.retention.effective().filter_map(|(rule, count)| {
            Some((rule.age_limit(count)?, Keeper::of_rule((rule, count))))
        })
    };
    let is_inherited = |keeper: &Keeper| {
        let path = path_of(keeper.rule);
        let origin = policy.effective.iter().find(|value| value.path == path);
        matches!(origin.map(|value| &value.origin), Some(Origin::Defaults(_)))
    };
    let Some((_, longest)) = ages().max_by_key(|(limit, _)| *limit) else { return Vec::new() };
    ages()
        .map(|(_, keeper)| keeper)
        .filter(|keeper| *keeper != longest && is_inherited(keeper))
        .map(|keeper| {
            let mut finding = unneeded_rule(policy, (keeper, longest));
            finding.policy = None;
            finding
        })
        .collect()
}

/// All rules keep by age, and none as long as from one run to the next.
fn below_period(policy: &Policy, rhythm: &Rhythm) -> Option<Finding> {
    let mut longest: Option<(Elapsed, Rule, u32)> = None;
    for (rule, count) in policy.retention.effective() {
        let limit = rule.age_limit(count)?;
        longest = longest.max(Some((limit, rule, count)));
    }
    let (limit, rule, count) = longest?;
    (limit < rhythm.shortest).then(|| {
        let message = format!(
            "`{}: {count}` keeps no restore point until the next one is made, {} later",
            rule.word(),
            rhythm.shortest
        );
        about(policy, Code::RetentionBelowPeriod, &path_of(rule), message)
            .hint(format!(
                "until then only `atLeast: {}` keeps any; write a longer age, or a rule that counts",
                policy.retention.at_least.max(1)
            ))
            .related(place_of(policy, "schedule.cron"), "the schedule")
    })
}

/// The newest so many do not reach back a day, and nothing keeps the rest of it.
fn last_below_day(policy: &Policy, rhythm: &Rhythm) -> Option<Finding> {
    let rules = &policy.retention.rules;
    let count_of = |rule: Rule| rules.get(&rule).copied().filter(|count| *count > 0);
    let last = count_of(Rule::Last)?;
    let longer = [Rule::Daily, Rule::Weekly, Rule::Monthly, Rule::Yearly]
        .into_iter()
        .find(|rule| count_of(*rule).is_some())?;
    let fills_the_day = [Rule::Hours, Rule::Days, Rule::Weeks, Rule::Hourly];
    if fills_the_day.into_iter().any(|rule| count_of(rule).is_some())
        || u64::from(last) >= rhythm.day_peak
    {
        return None;
    }
    let message = format!("`last: {last}` does not span a day: it has {} runs", rhythm.day_peak);
    Some(
        about(policy, Code::LastBelowDay, &path_of(Rule::Last), message)
            .hint(format!("write `last: {}` or more, or an age like `days: 1`", rhythm.day_peak))
            .related(
                place_of(policy, &path_of(longer)),
                format!("this keeps one of each {}", longer.period().map_or("", Period::word)),
            ),
    )
}

/// A rule that counts periods much shorter than the time between two runs.
fn unfilled_tier(policy: &Policy, rhythm: &Rhythm, (rule, count): (Rule, u32)) -> Option<Finding> {
    let period = rule.period()?;
    if count < 2 || rhythm.shortest.as_seconds() <= 2 * period_length(period) {
        return None;
    }
    let word = period.word();
    let between = rhythm.shortest;
    let reach = Elapsed::seconds(rhythm.spacing(rule).as_seconds() * i64::from(count));
    let message = format!(
        "`{}: {count}` counts {word}s, but {between} or more pass between two runs",
        rule.word()
    );
    let better =
        [Rule::Daily, Rule::Weekly, Rule::Monthly, Rule::Yearly].into_iter().find(|rule| {
            rule.period().is_some_and(|period| between.as_seconds() <= 2 * period_length(period))
        });
    let better = better.map_or("last", Rule::word);
    Some(
        about(policy, Code::TierDoesNotFill, &path_of(rule), message)
            .label(format!("{count} restore points, which reach back about {}", days(reach)))
            .hint(format!("write `{better}: {count}` where that is meant"))
            .related(place_of(policy, "schedule.cron"), "the schedule"),
    )
}

fn days(length: Elapsed) -> String {
    let days = length.as_seconds() / 86_400;
    if days >= 2 { format!("{days} days") } else { length.rough() }
}

/// A stage that no restore point that is kept is old enough for.
fn never_that_old(
    policy: &Policy,
    rhythm: &Rhythm,
    length: Elapsed,
    path: &str,
) -> Option<Finding> {
    if !is_own(policy, path) || !policy.holds.is_empty() || !rhythm.is_whole {
        return None;
    }
    policy.retention.effective().next()?;
    let floor = (Rule::Last, policy.retention.at_least.max(1));
    let bound = |(rule, count): (Rule, u32)| -> i64 {
        if let Some(limit) = rule.age_limit(count) {
            return limit.as_seconds();
        }
        let period = rule.period().map_or(0, |period| period_length(period) * 11 / 10);
        i64::from(count) * (period + rhythm.longest.as_seconds())
    };
    let oldest = policy.retention.effective().chain([floor]).map(bound).max()?;
    (length.as_seconds() > oldest).then(|| {
        let stage = if path.ends_with("deprecateAfter") { "deprecated" } else { "obsolete" };
        let message = format!(
            "no restore point is kept for {length}, so none is {stage} before it is let go"
        );
        about(policy, Code::StageNeverComes, path, message)
            .hint("write a shorter time, or keep restore points for longer")
            .related(place_of(policy, "retention"), "what is kept")
    })
}
