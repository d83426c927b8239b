//! `stillframe schedule`

mod policies;
mod runs;

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Console, Exit, Global, parse_instant, setup};
use crate::elapsed::Elapsed;
use crate::report::clean;
use crate::schedule::translate::{Notation, Translation, translate};
use crate::schedule::{Crontab, CrontabError, Firings, Zone, notes};
use runs::{Runs, underlined};

/// The version of what `--json` prints.
const FORMAT_VERSION: &str = "1.1";
/// How many runs are shown where nothing else is asked for.
const NEXT_DEFAULT: usize = 5;
/// How far --limit looks where --until is left out.
const LIMIT_REACH: Elapsed = Elapsed::days(366 * 9);
/// How far --next looks: the rarest schedule that can fire does so within 40 years.
const NEXT_REACH: Elapsed = Elapsed::days(366 * 60);

/// Print when schedules fire, or read the expression of another scheduler.
#[derive(Debug, Args)]
pub struct ScheduleCommand {
    /// A crontab expression; without it, the schedules of all policies
    #[arg(long, value_name = "EXPR")]
    cron: Option<String>,
    /// The time zone the expression is read in; UTC where it is left out
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// From this instant on, the present one where it is left out; or in whose notation --cron is:
    /// aws, quartz, yandex or systemd. May be given once for each
    #[arg(long, value_name = "INSTANT|SCHEDULER", value_parser = From::parse)]
    from: Vec<From>,
    /// Up to this instant, which is not part of it
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    until: Option<Timestamp>,
    /// At most so many firings of each schedule; looks nine years ahead where --until is left out
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// The next so many firings of each schedule, up to 60 years ahead; 5 where neither --until nor
    /// --limit is given
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["limit", "until"])]
    next: Option<usize>,
    /// Count sources in this document, which `inventory --json` writes
    #[arg(long, value_name = "FILE", conflicts_with = "cron")]
    inventory: Option<PathBuf>,
    /// How long a capture is taken to last, for how many run at once
    #[arg(long, value_name = "LENGTH", default_value = "10m", value_parser = Elapsed::parse)]
    capture_time: Elapsed,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// What stands behind `--from`.
#[derive(Debug, Clone, Copy)]
enum From {
    Instant(Timestamp),
    Scheduler(Notation),
}

impl From {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(notation) = Notation::named(text) {
            return Ok(Self::Scheduler(notation));
        }
        parse_instant(text).map(Self::Instant).map_err(|_| {
            let words: Vec<&str> = Notation::ALL.into_iter().map(Notation::word).collect();
            format!(
                "`{text}` is neither an instant like 2026-11-21T02:00:00Z nor one of {}",
                words.join(", ")
            )
        })
    }
}

/// Which firings are asked for.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Timestamp,
    until: Timestamp,
    /// Whether `until` was given, and is not only as far as is looked.
    is_closed: bool,
    limit: Option<usize>,
}

impl Span {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(usize::MAX)
    }

    /// The end for programs: what was given, or how far `--limit` looks.
    fn end(&self) -> Option<Timestamp> {
        (self.until < NEXT_REACH.after(self.from) || self.is_closed).then_some(self.until)
    }
}

