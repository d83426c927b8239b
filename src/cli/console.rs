//! Standard output and standard error.

use std::io::{self, IsTerminal, Write};

use anstream::AutoStream;
use serde::Serialize;

use super::Color;

/// Where results and messages go. A reader that has gone away (`| head`) is no error.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    choice: anstream::ColorChoice,
}

impl Console {
    /// With colour as asked for.
    pub fn new(color: Color) -> Self {
        let choice = match color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        Self { choice }
    }

    /// Writes a result.
    pub fn print(&self, text: &str) {
        let mut stream = AutoStream::new(io::stdout(), self.choice);
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    }

    /// Writes a result that is a file: byte for byte, and it must arrive whole.
    pub fn verbatim(&self, text: &str) -> io::Result<()> {
        let mut stream = io::stdout();
        stream.write_all(text.as_bytes()).and_then(|()| stream.flush())
    }

    /// Writes a result as JSON.
    pub fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        self.print(&text);
        Ok(())
    }

    /// Writes something that is not a result.
    pub fn note(&self, text: &str) {
        let mut stream = AutoStream::new(io::stderr(), self.choice);
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    }

    /// Writes that something went wrong.
    pub fn error(&self, message: &str) {
        let style = anstyle::AnsiColor::Red.on_default().bold();
        self.note(&format!("{}error{}: {message}\n", style.render(), style.render_reset()));
    }

    /// Whether a person is at the other end: asks can be answered and bars can be watched.
    pub fn is_interactive(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether standard output is a terminal.
    pub fn prints_to_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether standard error is a terminal.
    pub fn shows_progress(&self) -> bool {
        io::stderr().is_terminal()
    }
}
