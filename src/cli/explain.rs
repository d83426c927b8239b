//! `stillframe explain`

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Console, Exit, Global, parse_instant, setup};
use crate::inventory::{ImageState, Instance, Inventory};
use crate::plan::guard::Guard;
use crate::plan::{Plan, Reason, ReasonCode};
use crate::policy::meant::{Effective, Origin};
use crate::policy::select::Decision;
use crate::policy::{Code, Policies, Policy, Severity};
use crate::reconcile::Room;
use crate::report::{
    ImageRow, clean, count, image_rows, minute, protection, protection_text, state, table,
};

/// Say why: a policy with its defaults, an image, a source, or the code of a finding.
#[derive(Debug, Args)]
pub struct Explain {
    /// The name of a policy, the name or id of an image or a source, or a code
    what: String,
    /// The name of the policy
    name: Option<String>,
    /// As if it were this instant
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        if self.name.is_none() && self.code(console)? {
            return Ok(Exit::Success);
        }
        match (self.what.as_str(), &self.name) {
            ("policy", Some(name)) => {
                let policies = match setup::policies(global, console, self.json) {
                    Ok(policies) => policies,
                    Err(early) => return early.exit(),
                };
                self.policy(&policies, name, console)
            }
            ("policy", None) => bail!("which policy? `stillframe explain policy NAME`"),
            (_, Some(_)) => bail!("only `explain policy NAME` takes two words"),
            (what, None) => {
                let room = match setup::room(global, console, self.json, self.now, Vec::new()) {
                    Ok(room) => room,
                    Err(early) => return early.exit(),
                };
                self.seen(what, &room, console).await
            }
        }
    }

    /// Whether the word is a code of a finding, a reason or a guard; then it is explained.
    fn code(&self, console: &Console) -> anyhow::Result<bool> {
        let what = self.what.as_str();
        let (kind, meaning, text) =
            if let Some(code) = Code::ALL.iter().find(|code| code.word() == what) {
                ("finding", code.page(), page(*code))
            } else if let Some(code) = ReasonCode::ALL.iter().find(|code| code.word() == what) {
                ("reason", code.meaning(), wrapped(&format!("{what}: {}", code.meaning())) + "\n")
            } else if let Some(guard) = Guard::ALL.iter().find(|guard| guard.word() == what) {
                let text = format!("guard {what}: {}", guard.meaning());
                ("guard", guard.meaning(), wrapped(&text) + "\n")
            } else {
                return Ok(false);
            };
        if self.json {
            console.json(&json!({
                "format_version": "1.0", "code": what, "kind": kind, "meaning": meaning,
            }))?;
        } else {
            console.print(&text);
        }
        Ok(true)
    }

    fn policy(&self, policies: &Policies, name: &str, console: &Console) -> anyhow::Result<Exit> {
        let Some(policy) = policies.policies.iter().find(|policy| policy.name.as_str() == name)
        else {
            let names: Vec<&str> =
                policies.policies.iter().map(|policy| policy.name.as_str()).collect();
            bail!("there is no policy `{}`; there are {}", clean(name), names.join(", "));
        };
        if self.json {
            let values: Vec<Value> = values_of(policy)
                .into_iter()
                .map(
                    |(path, value, origin)| json!({"path": path, "value": value, "origin": origin}),
                )
                .collect();
            console
                .json(&json!({"format_version": "1.0", "policy": policy.name, "values": values}))?;
        } else {
            console.print(&policy_text(policy));
        }
        Ok(Exit::Success)
    }

    async fn seen(&self, what: &str, room: &Room, console: &Console) -> anyhow::Result<Exit> {
        let is_policy = |policy: &Policy| policy.name.as_str() == what;
        if room.policies.policies.iter().any(is_policy) {
            return self.policy(&room.policies, what, console);
        }
        let inventory = room.observe().await;
        let now = room.clock.now();
        let plan = room.plan(&inventory, now);
        let exit = super::list::report_gaps(&inventory, console);
        let rows = image_rows(&inventory);
        if let Some(row) = rows.iter().find(|row| row.image.name == what || row.image.id == what) {
            let fate = fate(&plan, &row.image.id);
            if self.json {
                let fate = fate.map(|(what, reasons)| json!({"what": what, "reasons": reasons}));
                console.json(
                    &json!({"format_version": "1.0", "image": row, "now": now, "fate": fate}),
                )?;
            } else {
                console.print(&image_text(row, fate));
            }
            return Ok(exit);
        }
        let instance = inventory.engines.iter().find_map(|engine| {
            let found =
                engine.instances.iter().find(|one| one.name == what || one.id.as_str() == what)?;
            Some((engine.name.as_str(), found))
        });
        let Some((engine, instance)) = instance else {
            return self.gone(what, &rows, &plan, console).map(|()| exit);
        };
        let decisions = decisions(&room.policies, engine, instance);
        if self.json {
            let policies: Vec<Value> = decisions
                .iter()
                .map(|(policy, selected, why)| json!({"policy": policy, "selected": selected, "why": why}))
                .collect();
            let mut protections = protection(&room.policies, &inventory, now);
            protections.retain(|one| one.source_id == instance.id);
            console.json(&json!({
                "format_version": "1.0",
                "engine": engine,
                "source": instance,
                "policies": policies,
                "protected": protections,
            }))?;
        } else {
            console.print(&source_text(&room.policies, &inventory, instance, &decisions, now));
        }
        Ok(exit)
    }
}

