//! `stillframe fmt`

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use similar::TextDiff;

use super::{Console, Exit, Global, whole_message};
use crate::files;
use crate::policy::format::format;
use crate::policy::{Finding, SourceFile};
use crate::report::{clean, findings};

/// Stands for standard input, and for its text in what is printed.
const STDIN: &str = "-";
const STDIN_SHOWN: &str = "<stdin>";

/// Write policy files in their canonical form; comments stay.
#[derive(Debug, Args)]
pub struct Format {
    /// Files, or directories with YAML files; `-` formats standard input to standard output. The
    /// default is the paths of --policies
    paths: Vec<PathBuf>,
    /// Write nothing; show what would change, and end with 1 if anything would
    #[arg(long)]
    check: bool,
    /// Write nothing; show what would change
    #[arg(long)]
    diff: bool,
    /// Write nothing; print which files would change as JSON
    #[arg(long)]
    json: bool,
}

/// A file and its canonical form.
struct Formatted {
    file: Arc<SourceFile>,
    text: String,
}

impl Formatted {
    fn is_changed(&self) -> bool {
        self.file.text != self.text
    }
}

impl Format {
    pub(super) fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let is_stdin = self.paths.iter().any(|path| path == Path::new(STDIN));
        if is_stdin && self.paths.len() > 1 {
            bail!("`-` stands alone: standard input is formatted, or files are");
        }
        let (files, mut found) =
            if is_stdin { (vec![stdin()?], Vec::new()) } else { self.files(global)? };
        let mut all = Vec::new();
        for file in files {
            match format(&file) {
                Ok(text) => all.push(Formatted { file, text }),
                Err(findings) => {
                    // What the file is said to be like, where it is printed all the same.
                    let is_kept = !findings.iter().any(Finding::is_error);
                    found.extend(findings);
                    if is_kept {
                        all.push(Formatted { text: file.text.clone(), file });
                    }
                }
            }
        }
        let mut is_written = true;
        if self.json {
            console.json(&report(&all, &found))?;
        } else if self.check || self.diff {
            for formatted in all.iter().filter(|formatted| formatted.is_changed()) {
                console.print(&diff(formatted));
            }
        } else if is_stdin {
            for formatted in &all {
                console.verbatim(&formatted.text)?;
            }
        } else {
            is_written = write(&all, console);
        }
        if !self.json && !found.is_empty() {
            console.note(&findings::text(&found));
        }
        Ok(if !is_written {
            Exit::Failed
        } else if found.iter().any(Finding::is_error) {
            Exit::InvalidPolicy
        } else if self.check && all.iter().any(Formatted::is_changed) {
            Exit::Failed
        } else {
            Exit::Success
        })
    }

    fn files(&self, global: &Global) -> anyhow::Result<(Vec<Arc<SourceFile>>, Vec<Finding>)> {
        let paths = if self.paths.is_empty() { &global.policies } else { &self.paths };
        if let Some(path) = paths.iter().find(|path| !path.exists()) {
            bail!("there is no {}; name files or directories that are there", path.display());
        }
        // What others include is theirs, unless it is the whole set that is formatted.
        let read = if self.paths.is_empty() { files::read_policies } else { files::read_files };
        Ok(read(paths))
    }
}

fn stdin() -> anyhow::Result<Arc<SourceFile>> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.context("cannot read standard input as UTF-8 text")?;
    Ok(Arc::new(SourceFile { path: STDIN_SHOWN.to_owned(), text }))
}

/// Whether every file that changes could be written; one that cannot be keeps none of the others.
fn write(all: &[Formatted], console: &Console) -> bool {
    let mut is_written = true;
    for Formatted { file, text } in all.iter().filter(|formatted| formatted.is_changed()) {
        let result = files::replace(Path::new(&file.path), text);
        match result.with_context(|| format!("cannot write {}", file.path)) {
            Ok(()) => console.print(&format!("formatted {}\n", clean(&file.path))),
            Err(error) => {
                console.error(&clean(&whole_message(&error)));
                is_written = false;
            }
        }
    }
    is_written
}

fn report(all: &[Formatted], found: &[Finding]) -> serde_json::Value {
    let files: Vec<_> = all
        .iter()
        .map(|formatted| json!({"path": formatted.file.path, "changed": formatted.is_changed()}))
        .collect();
    let mut document = findings::json(found);
    document["files"] = json!(files);
    document
}

/// A unified diff; what a terminal would take for a command is shown as what it is.
fn diff(formatted: &Formatted) -> String {
    let path = &formatted.file.path;
    let diff = TextDiff::from_lines(&formatted.file.text, &formatted.text);
    let text = diff.unified_diff().header(path, path).to_string();
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}
