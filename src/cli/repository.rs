//! `stillframe repository`

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::key::local_engine;
use super::{Console, Exit, Global};
use crate::engine::local::LocalEngine;
use crate::engine::local::home::Home;
use crate::report::{bytes, table};

/// Repositories of embedded engines.
#[derive(Debug, Args)]
pub struct RepositoryCommand {
    #[command(subcommand)]
    verb: RepositoryVerb,
    /// The engine, where there are several embedded ones
    #[arg(long, global = true)]
    engine: Option<String>,
}

#[derive(Debug, Subcommand)]
enum RepositoryVerb {
    /// List the restic repositories: one per storage location and key
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give up packs that are gone for good, so that new images store anew what they held; take in
    /// packs that came back
    Repair {
        /// The storage location
        #[arg(long)]
        location: String,
        /// The key
        #[arg(long)]
        key: String,
    },
    /// Add a password, so that the restic program can open a repository
    AddPassword {
        /// The storage location
        #[arg(long)]
        location: String,
        /// The key
        #[arg(long)]
        key: String,
        /// A file whose first line is the password
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
    },
}

/// The repository of a location and a key.
fn find<'a>(homes: &'a [Home], location: &str, key: &str) -> anyhow::Result<&'a Home> {
    let is_it = |home: &&Home| home.location == location && home.key == key;
    homes.iter().find(is_it).with_context(|| {
        format!("there is no repository of {location} under {key}; `stillframe repository list` shows all")
    })
}

impl RepositoryCommand {
    pub(super) fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let engine = match local_engine(global, console, self.engine.as_deref()) {
            Ok(engine) => engine,
            Err(early) => return early.exit(),
        };
        let (homes, errors) = engine.repositories();
        for error in &errors {
            console.error(&error.to_string());
        }
        match &self.verb {
            RepositoryVerb::List { json } => list(&engine, &homes, *json, console),
            RepositoryVerb::Repair { location, key } => {
                let repaired = engine.repair_repository(find(&homes, location, key)?)?;
                let given_up = repaired.missing + repaired.cut_short;
                let mut text = format!(
                    "{given_up} packs given up ({} missing, {} cut short), {} taken in\n",
                    repaired.missing, repaired.cut_short, repaired.found
                );
                if given_up > 0 {
                    text.push_str(&format!(
                        "the index as it was is in {}; `stillframe verify` says which images are damaged\n",
                        repaired.aside.display()
                    ));
                }
                console.print(&text);
                Ok(Exit::Success)
            }
            RepositoryVerb::AddPassword { location, key, password_file } => {
                let home = find(&homes, location, key)?;
                let text = std::fs::read_to_string(password_file)
                    .with_context(|| format!("cannot read {}", password_file.display()))?;
                let password = text.lines().next().unwrap_or_default();
                if password.is_empty() {
                    bail!("{} has no password in its first line", password_file.display());
                }
                engine.open_repository(home)?.add_password(password)?;
                console.print(&format!(
                    "added. Look inside with:\n  restic -r {} -p {} snapshots\n",
                    home.path.display(),
                    password_file.display()
                ));
                Ok(Exit::Success)
            }
        }
    }
}

/// All repositories, those that cannot be opened among them.
fn list(
    engine: &LocalEngine,
    homes: &[Home],
    json: bool,
    console: &Console,
) -> anyhow::Result<Exit> {
    let mut documents = Vec::new();
    let mut rows = vec![["LOCATION", "KEY", "IMAGES", "SIZE", "PATH"].map(str::to_owned).to_vec()];
    let mut exit = Exit::Success;
    for home in homes {
        let opened = engine.open_repository(home);
        let content =
            opened.and_then(|opened| Ok((opened.images()?.images.len(), opened.pack_bytes()?)));
        documents.push(json!({
            "location": home.location,
            "key": home.key,
            "path": home.path,
            "images": content.as_ref().ok().map(|(images, _)| images),
            "bytes": content.as_ref().ok().map(|(_, bytes)| bytes),
            "error": content.as_ref().err().map(ToString::to_string),
        }));
        let (images, size) = match content {
            Ok((images, size)) => (images.to_string(), bytes(size)),
            Err(error) => {
                console.error(&error.to_string());
                exit = Exit::Failed;
                ("?".to_owned(), "?".to_owned())
            }
        };
        rows.push(vec![
            home.location.clone(),
            home.key.clone(),
            images,
            size,
            home.path.display().to_string(),
        ]);
    }
    if json {
        console.json(&json!({"format_version": "1.0", "repositories": documents}))?;
        return Ok(exit);
    }
    console.print(&table(&rows).iter().map(|line| format!("{line}\n")).collect::<String>());
    Ok(exit)
}