impl Explain {
    /// A source that is not there any more, but has images.
    fn gone(
        &self,
        what: &str,
        rows: &[ImageRow],
        plan: &Plan,
        console: &Console,
    ) -> anyhow::Result<()> {
        let is_of = |row: &&ImageRow| {
            row.source == what || row.key.as_ref().is_some_and(|key| key.source.as_str() == what)
        };
        let rows: Vec<&ImageRow> = rows.iter().filter(is_of).collect();
        if rows.is_empty() {
            bail!(
                "there is no policy, no image, no source and no code `{}`; \
                 `stillframe list` shows all images, `stillframe plan` all policies",
                clean(what)
            );
        }
        if self.json {
            return console.json(&json!({"format_version": "1.0", "source": null, "images": rows}));
        }
        console.print(&format!(
            "{} is not there any more; {} of it:\n",
            clean(what),
            count(rows.len(), "image")
        ));
        for row in rows {
            console.print(&image_text(row, fate(plan, &row.image.id)));
        }
        Ok(())
    }
}

fn page(code: Code) -> String {
    let severity = match code.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    format!("{severity}[{code}]: {}\n\n{}\n", code.title(), wrapped(code.page()))
}

/// Lines of at most 80 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let length = lines.last().map_or(0, |line| line.chars().count());
        if length > 0 && length + 1 + word.chars().count() > 80 {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Policy(place) => place.to_string(),
        Origin::Overlay(place) => format!("overlay, {place}"),
        Origin::Defaults(place) => format!("defaults, {place}"),
        Origin::BuiltIn => "built in".to_owned(),
    }
}

/// Every value of a policy and where it comes from, what follows from others among them.
fn values_of(policy: &Policy) -> Vec<(String, Value, String)> {
    let mut values: Vec<(String, Value, String)> = Vec::new();
    for Effective { path, value, origin: from } in &policy.effective {
        let from = match (path.as_str(), from) {
            ("engine", Origin::BuiltIn) => "the only engine there is".to_owned(),
            ("storage.location", Origin::BuiltIn) => "the engine's default".to_owned(),
            _ => origin(from),
        };
        values.push((path.clone(), value.clone(), from));
    }
    let implied = [
        ("schedule.deadline", "until the next slot, at most 24h", "schedule.jitter"),
        ("retention.stalledAfter", "three periods of the schedule", "retention.atLeast"),
        ("encryption.kmsKey", "the engine's own", "storage.location"),
    ];
    for (path, value, behind) in implied {
        if values.iter().all(|(known, _, _)| known != path) {
            let at = values.iter().position(|(known, _, _)| known == behind);
            let row = (path.to_owned(), json!(value), "built in".to_owned());
            values.insert(at.map_or(values.len(), |at| at + 1), row);
        }
    }
    values
}

