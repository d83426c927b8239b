//! Retention: which restore points of one series are kept, and why.
//!
//! One pure function, [`retain`]: the points of a series, the rules, the zone of the policy and
//! `now` go in, one [`Fate`] per point comes out. Rules add up: a point is kept if any rule keeps
//! it. Only READY points fill a rule; held ones are kept and fill none. This room must never know
//! what deprecation, grace or an engine is: it says what may go, not what happens to it.

mod period;

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use period::Period;
use period::WallClock;

use crate::elapsed::Elapsed;
use crate::inventory::Content;
use crate::name::Slot;
use crate::schedule::Zone;

/// A restore point may be dated this much after `now` before it is quarantined.
pub const CLOCK_SKEW: Elapsed = Elapsed::minutes(5);

/// The rules there are, in the order in which they are shown.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Not older than so many hours.
    Hours,
    /// Not older than so many days of 24 hours.
    Days,
    /// Not older than so many weeks of 7 days.
    Weeks,
    /// Among the newest so many.
    Last,
    /// The newest of its hour, for the newest so many hours that hold a point.
    Hourly,
    /// The newest of its day.
    Daily,
    /// The newest of its ISO week.
    Weekly,
    /// The newest of its month.
    Monthly,
    /// The newest of its year.
    Yearly,
}

impl Rule {
    /// All rules in order.
    pub const ALL: [Self; 9] = [
        Self::Hours,
        Self::Days,
        Self::Weeks,
        Self::Last,
        Self::Hourly,
        Self::Daily,
        Self::Weekly,
        Self::Monthly,
        Self::Yearly,
    ];

    /// The word used in policies and plans.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hours => "hours",
            Self::Days => "days",
            Self::Weeks => "weeks",
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// The longest age a rule of this kind allows, for rules that count age.
    pub fn age_limit(self, count: u32) -> Option<Elapsed> {
        let unit = match self {
            Self::Hours => Elapsed::hours(1),
            Self::Days => Elapsed::days(1),
            Self::Weeks => Elapsed::days(7),
            _ => return None,
        };
        Some(Elapsed::seconds(unit.as_seconds() * i64::from(count)))
    }

    /// The period of which one point is kept, for rules that count periods.
    pub fn period(self) -> Option<Period> {
        match self {
            Self::Hourly => Some(Period::Hour),
            Self::Daily => Some(Period::Day),
            Self::Weekly => Some(Period::Week),
            Self::Monthly => Some(Period::Month),
            Self::Yearly => Some(Period::Year),
            _ => None,
        }
    }
}

/// What a policy keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Each rule with its count. A count of zero keeps nothing, as if the rule were not there.
    pub rules: BTreeMap<Rule, u32>,
    /// So many newest READY points are kept whatever the rules say; at least one.
    pub at_least: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { rules: BTreeMap::new(), at_least: 1 }
    }
}

impl Retention {
    /// Keeps the newest point alone.
    pub fn newest() -> Self {
        Self { rules: BTreeMap::from([(Rule::Last, 1)]), at_least: 1 }
    }

    /// The rules that can keep something. Where there are none, everything is kept.
    pub fn effective(&self) -> impl Iterator<Item = (Rule, u32)> + '_ {
        self.rules.iter().filter(|(_, count)| **count > 0).map(|(rule, count)| (*rule, *count))
    }
}

/// What retention knows of a restore point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point<'a> {
    /// The instant it stands for.
    pub slot: Slot,
    /// Tells apart two points of one slot; the greater one counts as the newer.
    pub id: &'a str,
    /// What it holds: of two points of one slot the newer one stands for both where it has all that the
    /// other one has.
    pub content: Content<'a>,
    /// Whether it can be restored.
    pub ready: bool,
    /// Whether a hold keeps it.
    pub held: bool,
}

/// What becomes of a restore point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It stays, for at least one reason. Copies share the list.
    Kept(Arc<[Keep]>),
    /// No rule keeps it.
    LetGo(Closest),
}

impl Fate {
    /// Whether the point stays.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }
}

