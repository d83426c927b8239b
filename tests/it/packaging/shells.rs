//! Every verb is completed in each shell and has a manual page.

use std::fs;
use std::process::Command;

use clap::{Command as Described, CommandFactory};
use stillframe::cli::Cli;

use super::super::support::Datacenter;

/// Every command by its words, `stillframe`, `stillframe key`, `stillframe key create`, …
fn commands() -> Vec<(Vec<String>, Described)> {
    let mut found = Vec::new();
    let mut open = vec![(vec!["stillframe".to_owned()], Cli::command())];
    while let Some((words, command)) = open.pop() {
        for below in command.get_subcommands() {
            let words = [words.clone(), vec![below.get_name().to_owned()]].concat();
            open.push((words, below.clone()));
        }
        found.push((words, command));
    }
    found
}

#[test]
fn every_verb_and_every_option_is_in_the_completions() {
    let datacenter = Datacenter::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = datacenter.run_to(0, &["completions", shell]).out;
        for (words, command) in commands() {
            let verb = words.last().unwrap();
            // As each of the shells writes it.
            let as_verb = [
                format!(" {verb} "),
                format!("({verb})"),
                format!("\"{verb}\""),
                format!("'{verb}'"),
                format!("cand {verb} "),
            ];
            assert!(as_verb.iter().any(|form| script.contains(form)), "{shell}: no {words:?}");
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                let is_there = script.contains(&format!("--{option}"))
                    || script.contains(&format!("-l {option}"));
                assert!(is_there, "{shell}: no --{option} of {words:?}");
            }
        }
    }
}

/// What bash offers for the last of some words.
fn offered(script: &str, words: &[&str]) -> Vec<String> {
    let (last, before) = (words.len() - 1, words[words.len() - 2]);
    let line = format!(
        "{script}\nCOMP_WORDS=(\"$@\"); COMP_CWORD={last}; _stillframe stillframe '{}' '{before}'\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words[last]
    );
    let output = Command::new("bash").args(["-c", &line, "bash"]).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_options_and_values() {
    let script = Datacenter::new().run_to(0, &["completions", "bash"]).out;
    assert_eq!(offered(&script, &["stillframe", "w"]), ["watch"]);
    assert_eq!(offered(&script, &["stillframe", "watch", "--token"]), ["--token-file"]);
    assert_eq!(offered(&script, &["stillframe", "key", "c"]), ["create"]);
    assert_eq!(offered(&script, &["stillframe", "--color", "a"]), ["auto", "always"]);
    assert_eq!(offered(&script, &["stillframe", "completions", "po"]), ["powershell"]);
}

#[test]
fn every_verb_has_a_manual_page() {
    let datacenter = Datacenter::new();
    let run = datacenter.run_to(0, &["man", "pages/man1"]);
    let commands = commands();
    assert_eq!(run.out, format!("{} pages in pages/man1\n", commands.len()));
    let there = fs::read_dir(datacenter.path("pages/man1")).unwrap().count();
    assert_eq!(there, commands.len());
    for (words, command) in commands {
        let path = datacenter.path(&format!("pages/man1/{}.1", words.join("-")));
        let page = fs::read_to_string(&path).unwrap();
        let heading = format!(".TH {} 1 \" \" \"stillframe ", words.join("-"));
        assert!(page.contains(&heading), "{words:?}\n{page}");
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            let written = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&written), "{words:?}: no --{option}\n{page}");
        }
    }
    // Again over what is there, and where nothing can be.
    datacenter.run_to(0, &["man", "pages/man1"]);
    let run = datacenter.run_to(1, &["man", "pages/man1/stillframe.1"]);
    assert!(run.err.contains("cannot make pages/man1/stillframe.1"), "{}", run.err);
}
