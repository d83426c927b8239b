//! The report for auditors as a page, and its events as CSV.

use super::page::{Page, Part, Text, Weight};
use super::text::{bytes, count, grouped, minute};
use crate::audit::drift::{Drift, DriftKind, Drifted};
use crate::audit::{Audit, Deletion};
use crate::elapsed::Elapsed;

/// The report for people.
pub fn audit_page(audit: &Audit) -> Page {
    let parts = [
        compliance(audit),
        coverage(audit),
        deletions(audit),
        drills(audit),
        guards(audit),
        failures(audit),
        exemptions(audit),
    ];
    let head = Text::own("The digest of the last line of the ledger is ").name(&audit.chain.head);
    let seen = Text::own(format!(
        "Coverage is that of {}, under policies with the digest ",
        minute(audit.now)
    ));
    Page {
        title: format!("Protection from {} to {}", minute(audit.from), minute(audit.to)),
        verdict: verdict(audit),
        parts: parts.into_iter().filter(|part| !part.is_empty()).collect(),
        footer: vec![seen.name(&audit.policies_digest).and("."), head.and(".")],
    }
}

fn verdict(audit: &Audit) -> Vec<(Weight, Text)> {
    let mut lines = Vec::new();
    if audit.chain.whole {
        let text = format!("The ledger is whole: {}.", count(audit.chain.lines, "line"));
        lines.push((Weight::Aside, Text::own(text)));
    } else {
        let text = "The ledger is not whole: a line was changed or taken out. \
                    `stillframe ledger verify` says where.";
        lines.push((Weight::Danger, Text::own(text.replace('`', ""))));
    }
    let breaches = audit.compliance.iter().filter(|one| one.breaches > 0).count();
    if breaches > 0 {
        let text = format!(
            "{} with a broken recovery point objective.",
            count(breaches, "protected source")
        );
        lines.push((Weight::Danger, Text::own(text)));
    } else if !audit.compliance.is_empty() {
        let text = "Every recovery point objective was met, as far as restore points are known.";
        lines.push((Weight::Aside, Text::own(text)));
    }
    let text = format!(
        "{}: {} made, {} deleted, {} tried, {} failed.",
        count(audit.rounds, "round"),
        grouped(audit.created),
        grouped(audit.deletions.len()),
        grouped(audit.drills.len()),
        grouped(audit.failures.len()),
    );
    lines.push((Weight::Change, Text::own(text)));
    for engine in &audit.not_seen_whole {
        let text = Text::own("The engine ").name(engine).and(" was not seen whole.");
        lines.push((Weight::Notice, text));
    }
    lines
}

fn compliance(audit: &Audit) -> Part {
    let columns =
        ["source", "policy", "objective", "longest", "breaches", "broken for", "known from"];
    let mut part = Part::table("Recovery point objectives", Weight::Change, &columns);
    let mut all: Vec<_> = audit.compliance.iter().collect();
    all.sort_by_key(|one| std::cmp::Reverse((one.breaches > 0, one.broken_seconds)));
    part.rows = all
        .into_iter()
        .map(|one| {
            let longest = one.longest_seconds.map(|longest| Elapsed::seconds(longest).rough());
            let known = one.known_from.map(minute);
            vec![
                Text::foreign(&one.source_name),
                Text::foreign(one.policy.as_str()),
                Text::own(Elapsed::seconds(one.objective_seconds).rough()),
                Text::own(longest.unwrap_or_else(|| "no restore point".to_owned())),
                Text::own(grouped(one.breaches)),
                Text::own(Elapsed::seconds(one.broken_seconds).rough()),
                Text::own(known.unwrap_or_default()),
            ]
        })
        .collect();
    part
}

fn coverage(audit: &Audit) -> Part {
    let columns = ["source", "policy", "restore points", "newest", "oldest", "objective now"];
    let mut part = Part::table("Coverage", Weight::Aside, &columns);
    part.rows = audit
        .coverage
        .iter()
        .map(|cover| {
            let at = |slot: Option<crate::name::Slot>| {
                Text::own(slot.map(|slot| minute(slot.instant())).unwrap_or_default())
            };
            vec![
                Text::foreign(&cover.source_name),
                Text::foreign(cover.policy.as_str()),
                Text::own(grouped(cover.ready)),
                at(cover.newest),
                at(cover.oldest),
                Text::own(&cover.rpo),
            ]
        })
        .collect();
    part
}

fn deletions(audit: &Audit) -> Part {
    let columns =
        ["deleted", "source", "image", "of", "size", "why", "class", "approved by", "plan"];
    let mut part = Part::table("Deletions", Weight::Notice, &columns);
    part.rows = audit
        .deletions
        .iter()
        .map(|one| {
            vec![
                Text::own(minute(one.at)),
                Text::foreign(&one.source_name),
                Text::foreign(&one.image),
                Text::foreign(&one.slot),
                Text::own(one.stored_bytes.map(bytes).unwrap_or_default()),
                Text::foreign(one.reasons.join("; ")),
                Text::foreign(one.risk.clone().unwrap_or_default()),
                Text::foreign(one.approved_by.join(", ")),
                Text::foreign(one.plan.get(..12).unwrap_or(&one.plan)),
            ]
        })
        .collect();
    part
}