fn policy_text(policy: &Policy) -> String {
    let rows: Vec<Vec<String>> = values_of(policy)
        .into_iter()
        .map(|(path, value, origin)| {
            vec![format!("{}:", clean(&path)), clean(&value.to_string()), format!("# {origin}")]
        })
        .collect();
    let lines: String = table(&rows).iter().map(|line| format!("  {line}\n")).collect();
    let owner =
        policy.owner.as_ref().map(|owner| format!(", owner {}", clean(owner))).unwrap_or_default();
    format!("{} ({}{owner})\n{lines}", policy.name, policy.place)
}

/// What the plan says of an image.
fn fate<'a>(plan: &'a Plan, id: &str) -> Option<(String, &'a [Reason])> {
    let kept = plan.kept.iter().find(|kept| kept.id == id);
    if let Some(kept) = kept {
        return Some(("kept".to_owned(), &kept.reasons));
    }
    let is_it = |image: &crate::plan::ImageRef| image.id.as_deref() == Some(id);
    if let Some(held) = plan.held_back.iter().find(|held| is_it(&held.image)) {
        return Some((
            format!("held back: the next plan would {} it", held.action.word()),
            &held.reasons,
        ));
    }
    let replaces = |change: &&crate::plan::Change| {
        let replaced = change.create.as_ref().and_then(|create| create.replaces.as_ref());
        replaced.is_some_and(is_it)
    };
    if let Some(create) = plan.changes.iter().find(replaces) {
        return Some(("the next plan makes it anew".to_owned(), &create.reasons));
    }
    let change = plan.changes.iter().find(|change| is_it(&change.image))?;
    Some((format!("the next plan will {} it", change.action.word()), &change.reasons))
}

fn image_text(row: &ImageRow, fate: Option<(String, &[Reason])>) -> String {
    let mut text = format!("{}\n", clean(&row.image.name));
    match &row.key {
        Some(key) => {
            text.push_str(&format!(
                "  of {} by {}, slot {}\n",
                clean(&row.source),
                key.policy,
                minute(key.slot.instant())
            ));
        }
        None => text.push_str("  not stillframe's: never touched\n"),
    }
    if row.image.state != ImageState::Ready {
        let why = row.image.message.as_deref().map(|why| format!(": {}", clean(why)));
        text.push_str(&format!("  {}{}\n", state(&row.image), why.unwrap_or_default()));
    }
    if let Some((what, reasons)) = fate {
        text.push_str(&format!("  {what}\n"));
        for reason in reasons {
            text.push_str(&format!("    {}\n", clean(&reason.detail)));
        }
    } else if row.key.is_some() {
        text.push_str("  its policy is not in the files: left alone\n");
    }
    text
}

/// Each policy of an engine, whether it selects an instance, and by what.
fn decisions(
    policies: &Policies,
    engine: &str,
    instance: &Instance,
) -> Vec<(String, bool, String)> {
    policies
        .policies
        .iter()
        .filter(|policy| policy.engine == engine)
        .map(|policy| {
            let (selected, why) = match policy.selection.decide(instance) {
                Decision::Selected(by) => (true, format!("by {by}")),
                Decision::Excluded(by) => (false, format!("excluded by {by}")),
                Decision::NotMatched => (false, "no condition holds".to_owned()),
            };
            (policy.name.to_string(), selected, why)
        })
        .collect()
}

fn source_text(
    policies: &Policies,
    inventory: &Inventory,
    instance: &Instance,
    decisions: &[(String, bool, String)],
    now: Timestamp,
) -> String {
    let labels: Vec<String> =
        instance.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut text = format!(
        "{} (id {}, zone {}, {})\n  labels {}\n",
        clean(&instance.name),
        instance.id,
        clean(&instance.zone),
        clean(&instance.status),
        clean(&labels.join(" "))
    );
    let rows: Vec<Vec<String>> = decisions
        .iter()
        .map(|(policy, selected, why)| {
            vec![if *selected { "+" } else { "-" }.to_owned(), policy.clone(), clean(why)]
        })
        .collect();
    text.extend(table(&rows).iter().map(|line| format!("  {line}\n")));
    let mut protections = protection(policies, inventory, now);
    protections.retain(|one| one.source_id == instance.id);
    if protections.is_empty() {
        text.push_str("  no READY restore point\n");
    } else {
        text.push_str(&protection_text(&protections, now));
    }
    text
}
