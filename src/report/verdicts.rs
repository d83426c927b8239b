//! How tests of policies went: for people, as JSON, and as the XML of `JUnit` for CI.

use std::collections::BTreeMap;
use std::time::Duration;

use annotate_snippets::Renderer;
use handlebars::Handlebars;
use serde::Serialize;
use serde_json::{Value, json};

use super::findings;
use super::text::{clean, count, style};
use crate::expect::{Failure, Verdict};
use crate::policy::Finding;

/// A verdict and how long the case took.
pub type Timed = (Verdict, Duration);

/// Each case in a line, those that failed with what is not met, and how many there are.
pub fn text(verdicts: &[Timed], left_out: usize, not_run: usize) -> String {
    let renderer = Renderer::styled();
    let mut text = String::new();
    for (verdict, _) in verdicts {
        let (word, colour) =
            if verdict.has_passed() { ("ok", "create") } else { ("FAILED", "delete") };
        let style = style(colour);
        text.push_str(&format!(
            "{}{word:<6}{}  {}\n",
            style.render(),
            style.render_reset(),
            clean(&full_name(verdict)),
        ));
    }
    for (verdict, _) in verdicts.iter().filter(|(verdict, _)| !verdict.has_passed()) {
        text.push_str(&format!("\n{}\n\n", clean(&full_name(verdict))));
        for failure in &verdict.failures {
            text.push_str(&findings::one(&failure.finding, &failure.notes, &renderer));
            text.push_str("\n\n");
        }
    }
    let failed = verdicts.iter().filter(|(verdict, _)| !verdict.has_passed()).count();
    let more: String = [(not_run, "not run because of mistakes"), (left_out, "left out")]
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, words)| format!(", {number} {words}"))
        .collect();
    text.push_str(&format!(
        "\n{} passed, {failed} failed{more}\n",
        count(verdicts.len() - failed, "case"),
    ));
    text
}

/// `policies/db.test.yaml: db > after a year`.
fn full_name(verdict: &Verdict) -> String {
    format!("{}: {} > {}", verdict.place.file.path, verdict.suite, verdict.case)
}

/// All verdicts as a JSON document, with what is wrong in the files.
pub fn json(verdicts: &[Timed], found: &[Finding]) -> Value {
    let failed = verdicts.iter().filter(|(verdict, _)| !verdict.has_passed()).count();
    let cases: Vec<Value> = verdicts
        .iter()
        .map(|(verdict, _)| {
            let (line, column) = verdict.place.line_column();
            json!({
                "file": verdict.place.file.path,
                "line": line,
                "column": column,
                "suite": verdict.suite,
                "case": verdict.case,
                "passed": verdict.has_passed(),
                "failures": verdict.failures.iter().map(json_failure).collect::<Vec<_>>(),
            })
        })
        .collect();
    let invalid = findings::json(found);
    json!({
        "format_version": "1.0",
        "passed": verdicts.len() - failed,
        "failed": failed,
        "cases": cases,
        "errors": invalid["errors"],
        "findings": invalid["findings"],
    })
}

fn json_failure(failure: &Failure) -> Value {
    json!({
        "expectation": failure.expectation,
        "finding": findings::json_one(&failure.finding),
        "notes": failure.notes,
        "missing": failure.missing,
        "unexpected": failure.unexpected,
    })
}

#[derive(Serialize)]
struct Junit {
    tests: usize,
    failures: usize,
    errors: usize,
    time: String,
    suites: Vec<JunitSuite>,
}

#[derive(Serialize)]
struct JunitSuite {
    name: String,
    file: String,
    tests: usize,
    failures: usize,
    errors: usize,
    time: String,
    cases: Vec<JunitCase>,
}

#[derive(Serialize)]
struct JunitCase {
    class: String,
    name: String,
    file: String,
    line: usize,
    time: String,
    failure: Option<JunitMessage>,
    error: Option<JunitMessage>,
}

/// Readers keep one of each case, so all that is wrong stands in it.
#[derive(Serialize)]
struct JunitMessage {
    message: String,
    code: &'static str,
    text: String,
}

