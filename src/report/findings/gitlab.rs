//! Findings as a code quality report of GitLab, which shows them in merge requests.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::policy::{Finding, Severity};

/// All findings; those without a place stand at the first line of the directory.
pub fn gitlab(findings: &[Finding]) -> Value {
    let mut seen = std::collections::BTreeMap::new();
    let issues = findings.iter().map(|finding| {
        let (path, line) = match &finding.place {
            Some(place) => {
                (place.file.path.trim_start_matches("./").to_owned(), place.line_column().0)
            }
            None => (".".to_owned(), 1),
        };
        let code = finding.code.word();
        // What stays the same while lines move: where it is in a file is no part of it.
        let what = format!("{code}\n{path}\n{}", finding.message);
        let times = seen.entry(what.clone()).and_modify(|times| *times += 1).or_insert(0);
        let fingerprint = Sha256::digest(format!("{what}\n{times}"));
        let hint = finding.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        json!({
            "description": format!("{}{hint}", finding.message),
            "check_name": code,
            "fingerprint": data_encoding::HEXLOWER.encode(&fingerprint),
            "severity": match finding.code.severity() {
                Severity::Error => "critical",
                Severity::Warning => "minor",
            },
            "location": {"path": path, "lines": {"begin": line}},
        })
    });
    Value::Array(issues.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::finding::Place;
    use crate::policy::{Code, SourceFile};

    #[test]
    fn each_finding_has_a_fingerprint_of_its_own_that_stays() {
        let finding = |text: &str| {
            let file = Arc::new(SourceFile { path: "./a.yaml".into(), text: text.into() });
            let end = text.len();
            Finding::new(Code::BadCron, Place { file, span: end - 1..end }, "no")
        };
        let found = gitlab(&[finding("a: b"), finding("a: b"), finding("\n\na: b")]);
        let of = |index: usize| found[index]["fingerprint"].as_str().unwrap().to_owned();
        assert!(of(0) != of(1) && of(1) != of(2));
        assert_eq!(gitlab(&[finding("\n\na: b")])[0]["fingerprint"], of(0));
        assert_eq!(found[2]["location"], json!({"path": "a.yaml", "lines": {"begin": 3}}));
    }
}