impl ScheduleCommand {
    pub(super) fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let span = self.span()?;
        match (&self.cron, self.scheduler()?) {
            (Some(text), None) => self.crontab(text, span, console),
            (Some(text), Some(notation)) => self.translated(text, notation, span, console),
            (None, None) => self.policies(global, console, span),
            (None, Some(notation)) => {
                bail!("--from {} reads --cron, which is missing", notation.word())
            }
        }
    }

    fn span(&self) -> anyhow::Result<Span> {
        let instants: Vec<Timestamp> = self
            .from
            .iter()
            .filter_map(|from| match from {
                From::Instant(instant) => Some(*instant),
                From::Scheduler(_) => None,
            })
            .collect();
        if instants.len() > 1 {
            bail!("--from has two instants");
        }
        let from = instants.first().copied().unwrap_or_else(|| setup::clock(None).now());
        let limit = match (self.next, self.limit, self.until) {
            (None, None, None) => Some(NEXT_DEFAULT),
            (next, limit, _) => next.or(limit),
        };
        let reach = if self.limit.is_some() { LIMIT_REACH } else { NEXT_REACH };
        let until = self.until.unwrap_or_else(|| reach.after(from));
        if until < from {
            bail!("--until lies before --from");
        }
        Ok(Span { from, until, is_closed: self.until.is_some(), limit })
    }

    fn scheduler(&self) -> anyhow::Result<Option<Notation>> {
        let mut words = self.from.iter().filter_map(|from| match from {
            From::Scheduler(notation) => Some(*notation),
            From::Instant(_) => None,
        });
        let first = words.next();
        if words.next().is_some() {
            bail!("--from names two schedulers");
        }
        Ok(first)
    }

    /// The zone that was given; a mistake in it has been shown.
    fn zone(&self, console: &Console) -> Result<Option<Zone>, Exit> {
        let Some(name) = &self.time_zone else { return Ok(None) };
        Zone::find(name).map(Some).ok_or_else(|| {
            console.error(&format!(
                "there is no time zone `{}`; {}",
                clean(name),
                Zone::hint(name)
            ));
            Exit::InvalidPolicy
        })
    }

    fn crontab(&self, text: &str, span: Span, console: &Console) -> anyhow::Result<Exit> {
        let zone = match self.zone(console) {
            Ok(zone) => zone.unwrap_or(Zone::UTC),
            Err(exit) => return Ok(exit),
        };
        match Crontab::parse(text) {
            Ok(crontab) => self.firings(&crontab, &zone, span, None, console),
            Err(errors) => self.refused(text, "error[bad-cron]", &errors, console),
        }
    }

    fn translated(
        &self,
        text: &str,
        notation: Notation,
        span: Span,
        console: &Console,
    ) -> anyhow::Result<Exit> {
        let given = match self.zone(console) {
            Ok(given) => given,
            Err(exit) => return Ok(exit),
        };
        let mut translation = match translate(notation, text) {
            Ok(translation) => translation,
            Err(errors) => return self.refused(text, "error", &errors, console),
        };
        let zone = match (translation.zone.clone(), given) {
            (Some(said), Some(given)) if said != given => {
                console.error(&format!(
                    "the schedule is in {}, --time-zone says {}",
                    said.name(),
                    given.name()
                ));
                return Ok(Exit::InvalidPolicy);
            }
            (None, None) => {
                translation.notes.push(notation.zone_note().to_owned());
                Zone::UTC
            }
            (said, given) => said.or(given).unwrap_or(Zone::UTC),
        };
        let has_changes =
            !notes::clock_changes(&zone, span.from, Elapsed::days(731).after(span.from)).is_empty();
        if has_changes {
            translation.notes.extend(translation.clock_changes.take());
        }
        let crontab = translation.crontab.clone();
        self.firings(&crontab, &zone, span, Some((text, notation, &translation)), console)
    }

    fn firings(
        &self,
        crontab: &Crontab,
        zone: &Zone,
        span: Span,
        origin: Option<(&str, Notation, &Translation)>,
        console: &Console,
    ) -> anyhow::Result<Exit> {
        let firings = Firings::new(crontab, zone, span.from, span.until);
        let runs = Runs::new(firings.take(span.limit()).collect(), &[crontab], zone, span);
        if self.json {
            let mut document = json!({
                "format_version": FORMAT_VERSION,
                "cron": crontab.as_str(),
                "time_zone": zone.name(),
                "from": span.from,
                "until": span.end(),
                "truncated": Some(runs.firings().len()) == span.limit,
            });
            runs.add_to(&mut document);
            if let Some((text, notation, translation)) = origin {
                document["translated"] = json!({
                    "scheduler": notation.word(),
                    "expression": text,
                    "notes": translation.notes,
                });
            }
            console.json(&document)?;
            return Ok(Exit::Success);
        }
        if let Some((_, _, translation)) = origin {
            console.print(&heading(crontab, zone, &translation.notes));
        }
        console.print(&runs.text());
        Ok(Exit::Success)
    }

    /// Shows what is wrong with an expression.
    fn refused(
        &self,
        text: &str,
        kind: &str,
        errors: &[CrontabError],
        console: &Console,
    ) -> anyhow::Result<Exit> {
        if self.json {
            let errors: Vec<Value> = errors
                .iter()
                .map(|error| {
                    json!({
                        "message": error.message,
                        "column": error.column + 1,
                        "length": error.length,
                        "hint": error.hint,
                    })
                })
                .collect();
            console
                .json(&json!({"format_version": FORMAT_VERSION, "cron": text, "errors": errors}))?;
        } else {
            console.note(&underlined(text, kind, errors));
        }
        Ok(Exit::InvalidPolicy)
    }
}

/// A translation as it is written in a policy, and what to know about it.
fn heading(crontab: &Crontab, zone: &Zone, notes: &[String]) -> String {
    let mut text = format!("cron: \"{}\"\ntimeZone: {}\n", crontab.as_str(), zone.name());
    for note in notes {
        text.push_str(&runs::wrapped("note: ", note));
    }
    text.push('\n');
    text
}