const JUNIT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="stillframe test" tests="{{tests}}" failures="{{failures}}" errors="{{errors}}" time="{{time}}">
{{#each suites}}
  <testsuite name="{{name}}" file="{{file}}" tests="{{tests}}" failures="{{failures}}" errors="{{errors}}" skipped="0" time="{{time}}">
{{#each cases}}
    <testcase classname="{{class}}" name="{{name}}" file="{{file}}" line="{{line}}" time="{{time}}">
{{#if failure}}
      <failure message="{{failure.message}}" type="{{failure.code}}">{{failure.text}}</failure>
{{/if}}
{{#if error}}
      <error message="{{error.message}}" type="{{error.code}}">{{error.text}}</error>
{{/if}}
    </testcase>
{{/each}}
  </testsuite>
{{/each}}
</testsuites>
"#;

/// All verdicts as `JUnit` XML: a suite for each document, and one for each file that has mistakes.
pub fn junit(verdicts: &[Timed], found: &[Finding]) -> String {
    let mut suites: Vec<JunitSuite> = Vec::new();
    for (verdict, time) in verdicts {
        let file = verdict.place.file.path.clone();
        let suite = JunitCase {
            class: class(&file, &verdict.suite),
            name: verdict.case.clone(),
            line: verdict.place.line_column().0,
            time: seconds(*time),
            failure: (!verdict.has_passed()).then(|| failure_message(&verdict.failures)),
            error: None,
            file,
        };
        put(&mut suites, &verdict.suite, suite, *time);
    }
    let mut by_file: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in found.iter().filter(|finding| finding.is_error()) {
        let file = finding.place.as_ref().map_or("", |place| place.file.path.as_str());
        by_file.entry(file).or_default().push(finding);
    }
    for (file, found) in by_file {
        let case = JunitCase {
            class: class(file, "form"),
            name: "is valid".to_owned(),
            file: file.to_owned(),
            line: found[0].place.as_ref().map_or(1, |place| place.line_column().0),
            time: seconds(Duration::ZERO),
            failure: None,
            error: Some(error_message(&found)),
        };
        put(&mut suites, "form", case, Duration::ZERO);
    }
    let sum = |number: fn(&JunitSuite) -> usize| suites.iter().map(number).sum();
    let document = Junit {
        tests: sum(|suite| suite.tests),
        failures: sum(|suite| suite.failures),
        errors: sum(|suite| suite.errors),
        time: seconds(verdicts.iter().map(|(_, time)| *time).sum()),
        suites,
    };
    let mut registry = Handlebars::new();
    registry.register_escape_fn(xml);
    registry.set_strict_mode(true);
    registry
        .render_template(JUNIT, &document)
        // The template is part of the program and rendered by its tests.
        .unwrap_or_else(|error| format!("the report could not be written: {error}\n"))
}

fn put(suites: &mut Vec<JunitSuite>, name: &str, case: JunitCase, time: Duration) {
    let is_it = |suite: &JunitSuite| suite.file == case.file && suite.name == name;
    let at = suites.iter().position(is_it).unwrap_or_else(|| {
        suites.push(JunitSuite {
            name: name.to_owned(),
            file: case.file.clone(),
            tests: 0,
            failures: 0,
            errors: 0,
            time: String::new(),
            cases: Vec::new(),
        });
        suites.len() - 1
    });
    let suite = &mut suites[at];
    suite.tests += 1;
    suite.failures += usize::from(case.failure.is_some());
    suite.errors += usize::from(case.error.is_some());
    let before: f64 = suite.time.parse().unwrap_or(0.0);
    suite.time = format!("{:.6}", before + time.as_secs_f64());
    suite.cases.push(case);
}

fn failure_message(failures: &[Failure]) -> JunitMessage {
    let renderer = Renderer::plain();
    let texts: Vec<String> = failures
        .iter()
        .map(|failure| findings::one(&failure.finding, &failure.notes, &renderer))
        .collect();
    let messages: Vec<&str> =
        failures.iter().map(|failure| failure.finding.message.as_str()).collect();
    JunitMessage {
        message: messages.join("; "),
        code: failures.first().map_or("", |failure| failure.finding.code.word()),
        text: texts.join("\n\n"),
    }
}

fn error_message(found: &[&Finding]) -> JunitMessage {
    let renderer = Renderer::plain();
    let texts: Vec<String> =
        found.iter().map(|finding| findings::one(finding, &[], &renderer)).collect();
    let messages: Vec<&str> = found.iter().map(|finding| finding.message.as_str()).collect();
    JunitMessage {
        message: messages.join("; "),
        code: found.first().map_or("", |finding| finding.code.word()),
        text: texts.join("\n\n"),
    }
}

/// A name that readers take apart at its dots: the file without its ending, and the suite.
fn class(file: &str, suite: &str) -> String {
    let file = file.trim_end_matches(".yaml").trim_end_matches(".yml").trim_end_matches(".test");
    let parts: Vec<String> = [file, suite]
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|part| part.trim_start_matches("./").replace(['/', '.'], "_"))
        .collect();
    parts.join(".")
}

fn seconds(time: Duration) -> String {
    format!("{:.6}", time.as_secs_f64())
}

/// Text inside XML: what has a meaning there is escaped, what may not be there at all is shown as
/// what it is.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' | '\t' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => escaped.extend(character.escape_unicode()),
            control if control.is_control() => escaped.extend(control.escape_unicode()),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::finding::Place;
    use crate::policy::{Code, SourceFile};

    fn place() -> Place {
        let text = "kind: PolicyTest\nname: a\n".to_owned();
        Place {
            file: Arc::new(SourceFile { path: "p/a.test.yaml".to_owned(), text }),
            span: 23..24,
        }
    }

    fn verdict(case: &str, message: Option<&str>) -> Timed {
        let failure = |message: &str| Failure {
            expectation: "kept.count".to_owned(),
            finding: Finding::new(Code::UnmetExpectation, place(), message),
            notes: vec!["kept: <all>".to_owned()],
            missing: Vec::new(),
            unexpected: Vec::new(),
        };
        let verdict = Verdict {
            suite: "a & b".to_owned(),
            case: case.to_owned(),
            place: place(),
            failures: message.map(failure).into_iter().collect(),
        };
        (verdict, Duration::from_millis(2))
    }

    #[test]
    fn nothing_breaks_out_of_the_xml() {
        assert_eq!(
            xml("<a b=\"c\" d='e'>&\u{1b}\n"),
            "&lt;a b=&quot;c&quot; d=&apos;e&apos;&gt;&amp;\\u{1b}\n"
        );
    }

    #[test]
    fn junit_counts_suites_cases_failures_and_errors() {
        let found = [Finding::new(Code::UnknownKey, place(), "the key `x` has no meaning here")];
        let text = junit(&[verdict("one", None), verdict("two", Some("not <this>"))], &found);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("<test")).collect();
        assert_eq!(
            lines,
            [
                r#"<testsuites name="stillframe test" tests="3" failures="1" errors="1" time="0.004000">"#,
                r#"  <testsuite name="a &amp; b" file="p/a.test.yaml" tests="2" failures="1" errors="0" skipped="0" time="0.004000">"#,
                r#"    <testcase classname="p_a.a &amp; b" name="one" file="p/a.test.yaml" line="2" time="0.002000">"#,
                r#"    <testcase classname="p_a.a &amp; b" name="two" file="p/a.test.yaml" line="2" time="0.002000">"#,
                r#"  <testsuite name="form" file="p/a.test.yaml" tests="1" failures="0" errors="1" skipped="0" time="0.000000">"#,
                r#"    <testcase classname="p_a.form" name="is valid" file="p/a.test.yaml" line="2" time="0.000000">"#,
            ]
        );
        assert!(
            text.contains(r#"<failure message="not &lt;this&gt;" type="unmet-expectation">"#),
            "{text}"
        );
        assert!(text.contains("kept: &lt;all&gt;"), "{text}");
        assert!(text.contains(r#"type="unknown-key">"#), "{text}");
    }

    #[test]
    fn json_says_what_failed_and_what_is_invalid() {
        let document = json(&[verdict("two", Some("not this"))], &[]);
        assert_eq!(document["passed"], 0);
        assert_eq!(document["cases"][0]["failures"][0]["finding"]["message"], "not this");
    }
}