fn drills(audit: &Audit) -> Part {
    let columns = ["tried", "engine", "image", "how", "result", ""];
    let mut part = Part::table("Drills", Weight::Aside, &columns);
    part.rows = audit
        .drills
        .iter()
        .map(|one| {
            vec![
                Text::own(minute(one.at)),
                Text::foreign(&one.engine),
                Text::foreign(&one.image),
                Text::foreign(&one.check),
                Text::foreign(&one.result),
                Text::foreign(one.message.clone().unwrap_or_default()),
            ]
        })
        .collect();
    part
}

fn guards(audit: &Audit) -> Part {
    let columns = ["at", "guard", "engine", "images", "", "why"];
    let mut part = Part::table("What guards refused", Weight::Notice, &columns);
    part.rows = audit
        .guards
        .iter()
        .map(|one| {
            let what = if one.overridden { "overridden" } else { "refused" };
            vec![
                Text::own(minute(one.at)),
                Text::foreign(&one.guard),
                Text::foreign(&one.engine),
                Text::own(grouped(one.images)),
                Text::own(what),
                Text::foreign(&one.message),
            ]
        })
        .collect();
    part
}

fn failures(audit: &Audit) -> Part {
    let columns = ["at", "engine", "action", "image", "why"];
    let mut part = Part::table("Failures", Weight::Notice, &columns);
    part.rows = audit
        .failures
        .iter()
        .map(|one| {
            vec![
                Text::own(minute(one.at)),
                Text::foreign(&one.engine),
                Text::foreign(&one.action),
                Text::foreign(&one.image),
                Text::foreign(&one.message),
            ]
        })
        .collect();
    part
}

fn exemptions(audit: &Audit) -> Part {
    let columns = ["source", "owner", "until", "", "why"];
    let mut part = Part::table("Meant to be without protection", Weight::Aside, &columns);
    part.rows = audit
        .exemptions
        .iter()
        .map(|one| {
            vec![
                Text::foreign(&one.source),
                Text::foreign(&one.owner),
                Text::own(minute(one.until)),
                Text::own(if one.ended { "ended" } else { "" }),
                Text::foreign(&one.reason),
            ]
        })
        .collect();
    part
}

/// What changed behind our back, for people.
pub fn drift_page(drift: &Drift) -> Page {
    let mut verdict = Vec::new();
    let mut say = |weight: Weight, text: String| verdict.push((weight, Text::own(text)));
    if drift.items.is_empty() {
        let images = count(drift.known, "image");
        say(Weight::Aside, format!("Nothing: {images} of the ledger are as they were left."));
    }
    let mut parts = Vec::new();
    for kind in DriftKind::ALL {
        let of_kind: Vec<&Drifted> = drift.items.iter().filter(|item| item.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let loses = matches!(kind, DriftKind::DeletedOutside | DriftKind::OwnershipLost);
        let weight = if loses { Weight::Danger } else { Weight::Notice };
        say(weight, format!("{} {}", count(of_kind.len(), "image"), kind.text()));
        let title = format!("{}: {}", kind.word(), kind.text());
        let columns = ["image", "policy", "engine", "should be", "is"];
        let mut part = Part::table(title, weight, &columns);
        part.rows = of_kind
            .into_iter()
            .map(|item| {
                vec![
                    Text::foreign(&item.image),
                    Text::foreign(item.policy.clone().unwrap_or_default()),
                    Text::foreign(&item.engine),
                    Text::foreign(item.expected.clone().unwrap_or_default()),
                    Text::foreign(item.found.clone().unwrap_or_default()),
                ]
            })
            .collect();
        parts.push(part);
    }
    for engine in &drift.not_seen_whole {
        let text = Text::own("The engine ").name(engine).and(" was not seen whole.");
        verdict.push((Weight::Notice, text));
    }
    Page { title: "What changed behind our back".to_owned(), verdict, parts, footer: Vec::new() }
}

/// The deletions as CSV: what a spreadsheet is wanted for.
pub fn deletions_csv(audit: &Audit) -> String {
    let head = [
        "deleted_at",
        "engine",
        "policy",
        "source",
        "image",
        "id",
        "slot",
        "stored_bytes",
        "reasons",
        "class",
        "approved_by",
        "plan",
    ];
    let row = |one: &Deletion| {
        [
            one.at.to_string(),
            one.engine.clone(),
            one.policy.clone(),
            one.source_name.clone(),
            one.image.clone(),
            one.id.clone().unwrap_or_default(),
            one.slot.clone(),
            one.stored_bytes.map(|bytes| bytes.to_string()).unwrap_or_default(),
            one.reasons.join("; "),
            one.risk.clone().unwrap_or_default(),
            one.approved_by.join(", "),
            one.plan.clone(),
        ]
    };
    let mut text = csv_line(head.map(str::to_owned));
    for one in &audit.deletions {
        text.push_str(&csv_line(row(one)));
    }
    text
}

/// A line of CSV (RFC 4180). What a spreadsheet would take for a formula is text.
fn csv_line<const N: usize>(cells: [String; N]) -> String {
    let cells = cells.map(|cell| {
        let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        let cell = if is_formula { format!("'{cell}") } else { cell };
        if cell.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell
        }
    });
    format!("{}\r\n", cells.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_becomes_a_formula_or_two_cells() {
        let line = csv_line(["=1+1", "a,b", "say \"hi\"", "two\nlines", "-x"].map(str::to_owned));
        assert_eq!(line, "'=1+1,\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",'-x\r\n");
    }
}
