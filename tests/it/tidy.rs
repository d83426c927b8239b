//! The plan of the house, held by reading the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use stillframe::engine::kinds;

use super::support::project;

/// Every room and its level. A room imports its own level or lower.
const ROOMS: [(&str, u8); 31] = [
    ("name", 0),
    ("elapsed", 0),
    ("inventory", 0),
    ("clock", 0),
    ("schedule", 1),
    ("retention", 1),
    ("policy", 1),
    ("desired", 1),
    ("coverage", 1),
    ("plan", 1),
    ("adopt", 1),
    ("import", 1),
    ("cost", 1),
    ("expect", 1),
    ("simulate", 1),
    ("agenda", 1),
    ("alert", 1),
    ("review", 1),
    ("audit", 1),
    ("engine", 2),
    ("files", 2),
    ("signature", 2),
    ("connections", 2),
    ("apply", 3),
    ("reconcile", 3),
    ("report", 4),
    ("serve", 4),
    ("watch", 4),
    ("cli", 4),
    ("main", 5),
    ("lib", 5),
];

/// Levels up to this one are pure.
const PURE: u8 = 1;

/// What a pure room must not touch, and what to do instead.
const IMPURE: [&str; 14] = [
    "tokio",
    "reqwest",
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "std::thread",
    "std::time",
    "tracing",
    "getrandom",
    "tempfile",
    "Timestamp::now",
    "Zoned::now",
    "crate::clock",
];

/// Clouds that no engine is called after: whose they are, and those that there may be engines for
/// one day. Only their own folders name them, as only those of the engines name these.
const OTHER_CLOUDS: [&str; 4] = ["google", "openstack", "azure", "aws"];

/// The engine that is no cloud: what runs over it may name it.
const EMBEDDED: &str = "local";

/// The user's names, and what tools insist on.
const TOP_LEVEL: [&str; 20] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "clippy.toml",
    "rustfmt.toml",
    "src",
    "schemas",
    "examples",
    "policies",
    "tests",
    "target",
    ".ci",
    ".cargo",
    ".config",
    ".git",
    ".gitignore",
    ".stillframe",
];

const FILE_LINES_MAX: usize = 500;
const MAIN_LINES_MAX: usize = 60;

/// A source file: its path below `src`, and its lines before the tests in it.
struct Source {
    path: PathBuf,
    lines: Vec<String>,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.path.components().next().unwrap().as_os_str().to_str().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Lines that are not comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_comment = |line: &str| line.trim_start().starts_with("//");
        (1..).zip(self.lines.iter().map(String::as_str)).filter(move |(_, line)| !is_comment(line))
    }

    fn place(&self, line: usize) -> String {
        format!("src/{}:{line}", self.path.display())
    }
}

fn sources() -> Vec<Source> {
    let root = project().join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_name().unwrap() != "tests.rs"
            {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text
                    .lines()
                    .take_while(|line| *line != "#[cfg(test)]")
                    .map(str::to_owned)
                    .collect();
                found.push(Source { path: path.strip_prefix(&root).unwrap().to_owned(), lines });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn levels() -> BTreeMap<&'static str, u8> {
    ROOMS.into_iter().collect()
}

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn every_room_has_a_level_and_imports_no_higher_one() {
    let levels = levels();
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(level) = levels.get(source.room()) else {
            findings
                .push(format!("{}: this room has no level in tests/it/tidy.rs", source.place(1)));
            continue;
        };
        seen.insert(source.room().to_owned());
        for (number, line) in source.code() {
            for (at, _) in line.match_indices("crate::") {
                let room: String = line[at + 7..]
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                    .collect();
                let Some(imported) = levels.get(room.as_str()) else { continue };
                if imported > level {
                    findings.push(format!(
                        "{}: level {level} imports {room}, which is on level {imported}",
                        source.place(number)
                    ));
                }
            }
        }
    }
    let unseen: Vec<&&str> = levels.keys().filter(|room| !seen.contains(**room)).collect();
    assert!(unseen.is_empty(), "no such rooms: {unseen:?}");
    assert_none(&findings);
}

#[test]
fn the_pure_core_touches_nothing() {
    let levels = levels();
    let mut findings = Vec::new();
    for source in sources() {
        // The clock is the one place that may look at the time.
        if levels[source.room()] > PURE || source.room() == "clock" {
            continue;
        }
        for (number, line) in source.code() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                findings.push(format!("{}: a pure room uses {word}", source.place(number)));
            }
        }
    }
    assert_none(&findings);
}

/// What judges for the planner or for the guards. The check works everything out by itself.
const JUDGES: [&str; 25] = [
    "desired",
    "decide",
    "agree",
    "risk",
    "retain",
    "Fate",
    "Period",
    "Slots",
    "SeriesPlan",
    "EngineChecks",
    "guard::guard",
    "guard::{guard",
    "withheld",
    "listed_once",
    "hold_on",
    "will_hold",
    "pauses_at",
    "is_blacked_out",
    "end_at",
    ".decide(",
    ".last_slot(",
    ".next_slot(",
    ".deadline_of(",
    ".is_held(",
    ".let_go_at(",
];

