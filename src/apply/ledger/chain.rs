//! The chain of a ledger: each line holds the digest of the one before it.
//!
//! So a line that was changed, put in or taken out is noticed at the next one. What was cut off at the
//! end is noticed only by who knows the digest of the last line: it is printed, to be kept elsewhere.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What stands for the line before the first.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What a look at a whole ledger found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Checked {
    /// Lines that are whole.
    pub lines: usize,
    /// Lines from before there was a chain; they prove nothing.
    pub unchained: usize,
    /// Lines that a killed run left half written, by their numbers.
    pub half_written: Vec<usize>,
    /// Where the chain breaks.
    pub breaks: Vec<Break>,
    /// The digest of the last line.
    pub head: String,
    /// The digest of each line, in order.
    #[serde(skip)]
    pub digests: Vec<String>,
}

/// A place where a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

/// The SHA-256 of a line without its end, as hex.
pub fn digest(line: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(line))
}

/// Whether a line is whole.
pub(super) fn is_line(line: &[u8]) -> bool {
    serde_json::from_slice::<Value>(line).is_ok_and(|line| line.is_object())
}

/// Lines without their ends, each with where it begins. Empty ones are none.
pub(super) fn lines(text: &[u8]) -> Vec<(usize, &[u8])> {
    let mut begin = 0;
    let mut lines = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        if !line.is_empty() {
            lines.push((begin, line));
        }
        begin += line.len() + 1;
    }
    lines
}

/// Looks at a whole ledger.
pub fn check(text: &[u8]) -> Checked {
    let mut checked = Checked { head: BEGINNING.to_owned(), ..Checked::default() };
    let mut is_chained = false;
    for (index, (_, line)) in lines(text).into_iter().enumerate() {
        let number = index + 1;
        let read = serde_json::from_slice::<Value>(line).ok().filter(Value::is_object);
        let Some(read) = read else {
            checked.half_written.push(number);
            continue;
        };
        match read.get("previous").and_then(Value::as_str) {
            Some(previous) => {
                if previous != checked.head {
                    let message =
                        "the line before it was changed or taken out, or this one was put in";
                    checked.breaks.push(Break { line: number, message: message.to_owned() });
                }
                is_chained = true;
            }
            None if is_chained => {
                let message = "it does not name the line before it";
                checked.breaks.push(Break { line: number, message: message.to_owned() });
            }
            None => checked.unchained += 1,
        }
        checked.lines += 1;
        checked.head = digest(line);
        checked.digests.push(checked.head.clone());
    }
    checked
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ledger(count: usize) -> Vec<Vec<u8>> {
        let mut head = BEGINNING.to_owned();
        (0..count)
            .map(|number| {
                let line = json!({"number": number, "previous": head}).to_string().into_bytes();
                head = digest(&line);
                line
            })
            .collect()
    }

    fn breaks(lines: &[Vec<u8>]) -> Vec<usize> {
        let checked = check(&lines.join(&b'\n'));
        checked.breaks.into_iter().map(|one| one.line).collect()
    }

    #[test]
    fn what_is_taken_out_put_in_or_changed_is_noticed() {
        let whole = ledger(6);
        assert_eq!(breaks(&whole), [0; 0]);
        for index in 0..6 {
            let mut without = whole.clone();
            without.remove(index);
            // The end can be cut off; its digest tells.
            let wanted: Vec<usize> = if index < 5 { vec![index + 1] } else { Vec::new() };
            assert_eq!(breaks(&without), wanted, "without {index}");
            let mut changed = whole.clone();
            changed[index] = String::from_utf8(changed[index].clone())
                .unwrap()
                .replace("\"number\":", "\"number\":1")
                .into_bytes();
            let wanted: Vec<usize> = if index < 5 { vec![index + 2] } else { Vec::new() };
            assert_eq!(breaks(&changed), wanted, "changed {index}");
            assert_ne!(check(&changed.join(&b'\n')).digests, check(&whole.join(&b'\n')).digests);
            let mut more = whole.clone();
            more.insert(index + 1, b"{\"number\":9}".to_vec());
            assert!(!breaks(&more).is_empty(), "after {index}");
        }
    }

    #[test]
    fn older_lines_prove_nothing_and_half_ones_break_nothing() {
        let mut lines = vec![b"{\"old\":1}".to_vec(), b"{\"old\":2}".to_vec()];
        let mut head = digest(&lines[1]);
        for number in 0..3 {
            let line = json!({"number": number, "previous": head}).to_string().into_bytes();
            head = digest(&line);
            lines.push(line);
            lines.push(b"{\"half".to_vec());
        }
        let checked = check(&lines.join(&b'\n'));
        assert_eq!((checked.lines, checked.unchained), (5, 2));
        assert_eq!((checked.half_written, checked.breaks), (vec![4, 6, 8], Vec::new()));
        assert_eq!(checked.head, head);
    }
}
