//! Findings as workflow commands of GitHub Actions, which shows them beside the lines of a change.
//!
//! GitHub shows ten annotations of each kind and step; the worst come first, and how many are left out is
//! said in a notice. Escapes as in the toolkit's `core.issueCommand`.

use std::fmt::Write;

use crate::policy::finding::Place;
use crate::policy::{Finding, Severity};

/// So many annotations of each kind GitHub shows for a step.
const SHOWN_MAX: usize = 10;

/// One line per annotation, errors first.
pub fn github(findings: &[Finding]) -> String {
    let mut text = String::new();
    for (severity, command) in [(Severity::Error, "error"), (Severity::Warning, "warning")] {
        let of_kind: Vec<&Finding> =
            findings.iter().filter(|finding| finding.code.severity() == severity).collect();
        let shown = of_kind.len().min(SHOWN_MAX);
        for finding in &of_kind[..shown] {
            let _ = writeln!(text, "{}", annotation(command, finding));
        }
        let left = of_kind.len() - shown;
        if left > 0 {
            // A notice is of another kind, which has ten of its own.
            let _ = writeln!(
                text,
                "::notice title=stillframe::{left} more {command}{}; `stillframe validate` shows all",
                if left == 1 { "" } else { "s" }
            );
        }
    }
    text
}

fn annotation(command: &str, finding: &Finding) -> String {
    let mut properties = Vec::new();
    if let Some(place) = &finding.place {
        let (line, column) = place.line_column();
        let end = Place { file: place.file.clone(), span: place.span.end..place.span.end };
        let (end_line, end_column) = end.line_column();
        properties.push(format!("file={}", property(place.file.path.trim_start_matches("./"))));
        properties.push(format!("line={line},endLine={end_line}"));
        // Columns are for one line only.
        if line == end_line {
            properties.push(format!("col={column},endColumn={}", end_column.max(column + 1) - 1));
        }
    }
    properties.push(format!("title={}", property(finding.code.word())));
    let hint = finding.hint.as_ref().map(|hint| format!("\nhelp: {hint}")).unwrap_or_default();
    let message = data(&format!("{}{hint}", finding.message));
    format!("::{command} {}::{message}", properties.join(","))
}

/// An annotation of a line.
pub fn one(command: &str, file: &str, line: usize, title: &str, message: &str) -> String {
    let (file, title) = (property(file.trim_start_matches("./")), property(title));
    format!("::{command} file={file},line={line},title={title}::{}", data(message))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::{Code, SourceFile};

    fn finding(path: &str, message: &str) -> Finding {
        let file = Arc::new(SourceFile { path: path.into(), text: "a: b\n".into() });
        Finding::new(Code::BadCron, Place { file, span: 3..4 }, message)
    }

    #[test]
    fn what_ends_a_command_is_escaped() {
        assert_eq!(
            github(&[finding("a,b:c.yaml", "50 %\n::error::x")]),
            "::error file=a%2Cb%3Ac.yaml,line=1,endLine=1,col=4,endColumn=4,title=bad-cron::50 %25%0A::error::x\n"
        );
    }

    #[test]
    fn paths_are_those_of_the_repository() {
        let text = github(&[finding("./policies/a.yaml", "no")]);
        assert!(text.starts_with("::error file=policies/a.yaml,"), "{text}");
    }

    #[test]
    fn ten_are_shown_and_the_rest_is_counted() {
        let text = github(&vec![finding("a.yaml", "no"); 12]);
        assert_eq!(text.lines().filter(|line| line.starts_with("::error ")).count(), 10);
        assert!(
            text.ends_with(
                "::notice title=stillframe::2 more errors; `stillframe validate` shows all\n"
            ),
            "{text}"
        );
        assert_eq!(github(&vec![finding("a.yaml", "no"); 10]).lines().count(), 10);
    }
}