#[test]
fn the_check_shares_no_judgement_with_the_planner() {
    let mut findings = Vec::new();
    let mut files = 0;
    for source in sources() {
        if !source.path.starts_with("plan/check") && source.path != Path::new("plan/check.rs") {
            continue;
        }
        files += 1;
        for (number, line) in source.code() {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let words: Vec<&str> = line.split(|c| !is_part(c)).collect();
            for judge in JUDGES {
                let is_word = judge.chars().all(is_part);
                if if is_word { words.contains(&judge) } else { line.contains(judge) } {
                    findings.push(format!("{}: uses {judge}", source.place(number)));
                }
            }
        }
    }
    assert!(files > 5, "only {files} files of the check were found");
    assert_none(&findings);
}

/// Every engine but the embedded one, whoever adds it, and the other clouds.
fn clouds() -> Vec<&'static str> {
    let kinds = kinds().into_iter().map(|kind| kind.name).filter(|name| *name != EMBEDDED);
    kinds.chain(OTHER_CLOUDS).collect()
}

#[test]
fn nobody_but_its_own_folder_names_a_cloud() {
    let clouds = clouds();
    assert!(clouds.len() > OTHER_CLOUDS.len(), "no engine of a cloud: {clouds:?}");
    let mut findings = Vec::new();
    for source in sources() {
        let path = source.path.display().to_string();
        for (number, line) in source.code() {
            // The types of the protocol that several clouds share are nobody's, and one header of a
            // metadata service is the same in all clouds that have one.
            let lower = line.to_ascii_lowercase();
            let lower = lower.replace("google.protobuf", "").replace("google/protobuf", "");
            let lower = if lower.contains("metadata-flavor") { String::new() } else { lower };
            let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            for cloud in clouds.iter().filter(|cloud| words.contains(cloud)) {
                // Whose it is has another name than the engine.
                let folder = if *cloud == "google" { "gce" } else { cloud };
                // Notations of schedulers have the names of those whose they are.
                let own = [
                    format!("engine/{folder}"),
                    format!("serve/{folder}"),
                    "schedule/translate".to_owned(),
                ];
                // The one list of all engines there are.
                let is_listed = ["mod ", "feature = ", "Registered {"].iter();
                if path == "engine.rs" && is_listed.clone().any(|word| line.contains(word)) {
                    continue;
                }
                // A registry lists whose APIs there are, and the cover of the book its pages.
                let is_page = ["include_str!", "pub mod "].iter().any(|word| line.contains(word));
                let is_registry = path == "serve.rs" || (path == "lib.rs" && is_page);
                // A platform of one cloud has the name of another.
                let is_platform = *cloud == "openstack" && line.contains("openstack-taichung");
                if is_platform && path.contains("/twcc/") {
                    continue;
                }
                if !is_registry && !own.iter().any(|folder| path.starts_with(folder.as_str())) {
                    findings.push(format!("{}: names {cloud}", source.place(number)));
                }
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut findings = Vec::new();
    for source in sources() {
        let limit =
            if source.path == Path::new("main.rs") { MAIN_LINES_MAX } else { FILE_LINES_MAX };
        if source.lines.len() > limit {
            findings.push(format!(
                "{}: {} lines, over {limit}",
                source.place(1),
                source.lines.len()
            ));
        }
        if !source.lines.first().is_some_and(|line| line.starts_with("//! ")) {
            findings.push(format!("{}: does not begin with what it is for", source.place(1)));
        }
        for (number, line) in source.code() {
            for word in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"] {
                if line.contains(word) {
                    findings.push(format!("{}: {word}", source.place(number)));
                }
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn the_top_level_has_the_users_names() {
    let mut findings = Vec::new();
    for entry in fs::read_dir(project()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !TOP_LEVEL.contains(&name.as_str()) {
            findings.push(format!("{name} is not one of the user's names"));
        }
    }
    assert_none(&findings);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(project().join("Cargo.toml")).unwrap();
    let mut findings = Vec::new();
    let mut section = String::new();
    let mut before = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
            before = "";
            continue;
        }
        let is_dependency = section.ends_with("dependencies]") && line.contains(" = ");
        // `serde` and `serde_json` stand together, and so do the crates of one family.
        if is_dependency && !before.starts_with('#') && !before.contains(" = ") {
            findings.push(format!("Cargo.toml: no reason for {line}"));
        }
        before = line;
    }
    assert_none(&findings);
}

#[test]
fn every_document_is_part_of_the_book() {
    let book = fs::read_to_string(project().join("src/lib.rs")).unwrap();
    for entry in fs::read_dir(project().join("src/doc")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            book.contains(&format!("include_str!(\"doc/{name}\")")),
            "lib.rs does not show {name}"
        );
    }
}

/// Waits for one tick of the times that file systems count in, which nothing can stand in for.
const MAY_SLEEP: (&str, &str) = ("src/engine/local/disk.rs", "thread::sleep");

#[test]
fn tests_neither_sleep_nor_reach_out_nor_skip() {
    let mut findings = Vec::new();
    let own = Path::new("tests/it/tidy.rs");
    let mut directories = vec![project().join("tests"), project().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let relative = path.strip_prefix(project()).unwrap().to_owned();
            if path.extension().is_none_or(|extension| extension != "rs") || relative == own {
                continue;
            }
            for (number, line) in (1..).zip(fs::read_to_string(&path).unwrap().lines()) {
                for word in ["thread::sleep", "#[ignore", "0.0.0.0"] {
                    let is_known = MAY_SLEEP == (relative.to_str().unwrap_or_default(), word);
                    if line.contains(word) && !is_known {
                        findings.push(format!("{}:{number}: {word}", relative.display()));
                    }
                }
            }
        }
    }
    assert_none(&findings);
}
