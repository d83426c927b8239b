//! `stillframe man`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, Console, Exit};

/// Write the manual pages: one of the program and one of each verb.
#[derive(Debug, Args)]
pub struct ManCommand {
    /// Where to; it is made if it is not there
    directory: PathBuf,
}

impl ManCommand {
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<Exit> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot make {}", self.directory.display()))?;
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        let count = write(&program, &self.directory)?;
        console.print(&format!("{count} pages in {}\n", self.directory.display()));
        Ok(Exit::Success)
    }
}

/// Writes the page of a command and those of the commands below it, and counts them.
fn write(command: &Command, directory: &Path) -> anyhow::Result<usize> {
    let mut count = 1;
    for below in command.get_subcommands() {
        count += write(below, directory)?;
    }
    let page = Man::new(command.clone())
        // A word that is empty is left out of the heading, and what follows takes its place.
        .date(" ")
        .source(concat!("stillframe ", env!("CARGO_PKG_VERSION")))
        .manual("stillframe");
    let path = directory.join(page.get_filename());
    page.generate_to(directory).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(count)
}