/// Why a point is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// An age rule: it is not older than the limit.
    Young {
        /// The rule.
        rule: Rule,
        /// Its age, zero where it is dated a little after `now`.
        age: Elapsed,
        /// The oldest it may be.
        limit: Elapsed,
    },
    /// A counting rule: its place among the newest.
    Place {
        /// The rule.
        rule: Rule,
        /// Its place, from 1.
        place: u32,
        /// How many places there are.
        of: u32,
    },
    /// It is among the newest READY points that are always kept.
    AtLeast {
        /// Its place, from 1.
        place: u32,
        /// How many are always kept.
        of: u32,
    },
    /// A hold.
    Held,
    /// It is not READY: rules do not apply to it.
    NotReady,
    /// It is dated after `now` by more than the allowed skew.
    Quarantined,
    /// There are no rules, so nothing is let go.
    NoRules,
}

impl fmt::Display for Keep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Young { rule, age, limit } => {
                write!(formatter, "{}: {} of {limit}", rule.word(), age.rough())
            }
            Self::Place { rule, place, of } => write!(formatter, "{} {place} of {of}", rule.word()),
            Self::AtLeast { place, of } => write!(formatter, "at least {place} of {of}"),
            Self::Held => formatter.write_str("held"),
            Self::NotReady => formatter.write_str("not ready"),
            Self::Quarantined => formatter.write_str("dated in the future"),
            Self::NoRules => formatter.write_str("no rule lets go of anything"),
        }
    }
}

/// The rule that came closest to keeping a point that is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closest {
    /// The rule.
    pub rule: Rule,
    /// Why it does not keep the point.
    pub miss: Miss,
}

/// Why a rule does not keep a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// It is older than the limit.
    Expired {
        /// Its age.
        age: Elapsed,
        /// The oldest it could be.
        limit: Elapsed,
    },
    /// So many newer points or periods come before it.
    Beyond {
        /// Its place, from 1.
        place: u32,
        /// How many places there are.
        of: u32,
    },
    /// A newer point, by its index, stands for the same period.
    Represented {
        /// The index of the newer point.
        by: usize,
    },
}

impl fmt::Display for Closest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.rule.word();
        match self.miss {
            Miss::Expired { age, limit } => write!(formatter, "{word}: {} of {limit}", age.rough()),
            Miss::Beyond { place, of } => write!(formatter, "{word} {place} of {of}"),
            Miss::Represented { .. } => {
                let period = self.rule.period().map_or("slot", Period::word);
                write!(formatter, "{word}: a newer one of its {period}")
            }
        }
    }
}

