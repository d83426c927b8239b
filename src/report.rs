//! Reports: one view of what happened, as text for people and JSON for programs.
//!
//! Text is a template over a view, JSON is the document itself. Everything that comes from names,
//! labels and messages is made harmless before it reaches a terminal.

mod adoption;
mod audit;
mod doctor;
pub mod findings;
mod images;
mod outcome;
pub mod overview;
pub mod page;
mod plan;
mod review;
pub mod simulation;
mod text;
pub mod verdicts;

use handlebars::{Context, Handlebars, Helper, HelperResult, Output, RenderContext, no_escape};
use serde::Serialize;

pub use adoption::adoption_text;
pub use audit::{audit_page, deletions_csv, drift_page};
pub use doctor::{Diagnosis, EngineDiagnosis, diagnosis_text};
pub use images::{ImageRow, image_rows, list, show, state};
pub use outcome::{
    Protection, apply_text, done_by, host_of, protection, protection_text, settled_text,
};
pub use plan::{plan_page, plan_text};
pub use review::{mistakes_page, review_annotations, review_page};
pub use text::{bytes, clean, count, minute, second, table};

/// A group of lines under a heading.
#[derive(Debug, Clone, Serialize)]
struct Section {
    title: String,
    style: &'static str,
    rows: Vec<Row>,
}

/// A line and what is said below it.
#[derive(Debug, Clone, Serialize)]
struct Row {
    text: String,
    style: &'static str,
    notes: Vec<String>,
}

impl Row {
    fn new(style: &'static str, text: String) -> Self {
        Self { text, style, notes: Vec::new() }
    }
}

/// Renders a view with one of the text templates.
fn render(template: &str, view: &impl Serialize) -> String {
    let mut registry = Handlebars::new();
    registry.register_escape_fn(no_escape);
    registry.set_strict_mode(true);
    registry.register_helper("paint", Box::new(paint));
    registry
        .render_template(template, view)
        // The templates are part of the program and rendered by its tests.
        .unwrap_or_else(|error| format!("the report could not be written: {error}\n"))
}

/// `{{paint STYLE TEXT}}`: the text in a colour. What is not a terminal never sees the colour,
/// because everything is printed through a stream that takes it away.
fn paint(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let word = |index: usize| {
        helper.param(index).and_then(|param| param.value().as_str()).unwrap_or_default()
    };
    let style = text::style(word(0));
    write!(StrOutput(out), "{}{}{}", style.render(), word(1), style.render_reset())
        .map_err(|error| handlebars::RenderErrorReason::Other(error.to_string()))?;
    Ok(())
}

/// Lets `write!` write into a template's output.
struct StrOutput<'a>(&'a mut dyn Output);

impl std::fmt::Write for StrOutput<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text).map_err(|_| std::fmt::Error)
    }
}

use std::fmt::Write as _;
