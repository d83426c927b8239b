//! Findings as SARIF 2.1.0, which code scanning services read.
//!
//! The form is that of the OASIS standard, <https://docs.oasis-open.org/sarif/sarif/v2.1.0/>.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::policy::finding::Place;
use crate::policy::{Code, Finding, Severity};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// What our fingerprints are computed from; another number where that changes.
const FINGERPRINT: &str = "stillframe/v1";

/// One run with all findings. The rules are all codes there are, so that their pages can be shown.
pub fn sarif(findings: &[Finding]) -> Value {
    let mut seen = BTreeMap::new();
    let results: Vec<Value> = findings.iter().map(|finding| result(finding, &mut seen)).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "stillframe",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": Code::ALL.iter().map(|code| rule(*code)).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn level(code: Code) -> &'static str {
    match code.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.word(),
        "shortDescription": {"text": code.title()},
        "fullDescription": {"text": code.page()},
        "help": {"text": format!("stillframe explain {}", code.word())},
        "defaultConfiguration": {"level": level(code)},
    })
}

fn result(finding: &Finding, seen: &mut BTreeMap<String, usize>) -> Value {
    let hint = finding.hint.as_ref().map(|hint| format!(". Help: {hint}")).unwrap_or_default();
    let mut result = json!({
        "ruleId": finding.code.word(),
        "ruleIndex": Code::ALL.iter().position(|code| *code == finding.code),
        "level": level(finding.code),
        "message": {"text": format!("{}{hint}", finding.message)},
        "partialFingerprints": {FINGERPRINT: fingerprint(finding, seen)},
    });
    if let Some(policy) = &finding.policy {
        result["properties"] = json!({"policy": policy});
    }
    // A file that is missing altogether has no place.
    if let Some(place) = &finding.place {
        result["locations"] = json!([{"physicalLocation": physical(place)}]);
    }
    if let Some((place, label)) = &finding.related {
        result["relatedLocations"] =
            json!([{"id": 1, "physicalLocation": physical(place), "message": {"text": label}}]);
    }
    result
}

fn physical(place: &Place) -> Value {
    let (line, column) = place.line_column();
    let end = Place { file: place.file.clone(), span: place.span.end..place.span.end };
    let (end_line, end_column) = end.line_column();
    json!({
        "artifactLocation": {"uri": uri(&place.file.path)},
        "region": {
            "startLine": line,
            "startColumn": column,
            "endLine": end_line,
            "endColumn": end_column,
        },
    })
}

/// A path as a URI reference (RFC 3986): relative where the path is.
fn uri(path: &str) -> String {
    let mut uri = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in path.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

/// Stays the same when lines above are added or taken away: code, file, the text of the line, and
/// which of several equal ones it is.
fn fingerprint(finding: &Finding, seen: &mut BTreeMap<String, usize>) -> String {
    let place = finding.place.as_ref().map(|place| {
        let (line, _) = place.line_column();
        let text = place.file.text.lines().nth(line - 1).unwrap_or_default();
        (place.file.path.as_str(), text.trim())
    });
    let (path, line) = place.unwrap_or(("", finding.message.as_str()));
    let text = format!("{}\n{path}\n{line}", finding.code.word());
    let number = seen.entry(text.clone()).and_modify(|number| *number += 1).or_insert(1);
    let digest = Sha256::digest(format!("{text}\n{number}").as_bytes());
    data_encoding::HEXLOWER.encode(&digest[..16])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::SourceFile;

    fn finding(text: &str, at: &str) -> Finding {
        let file = Arc::new(SourceFile { path: "my policies/a.yaml".into(), text: text.into() });
        let start = text.find(at).unwrap();
        Finding::new(Code::BadCron, Place { file, span: start..start + at.len() }, "no")
    }

    fn of(findings: &[Finding]) -> Vec<String> {
        let document = sarif(findings);
        let results = document["runs"][0]["results"].as_array().unwrap();
        results
            .iter()
            .map(|result| result["partialFingerprints"][FINGERPRINT].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn fingerprints_outlive_lines_above() {
        let before = of(&[finding("a: 1\ncron: x\n", "x")]);
        assert_eq!(of(&[finding("# new\n\na: 1\n  cron: x\n", "x")]), before);
        assert_ne!(of(&[finding("a: 1\ncron: y\n", "y")]), before);
        let twice = of(&[finding("cron: x\n", "x"), finding("cron: x\n", "x")]);
        assert_ne!(twice[0], twice[1]);
    }

    #[test]
    fn places_are_uris_and_columns_are_characters() {
        let document = sarif(&[finding("ä: 1\nö: [x]\n", "x")]);
        let place = &document["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "my%20policies/a.yaml");
        assert_eq!(
            place["region"],
            json!({"startLine": 2, "startColumn": 5, "endLine": 2, "endColumn": 6})
        );
        assert_eq!(uri("/etc/p.yaml"), "file:///etc/p.yaml");
    }
}