/// Decides each point of one series: one fate per point, in the order of `points`.
///
/// The answer depends on neither that order nor the zone of the machine.
pub fn retain(
    points: &[Point<'_>],
    retention: &Retention,
    zone: &Zone,
    now: Timestamp,
) -> Vec<Fate> {
    let horizon = CLOCK_SKEW.after(now);
    let is_future = |point: &Point<'_>| point.slot.instant() > horizon;
    let mut newest_first: Vec<usize> = (0..points.len())
        .filter(|index| {
            let point = &points[*index];
            point.ready && !point.held && !is_future(point)
        })
        .collect();
    newest_first.sort_by_key(|index| Reverse((points[*index].slot, points[*index].id)));

    let mut verdicts: Vec<Verdict> =
        points.iter().map(|point| Verdict::before_rules(point, is_future(point))).collect();
    let mut clock = WallClock::new(zone);
    for (rule, count) in retention.effective() {
        apply_rule(rule, count, points, &newest_first, &mut clock, now, &mut verdicts);
    }
    let has_rules = retention.effective().next().is_some();
    let at_least = retention.at_least.max(1);
    for Placed { place, index, twin } in places(points, &newest_first) {
        let verdict = &mut verdicts[index];
        if place <= at_least && twin.is_none() {
            verdict.keeps.push(Keep::AtLeast { place, of: at_least });
        }
        if !has_rules {
            verdict.keeps.push(Keep::NoRules);
        }
    }
    verdicts.into_iter().map(Verdict::fate).collect()
}

/// A point with its place among the slots.
struct Placed {
    /// From 1; images of one slot have the same.
    place: u32,
    index: usize,
    /// The image of the same slot that stands for this one as well: it has all that this one has.
    twin: Option<usize>,
}

/// Each point with its place. Two images of one slot are one restore point.
fn places(points: &[Point<'_>], newest_first: &[usize]) -> impl Iterator<Item = Placed> {
    let mut place = 0;
    let mut begin = 0;
    newest_first.iter().enumerate().map(move |(position, &index)| {
        let point = &points[index];
        if place == 0 || points[newest_first[begin]].slot != point.slot {
            place += 1;
            begin = position;
        }
        let mut newer = newest_first[begin..position].iter().copied();
        let twin = newer.find(|newer| points[*newer].content.has_all_of(&point.content));
        Placed { place, index, twin }
    })
}

/// One rule over all points that can fill it, the newest first.
fn apply_rule(
    rule: Rule,
    count: u32,
    points: &[Point<'_>],
    newest_first: &[usize],
    clock: &mut WallClock<'_>,
    now: Timestamp,
    verdicts: &mut [Verdict],
) {
    let limit = rule.age_limit(count);
    // The period of the last point seen, its place, and the point that stands for it.
    let mut period: Option<(i64, u32, usize)> = None;
    for Placed { place: rank, index, twin } in places(points, newest_first) {
        let instant = points[index].slot.instant();
        let verdict = &mut verdicts[index];
        if let Some(limit) = limit {
            let age = Elapsed::between(instant, now);
            if age <= limit {
                verdict.keeps.push(Keep::Young { rule, age, limit });
            } else {
                verdict.miss(rule, Miss::Expired { age, limit });
            }
            continue;
        }
        let place = match (rule.period(), twin) {
            (None, Some(by)) => {
                verdict.miss(rule, Miss::Represented { by });
                continue;
            }
            (None, None) => rank,
            (Some(kind), _) => {
                let key = kind.key_on(instant, clock);
                match period {
                    // It is of the slot that is kept, and holds something of its own.
                    Some((same, place, by))
                        if same == key
                            && points[by].slot == points[index].slot
                            && twin.is_none() =>
                    {
                        place
                    }
                    Some((same, _, by)) if same == key => {
                        verdict.miss(rule, Miss::Represented { by });
                        continue;
                    }
                    _ => {
                        let place = period.map_or(1, |(_, place, _)| place + 1);
                        period = Some((key, place, index));
                        place
                    }
                }
            }
        };
        if place <= count {
            verdict.keeps.push(Keep::Place { rule, place, of: count });
        } else {
            verdict.miss(rule, Miss::Beyond { place, of: count });
        }
    }
}

/// What the rules have said of a point so far.
struct Verdict {
    keeps: Vec<Keep>,
    closest: Option<Closest>,
}

impl Verdict {
    fn before_rules(point: &Point<'_>, is_future: bool) -> Self {
        let mut keeps = Vec::new();
        if point.held {
            keeps.push(Keep::Held);
        }
        if !point.ready {
            keeps.push(Keep::NotReady);
        }
        if is_future {
            keeps.push(Keep::Quarantined);
        }
        Self { keeps, closest: None }
    }

    fn miss(&mut self, rule: Rule, miss: Miss) {
        let miss = Closest { rule, miss };
        if self.closest.as_ref().is_none_or(|closest| closer(&miss, closest) == Ordering::Less) {
            self.closest = Some(miss);
        }
    }

    fn fate(self) -> Fate {
        match self.closest {
            Some(closest) if self.keeps.is_empty() => Fate::LetGo(closest),
            _ => Fate::Kept(self.keeps.into()),
        }
    }
}

/// Orders misses by how far beyond the rule the point is, as a share of the rule. A point whose
/// period is represented by a newer one counts as one whole rule away; equals go by rule order.
fn closer(one: &Closest, other: &Closest) -> Ordering {
    let share = |miss: Miss| -> (u128, u128) {
        match miss {
            Miss::Expired { age, limit } => {
                let (age, limit) =
                    (age.as_seconds().unsigned_abs(), limit.as_seconds().unsigned_abs());
                (u128::from(age - limit.min(age)), u128::from(limit.max(1)))
            }
            Miss::Beyond { place, of } => {
                (u128::from(place - of.min(place)), u128::from(of.max(1)))
            }
            Miss::Represented { .. } => (1, 1),
        }
    };
    let ((excess, base), (other_excess, other_base)) = (share(one.miss), share(other.miss));
    (excess * other_base).cmp(&(other_excess * base)).then(one.rule.cmp(&other.rule))
}

#[cfg(test)]
mod tests;
