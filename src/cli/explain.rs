//! `stillframe explain`

mod engine;
mod gone;
mod image;
mod policy;
mod source;

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::setup::{self, Seen};
use super::{Console, Exit, Global, parse_instant};
use crate::desired::desired;
use crate::plan::guard::Guard;
use crate::plan::{Plan, ReasonCode};
use crate::policy::{Code, Policies, Severity};
use crate::report::{ImageRow, clean, image_rows};
use crate::simulate::forecast::of_image;
use engine::Subject;
use gone::Gone;
pub(super) use image::forecast_text;
use image::{fate, image_text, kept_by};
use policy::{policy_text, values_of};
use source::Source;

/// Say why: a policy with its defaults, what an engine can do, an image, a source, or the code of a
/// finding.
#[derive(Debug, Args)]
pub struct Explain {
    /// The name of a policy, the name or id of an image or a source, or a code
    what: String,
    /// The name of the policy or engine
    name: Option<String>,
    /// As if it were this instant
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
    /// Look into this document instead of asking the engines
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
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
            ("engine", Some(name)) => self.engine(name, global, console),
            ("policy", None) => bail!("which policy? `stillframe explain policy NAME`"),
            ("engine", None) => bail!("which engine? `stillframe explain engine NAME`"),
            (_, Some(_)) => {
                bail!("only `explain policy NAME` and `explain engine NAME` take two words")
            }
            (what, None) if is_policy(what, global)? => {
                match setup::policies(global, console, self.json) {
                    Ok(policies) => self.policy(&policies, what, console),
                    Err(early) => early.exit(),
                }
            }
            (what, None) => {
                let file = self.inventory.as_deref();
                let seen = setup::seen(global, console, self.json, self.now, file);
                match seen.await {
                    Ok(seen) => self.seen(what, &seen, console),
                    Err(early) => early.exit(),
                }
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

    /// An engine of the configuration or, where none has the name, a kind of engine.
    fn engine(&self, name: &str, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let kinds = crate::engine::kinds();
        let loaded = setup::load_policies(global, false);
        let policies = loaded.as_ref().ok().and_then(|loaded| loaded.policies.as_ref());
        let configured = policies.and_then(|policies| policies.config.engines.get(name));
        let kind = kinds.iter().find(|kind| kind.name == name);
        let of_kind = kind.map(|kind| (kind.capabilities)(&json!({})));
        let subject = match (configured, kind, &of_kind) {
            (Some(engine), ..) => {
                Subject { name: Some(name), kind: &engine.kind, capabilities: &engine.capabilities }
            }
            (None, Some(kind), Some(capabilities)) => {
                Subject { name: None, kind: kind.name, capabilities }
            }
            _ => {
                let known =
                    policies.into_iter().flat_map(|policies| policies.config.engines.keys());
                let known = known.map(|name| clean(name));
                let names: Vec<String> =
                    known.chain(kinds.iter().map(|kind| kind.name.to_owned())).collect();
                bail!("there is no engine `{}`; there are {}", clean(name), names.join(", "));
            }
        };
        if self.json {
            console.json(&subject.json())?;
        } else {
            console.print(&subject.text());
        }
        Ok(Exit::Success)
    }

    fn seen(&self, what: &str, seen: &Seen, console: &Console) -> anyhow::Result<Exit> {
        let Seen { policies, inventory, now } = seen;
        let plan = seen.plan(&[]);
        let exit = super::list::report_gaps(inventory, console);
        let rows = image_rows(inventory);
        if let Some(row) = rows.iter().find(|row| row.image.name == what || row.image.id == what) {
            let fate = fate(&plan, &row.image.id);
            let desired = desired(policies, inventory, *now);
            let kept_by = kept_by(&plan, &desired, &row.image.id, *now);
            let forecast = of_image(policies, inventory, &row.engine, &row.image.id, *now);
            if self.json {
                let fate = fate.map(
                    |(what, reasons)| json!({"what": what, "reasons": reasons, "kept_by": kept_by}),
                );
                console.json(&json!({
                    "format_version": "1.2",
                    "image": row,
                    "now": now,
                    "fate": fate,
                    "forecast": forecast,
                }))?;
            } else {
                console.print(&image_text(row, fate, &kept_by, forecast.as_ref()));
            }
            return Ok(exit);
        }
        let instance = inventory.engines.iter().find_map(|engine| {
            let found =
                engine.instances.iter().find(|one| one.name == what || one.id.as_str() == what)?;
            Some((engine.name.as_str(), found))
        });
        let Some((engine, instance)) = instance else {
            return self.gone(what, &rows, (&plan, seen), console).map(|()| exit);
        };
        let source = Source { policies, inventory, engine, instance, now: *now };
        if self.json {
            console.json(&source.json())?;
        } else {
            console.print(&source.text());
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
        (plan, seen): (&Plan, &Seen),
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
        let desired = desired(&seen.policies, &seen.inventory, seen.now);
        let gone = Gone { what, rows: &rows, plan, desired: &desired, seen };
        if self.json {
            return console.json(&gone.json());
        }
        console.print(&gone.text());
        Ok(())
    }
}

/// Whether a policy has this name.
fn is_policy(what: &str, global: &Global) -> anyhow::Result<bool> {
    let loaded = setup::load_policies(global, false)?;
    let mut policies = loaded.policies.iter().flat_map(|policies| &policies.policies);
    Ok(policies.any(|policy| policy.name.as_str() == what))
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
