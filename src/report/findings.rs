//! Findings the way rustc shows them, and in the forms that programs read.

mod github;
mod gitlab;
mod sarif;

pub use github::{github, one as annotation};
pub use gitlab::gitlab;
pub use sarif::sarif;

use annotate_snippets::{AnnotationKind, Element, Level, Renderer, Snippet};
use serde_json::{Value, json};

use super::text::clean;
use crate::policy::finding::Place;
use crate::policy::{Finding, Severity};

/// All findings as text with colours, the worst named at the end.
pub fn text(findings: &[Finding]) -> String {
    let renderer = Renderer::styled();
    let mut text = String::new();
    for finding in findings {
        text.push_str(&one(finding, &[], &renderer));
        text.push_str("\n\n");
    }
    let (errors, warnings) = counts(findings);
    let plural = |number: usize| if number == 1 { "" } else { "s" };
    if let Some(first) = findings.first() {
        text.push_str(&format!("more about a finding: stillframe explain {}\n", first.code));
    }
    match (errors, warnings) {
        (0, 0) => {}
        (0, _) => text.push_str(&format!("{warnings} warning{}\n", plural(warnings))),
        (_, 0) => text.push_str(&format!("{errors} error{}\n", plural(errors))),
        _ => text.push_str(&format!(
            "{errors} error{}, {warnings} warning{}\n",
            plural(errors),
            plural(warnings)
        )),
    }
    text
}

/// How many errors and warnings there are.
pub fn counts(findings: &[Finding]) -> (usize, usize) {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    (errors, findings.len() - errors)
}

/// A finding with its place and what is said below it.
pub(super) fn one(finding: &Finding, notes: &[String], renderer: &Renderer) -> String {
    let notes: Vec<String> = notes.iter().map(|note| clean(note)).collect();
    let level = match finding.code.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let message = clean(&finding.message);
    let label = finding.label.as_deref().map(clean).unwrap_or_default();
    let related = finding.related.as_ref().map(|(place, label)| (place, clean(label)));
    let hint = finding.hint.as_deref().map(clean);
    let title = level.primary_title(message.as_str()).id(finding.code.word());
    let mut elements: Vec<Element<'_>> = Vec::new();
    if let Some(place) = &finding.place {
        let mut snippet = snippet(place);
        let annotation = AnnotationKind::Primary.span(visible(place));
        snippet = snippet.annotation(if label.is_empty() {
            annotation
        } else {
            annotation.label(&label)
        });
        let is_same_file = |other: &Place| other.file.path == place.file.path;
        match &related {
            Some((other, label)) if is_same_file(other) => {
                snippet =
                    snippet.annotation(AnnotationKind::Context.span(visible(other)).label(label));
                elements.push(snippet.into());
            }
            Some((other, label)) => {
                elements.push(snippet.into());
                let annotation = AnnotationKind::Context.span(visible(other)).label(label);
                elements.push(self::snippet(other).annotation(annotation).into());
            }
            None => elements.push(snippet.into()),
        }
    }
    elements.extend(notes.iter().map(|note| Level::NOTE.message(note.as_str()).into()));
    if let Some(hint) = &hint {
        elements.push(Level::HELP.message(hint.as_str()).into());
    }
    if elements.is_empty() {
        return renderer.render(&[annotate_snippets::Group::with_title(title)]);
    }
    renderer.render(&[title.elements(elements)])
}

fn snippet(place: &Place) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    Snippet::source(place.file.text.as_str()).line_start(1).path(place.file.path.as_str())
}

/// At least one character, inside the text and on character boundaries.
fn visible(place: &Place) -> std::ops::Range<usize> {
    let text = &place.file.text;
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(place.span.start);
    let end = floor(place.span.end).max(start);
    if end > start {
        return start..end;
    }
    let next = text[start..].chars().next().filter(|character| *character != '\n');
    start..start + next.map_or(0, char::len_utf8)
}

/// All findings as a JSON document.
pub fn json(findings: &[Finding]) -> Value {
    let (errors, warnings) = counts(findings);
    json!({
        "format_version": "1.0",
        "errors": errors,
        "warnings": warnings,
        "findings": findings.iter().map(json_one).collect::<Vec<_>>(),
    })
}

/// A finding as JSON.
pub(super) fn json_one(finding: &Finding) -> Value {
    let place = |place: &Place| {
        let (line, column) = place.line_column();
        let end = Place { file: place.file.clone(), span: place.span.end..place.span.end };
        let (end_line, end_column) = end.line_column();
        json!({
            "file": place.file.path,
            "line": line,
            "column": column,
            "end_line": end_line,
            "end_column": end_column,
        })
    };
    json!({
        "code": finding.code,
        "severity": finding.code.severity(),
        "policy": finding.policy,
        "message": finding.message,
        "place": finding.place.as_ref().map(place),
        "label": finding.label,
        "hint": finding.hint,
        "related": finding.related.as_ref().map(|(at, label)| json!({"place": place(at), "label": label})),
    })
}
