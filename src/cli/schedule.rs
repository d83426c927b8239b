//! `stillframe schedule`

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{Console, Exit, Global, parse_instant, setup};
use crate::elapsed::Elapsed;
use crate::report::{clean, table};
use crate::schedule::{Crontab, Firings, Schedule, Zone};

/// Print when a schedule fires.
#[derive(Debug, Args)]
pub struct ScheduleCommand {
    /// A crontab expression; without it, the schedules of all policies
    #[arg(long, value_name = "EXPR")]
    cron: Option<String>,
    /// The time zone the expression is read in
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    time_zone: String,
    /// From this instant on; the present one where it is left out
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    from: Option<Timestamp>,
    /// Up to this instant, which is not part of it; a week later where it is left out, nine years
    /// with --limit
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    until: Option<Timestamp>,
    /// At most so many firings
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl ScheduleCommand {
    pub(super) fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let from = self.from.unwrap_or_else(|| setup::clock(None).now());
        // Where only so many are asked for, they are looked for as far as a schedule can reach.
        let reach = if self.limit.is_some() { Elapsed::days(366 * 9) } else { Elapsed::days(7) };
        let until = self.until.unwrap_or_else(|| reach.after(from));
        if until < from {
            bail!("--until lies before --from");
        }
        let Some(text) = &self.cron else { return self.policies(global, console, from, until) };
        let Some(zone) = Zone::find(&self.time_zone) else {
            console.error(&format!(
                "there is no time zone `{}`; {}",
                clean(&self.time_zone),
                Zone::hint(&self.time_zone)
            ));
            return Ok(Exit::InvalidPolicy);
        };
        let crontab = match Crontab::parse(text) {
            Ok(crontab) => crontab,
            Err(errors) if self.json => {
                let errors: Vec<_> = errors
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
                console.json(&json!({"format_version": "1.0", "cron": text, "errors": errors}))?;
                return Ok(Exit::InvalidPolicy);
            }
            Err(errors) => {
                console.note(&underlined(text, &errors));
                return Ok(Exit::InvalidPolicy);
            }
        };
        let firings: Vec<Timestamp> =
            Firings::new(&crontab, &zone, from, until).take(self.limit()).collect();
        if self.json {
            console.json(&json!({
                "format_version": "1.0",
                "cron": crontab.as_str(),
                "time_zone": zone.name(),
                "from": from,
                "until": until,
                "truncated": Some(firings.len()) == self.limit,
                "firings": firings,
            }))?;
        } else {
            console.print(&lines(&firings, &zone));
        }
        Ok(Exit::Success)
    }

    fn limit(&self) -> usize {
        self.limit.unwrap_or(usize::MAX)
    }

    fn policies(
        &self,
        global: &Global,
        console: &Console,
        from: Timestamp,
        until: Timestamp,
    ) -> anyhow::Result<Exit> {
        let policies = match setup::policies(global, console, self.json) {
            Ok(policies) => policies,
            Err(early) => return early.exit(),
        };
        let slots = |schedule: &Schedule| -> Vec<Timestamp> {
            schedule
                .slots(from, until)
                .take(self.limit())
                .map(super::super::name::Slot::instant)
                .collect()
        };
        if self.json {
            let list: Vec<_> = policies
                .policies
                .iter()
                .map(|policy| {
                    json!({
                        "policy": policy.name,
                        "cron": policy.schedule.text(),
                        "time_zone": policy.schedule.zone.name(),
                        "firings": slots(&policy.schedule),
                    })
                })
                .collect();
            console.json(
                &json!({"format_version": "1.0", "from": from, "until": until, "policies": list}),
            )?;
            return Ok(Exit::Success);
        }
        for policy in &policies.policies {
            let schedule = &policy.schedule;
            console.print(&format!(
                "{}  {}  {}\n{}",
                policy.name,
                schedule.text(),
                schedule.zone.name(),
                lines(&slots(schedule), &schedule.zone)
            ));
        }
        Ok(Exit::Success)
    }
}

/// UTC and local time of each firing.
fn lines(firings: &[Timestamp], zone: &Zone) -> String {
    let rows: Vec<Vec<String>> = firings
        .iter()
        .map(|instant| {
            let local = instant.to_zoned(zone.time_zone().clone());
            vec![instant.to_string(), local.strftime("%a %Y-%m-%d %H:%M %Z").to_string()]
        })
        .collect();
    table(&rows).iter().map(|line| format!("  {line}\n")).collect()
}

/// The mistakes of an expression, each underlined.
fn underlined(text: &str, errors: &[crate::schedule::CrontabError]) -> String {
    errors
        .iter()
        .map(|error| {
            let hint =
                error.hint.as_ref().map(|hint| format!("\n  help: {hint}")).unwrap_or_default();
            format!(
                "error[bad-cron]: {}\n  {}\n  {}{}{hint}\n",
                clean(&error.message),
                clean(text),
                " ".repeat(error.column),
                "^".repeat(error.length)
            )
        })
        .collect()
}
