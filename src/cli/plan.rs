//! `stillframe plan`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::setup::Seen;
use super::{Console, Exit, Global, parse_instant, revision, saved, setup};
use crate::elapsed::Elapsed;
use crate::plan::Plan;
use crate::plan::guard::{Override, refuses, unused};
use crate::report::{
    clean, findings, mistakes_page, plan_page, plan_text, review_annotations, review_page,
};
use crate::review::{Base, Review, SAVED_VERSION, Saved, Side, review};

/// As what a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs; with --base the review and not the plan
    Json,
    /// For a comment on a pull request, or the summary of a CI job
    Markdown,
    /// A page for a browser
    Html,
    /// Annotations of GitHub Actions at the lines that do the most harm; with --base
    Github,
}

/// Show what would be done.
#[derive(Debug, Args)]
pub struct PlanCommand {
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// As what to show it
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
    /// Show what a change of the policies does: they are compared with those of a git revision or a
    /// directory, over the same images and at the same instant
    #[arg(long, value_name = "REVISION|DIRECTORY")]
    base: Option<String>,
    /// Exit with 2 where something is to be done
    #[arg(long)]
    detailed_exitcode: bool,
    /// Save the plan, for `show`, `approve` and `apply`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// For how long a saved plan may be carried out
    #[arg(long, value_name = "LENGTH", default_value = "24h", value_parser = Elapsed::parse, requires = "out")]
    valid_for: Elapsed,
    /// Sign the saved plan with this private key of OpenSSH
    #[arg(long, value_name = "FILE", requires = "out")]
    sign: Option<PathBuf>,
    /// Plan as if it were this instant
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
    /// Plan over this document instead of asking the engines
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Say that something a guard refuses is meant; the plan prints the value
    #[arg(long = "override", value_name = "GUARD=PLAN:COUNT", value_parser = Override::parse)]
    overrides: Vec<Override>,
}

impl PlanCommand {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let format = if self.json { Format::Json } else { self.format };
        let json = format == Format::Json;
        if matches!(format, Format::Markdown | Format::Html)
            && let Some(exit) = show_mistakes(global, format, console)?
        {
            return Ok(exit);
        }
        let seen = setup::seen(global, console, json, self.now, self.inventory.as_deref());
        let seen = match seen.await {
            Ok(seen) => seen,
            Err(early) => return early.exit(),
        };
        setup::note_meaning(&seen.policies, &seen.inventory, seen.now, console);
        let plan = seen.plan(&self.overrides);
        let review = match self.review(global, console, &seen, &plan, json)? {
            Reviewed::Invalid => return Ok(Exit::InvalidPolicy),
            Reviewed::Alone => None,
            Reviewed::Change(review) => Some(*review),
        };
        show(&plan, review.as_ref(), format, console)?;
        if let Some(file) = &self.out {
            self.save(global, plan.clone(), review, file)?;
            console.note(&format!("saved: {}\n", file.display()));
            note_approvals(&plan, file, console);
        }
        for text in unused(&plan, &self.overrides) {
            console.note(&format!("{text}\n"));
        }
        let exit = exit_of(&plan, self.detailed_exitcode);
        Ok(setup::with_exemptions(exit, &seen.policies, plan.now, console))
    }

    fn save(
        &self,
        global: &Global,
        plan: Plan,
        review: Option<Review>,
        file: &Path,
    ) -> anyhow::Result<()> {
        let commit = revision::commit_of(global);
        let saved = Saved {
            format_version: SAVED_VERSION.to_owned(),
            program: concat!("stillframe ", env!("CARGO_PKG_VERSION")).to_owned(),
            uncommitted: commit.as_ref().is_some_and(|(_, changed)| *changed),
            commit: commit.map(|(commit, _)| commit),
            valid_until: self.valid_for.after(plan.now),
            plan,
            review,
        };
        saved::save(&saved, file, self.sign.as_deref())
    }

    fn review(
        &self,
        global: &Global,
        console: &Console,
        seen: &Seen,
        plan: &Plan,
        json: bool,
    ) -> anyhow::Result<Reviewed> {
        let Some(name) = &self.base else { return Ok(Reviewed::Alone) };
        let base = revision::load_base(name, global, true)?;
        let Some(policies) = base.loaded.policies else {
            console.error(&format!("the policies of {} have mistakes", clean(name)));
            setup::show_findings(&base.loaded.findings, console, json)?;
            return Ok(Reviewed::Invalid);
        };
        let before =
            Seen { policies: Arc::new(policies), inventory: seen.inventory.clone(), now: seen.now };
        let before_plan = before.plan(&[]);
        let base = Base {
            name: name.clone(),
            commit: base.commit,
            side: Side { policies: &before.policies, plan: &before_plan },
        };
        let side = Side { policies: &seen.policies, plan };
        Ok(Reviewed::Change(Box::new(review(base, &side, &seen.inventory))))
    }
}

/// Shows mistakes in the policies where the plan would be read.
fn show_mistakes(
    global: &Global,
    format: Format,
    console: &Console,
) -> anyhow::Result<Option<Exit>> {
    let loaded = setup::load_policies(global, false)?;
    if loaded.policies.is_some() {
        return Ok(None);
    }
    let page = mistakes_page(&loaded.findings);
    match format {
        Format::Html => console.print(&page.to_html()),
        _ => console.print(&page.to_markdown()),
    }
    console.note(&findings::text(&loaded.findings));
    Ok(Some(Exit::InvalidPolicy))
}

/// What a change of the policies does, where one was asked about.
enum Reviewed {
    /// The base has mistakes, which have been shown.
    Invalid,
    /// Nobody asked.
    Alone,
    /// What it does.
    Change(Box<Review>),
}

/// Says how what is refused is approved: the very commands.
fn note_approvals(plan: &Plan, file: &Path, console: &Console) {
    let refused = plan.refusals.iter().filter(|refusal| !refusal.overridden);
    let classes: BTreeSet<_> = refused.flat_map(|refusal| &refusal.classes).collect();
    for class in classes {
        let file = file.display();
        console
            .note(&format!("if it is meant: stillframe approve {file} --class {}\n", class.word()));
    }
}

/// Shows a plan, and what a change of the policies does.
pub(super) fn show(
    plan: &Plan,
    review: Option<&Review>,
    format: Format,
    console: &Console,
) -> anyhow::Result<()> {
    let page = review.map_or_else(|| plan_page(plan), review_page);
    match (format, review) {
        (Format::Json, Some(review)) => console.json(review)?,
        (Format::Json, None) => console.json(plan)?,
        (Format::Text, Some(_)) => {
            console.print(&format!("{}\n{}", page.to_terminal(), plan_text(plan)));
        }
        (Format::Text, None) => console.print(&plan_text(plan)),
        (Format::Github, Some(review)) => console.print(&review_annotations(review)),
        (Format::Github, None) => {}
        (Format::Markdown, _) => console.print(&page.to_markdown()),
        (Format::Html, _) => console.print(&page.to_html()),
    }
    Ok(())
}

/// How a plan that is only shown ends the run.
fn exit_of(plan: &Plan, detailed: bool) -> Exit {
    // What stands still is started by an apply, which somebody has to ask for.
    let stands_still = plan.engines.iter().any(|engine| !engine.overdue.is_empty());
    if plan.engines.iter().any(|engine| !engine.complete) {
        Exit::Failed
    } else if refuses(&plan.refusals) {
        Exit::Refused
    } else if detailed && (plan.summary.is_pending() || stands_still) {
        Exit::Pending
    } else {
        Exit::Success
    }
}
