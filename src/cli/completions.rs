//! `stillframe completions`

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Console, Exit};

/// Print what a shell completes commands with.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, console: &Console) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "stillframe", &mut script);
        let script = String::from_utf8(script).context("the completions are no text")?;
        console.verbatim(&script).context("the completions could not be written")?;
        Ok(Exit::Success)
    }
}
