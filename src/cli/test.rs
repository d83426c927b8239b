//! `stillframe test`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{Console, Exit, Global, setup};
use crate::expect::{Case, Runner, Suite};
use crate::policy::{Finding, Loaded};
use crate::report::verdicts::{self, Timed};
use crate::report::{clean, findings};

/// Run the tests of the policies: what the plan for a world and an instant must be.
///
/// Nothing is called and nothing is written but the report.
#[derive(Debug, Args)]
pub struct Test {
    /// Test files, or directories with files named `*.test.yaml`; without any, those beside the
    /// policies
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Run only cases whose file, test or name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Print the names of the cases and run none
    #[arg(long, conflicts_with = "junit")]
    list: bool,
    /// Write a report for CI to this file, in the XML of `JUnit`
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// What the tests run over: policies by where they are read from and for which environment.
type Over = BTreeMap<(Vec<PathBuf>, Option<String>), Loaded>;

/// All that was found out.
#[derive(Default)]
struct Results {
    verdicts: Vec<Timed>,
    findings: Vec<Finding>,
    left_out: usize,
    not_run: usize,
}

impl Test {
    pub(super) fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let paths =
            if self.paths.is_empty() { setup::test_paths(global) } else { self.paths.clone() };
        let named = if self.paths.is_empty() { &global.policies } else { &self.paths };
        if let Some(path) = named.iter().find(|path| !path.exists()) {
            bail!("there is no {}; name files or directories of tests", path.display());
        }
        let (suites, findings) = setup::read_tests(&paths)?;
        if suites.is_empty() && findings.is_empty() {
            bail!("there is no test; write a file named like web.test.yaml beside the policies");
        }
        if self.list {
            return self.list(&suites, &findings, console);
        }
        let mut results = Results { findings, ..Results::default() };
        let mut over = Over::new();
        for suite in &suites {
            self.suite(suite, global, &mut over, &mut results)?;
        }
        if results.verdicts.is_empty() && results.findings.is_empty() {
            let filter = self.filter.as_deref().unwrap_or_default();
            bail!("no case contains `{}`; see `stillframe test --list`", clean(filter));
        }
        if let Some(file) = &self.junit {
            std::fs::write(file, verdicts::junit(&results.verdicts, &results.findings))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        if self.json {
            let mut document = verdicts::json(&results.verdicts, &results.findings);
            document["left_out"] = json!(results.left_out);
            document["not_run"] = json!(results.not_run);
            console.json(&document)?;
        } else {
            if !results.verdicts.is_empty() {
                console.print(&verdicts::text(
                    &results.verdicts,
                    results.left_out,
                    results.not_run,
                ));
            }
            if !results.findings.is_empty() {
                console.note(&findings::text(&results.findings));
            }
        }
        Ok(results.exit())
    }

    fn suite(
        &self,
        suite: &Suite,
        global: &Global,
        over: &mut Over,
        results: &mut Results,
    ) -> anyhow::Result<()> {
        let chosen = suite.cases.iter().filter(|case| self.chooses(suite, case)).count();
        results.left_out += suite.cases.len() - chosen;
        if chosen == 0 {
            return Ok(());
        }
        let directory = Path::new(suite.path()).parent().unwrap_or(Path::new(""));
        let paths: Vec<PathBuf> = match &suite.policies {
            Some(paths) => paths.iter().map(|path| directory.join(path)).collect(),
            None => global.policies.clone(),
        };
        let environment = suite.environment.clone().or_else(|| global.environment.clone());
        let key = (paths.clone(), environment.clone());
        if !over.contains_key(&key) {
            let global = Global { policies: paths, environment, ..global.clone() };
            let loaded = setup::load_policies(&global, false)
                .with_context(|| format!("{} cannot be run", clean(suite.path())))?;
            over.insert(key.clone(), loaded);
        }
        let loaded = &over[&key];
        if loaded.policies.is_none() && suite.needs_policies() {
            results.find(loaded.findings.iter().filter(|finding| finding.is_error()).cloned());
        }
        let mut runner = Runner::new(suite, loaded);
        for case in suite.cases.iter().filter(|case| self.chooses(suite, case)) {
            let began = Instant::now();
            let (verdict, findings) = runner.run(case);
            results.not_run += usize::from(verdict.is_none());
            results.verdicts.extend(verdict.map(|verdict| (verdict, began.elapsed())));
            results.find(findings);
        }
        Ok(())
    }

    fn chooses(&self, suite: &Suite, case: &Case) -> bool {
        let name = format!("{}: {} > {}", suite.path(), suite.name, case.name);
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }

    fn list(&self, suites: &[Suite], found: &[Finding], console: &Console) -> anyhow::Result<Exit> {
        let chosen = suites.iter().flat_map(|suite| {
            let cases = suite.cases.iter().filter(|case| self.chooses(suite, case));
            cases.map(move |case| (suite, case))
        });
        if self.json {
            let cases: Vec<_> = chosen
                .map(|(suite, case)| {
                    let (line, _) = case.place.line_column();
                    json!({"file": suite.path(), "line": line, "suite": suite.name, "case": case.name})
                })
                .collect();
            console.json(&json!({"format_version": "1.0", "cases": cases}))?;
        } else {
            for (suite, case) in chosen {
                let name = format!("{}: {} > {}", suite.path(), suite.name, case.name);
                console.print(&format!("{}\n", clean(&name)));
            }
        }
        if found.is_empty() {
            return Ok(Exit::Success);
        }
        console.note(&findings::text(found));
        Ok(Exit::InvalidPolicy)
    }
}

impl Results {
    /// Takes findings, each once.
    fn find(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
    }

    fn exit(&self) -> Exit {
        if !self.findings.is_empty() {
            Exit::InvalidPolicy
        } else if self.verdicts.iter().all(|(verdict, _)| verdict.has_passed()) {
            Exit::Success
        } else {
            Exit::Failed
        }
    }
}
