//! The examples: every policy is without fault, and every command line that is shown is one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use stillframe::cli::Cli;
use stillframe::engine::kinds;
use stillframe::policy::EngineKind;

use super::support::{Datacenter, NOW, project};

/// Every directory below the examples with a configuration.
fn configured(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.file_name().unwrap() == "stillframe.yaml" {
                found.push(directory.clone());
            }
        }
    }
    found.sort();
    found
}

/// The policies of an engine are among the examples, and all of them are without fault: with what holds
/// everywhere, and in each environment that an overlay is there for.
#[test]
fn all_policies_are_without_fault() {
    let datacenter = Datacenter::new();
    let root = datacenter.path("examples");
    let mut used = BTreeSet::new();
    for directory in configured(&root) {
        let path = directory.strip_prefix(datacenter.path("")).unwrap().to_str().unwrap();
        let validate = |environment: &[&str]| {
            let validate = ["validate", "--deny", "warnings", "--now", NOW];
            datacenter.run_to(0, &[&["--policies", path], environment, &validate].concat());
        };
        validate(&[]);
        let files = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let texts =
            files.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap());
        for text in texts.collect::<Vec<_>>() {
            for document in text.split("---\n").filter(|one| one.contains("kind: Overlay")) {
                let line = document.lines().find(|line| line.starts_with("metadata: {name: "));
                let name = line.unwrap().trim_start_matches("metadata: {name: ");
                validate(&["--environment", name.trim_end_matches('}')]);
            }
            let is_of = |kind: &EngineKind| text.contains(&format!(" {}:", kind.name));
            used.extend(kinds().into_iter().filter(is_of).map(|kind| kind.name));
        }
    }
    let missing: Vec<&str> =
        kinds().into_iter().map(|kind| kind.name).filter(|name| !used.contains(name)).collect();
    assert!(missing.is_empty(), "no policies show {missing:?}");
}

#[test]
fn the_policies_for_twcc_do_the_job_of_the_manual() {
    let datacenter = Datacenter::new();
    let policies = ["--policies", "examples/twcc"];
    // The line of the crontab, and what the policy makes of it.
    let book = fs::read_to_string(datacenter.path("examples/twcc/README.md")).unwrap();
    let line = book.lines().find(|line| line.contains(" twccli mk vcs ")).unwrap();
    let cron = line.split(' ').take(5).collect::<Vec<_>>().join(" ");
    let told = datacenter.json(0, &[&policies[..], &["explain", "policy", "manual"]].concat());
    let value = |path: &str| {
        let values = told["values"].as_array().unwrap();
        values.iter().find(|one| one["path"] == path).unwrap()["value"].clone()
    };
    assert_eq!(value("schedule.cron"), cron);
    assert_eq!(value("schedule.timeZone"), "Asia/Taipei");
    assert_eq!(value("capture.disks"), "boot");
    assert_eq!(value("capture.kind"), "disk-image");
    let text = fs::read_to_string(datacenter.path("examples/twcc/manual.yaml")).unwrap();
    assert!(text.contains(line) && !text.contains("retention"), "the page deletes nothing");
}

/// Every file of the examples and the book in which commands are shown.
fn shown() -> Vec<PathBuf> {
    let mut files = vec![project().join("README.md")];
    let mut directories = vec![project().join("examples"), project().join("src/doc")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "md" || end == "yml") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The commands of a file that begin a line, in shell blocks or as steps of CI.
fn commands(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let is_book = path.extension().is_some_and(|end| end == "md");
    let mut is_shell = !is_book;
    let mut found = Vec::new();
    for line in text.lines() {
        if is_book && line.trim_start().starts_with("```") {
            is_shell = line.trim_start() == "```sh";
        }
        let line = line.trim_start().trim_start_matches("- ").trim_start_matches("run: ");
        let line = line.replace("shop ", "stillframe ");
        if is_shell && line.starts_with("stillframe ") && !line.ends_with('\\') {
            found.push(line);
        }
    }
    found
}

/// The words of a command, as a shell takes them apart, up to what is not part of it any more.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in command.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, ';' | '|' | '>' | '#') => break,
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_that_is_shown_is_one() {
    let mut count = 0;
    for path in shown() {
        for command in commands(&path) {
            let words = words(&command);
            // What stands for something else.
            if words.iter().any(|word| {
                word.contains(['[', '…']) || word.chars().all(|c| c.is_ascii_uppercase())
            }) {
                continue;
            }
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{}: {command}\n{error}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 30, "only {count} commands were found");
}
