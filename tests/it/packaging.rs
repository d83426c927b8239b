//! What stillframe is delivered with: completions, manual pages, and the examples of how others run and
//! watch it. Whatever these say about the program is held against the program.

mod clients;
mod manifests;
mod monitoring;
mod shells;

use std::fs;

use clap::Parser;
use serde_json::Value;
use stillframe::cli::Cli;

use super::support::project;

/// A file of the examples.
fn example(path: &str) -> String {
    let path = project().join("examples").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A YAML file of the examples.
fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&example(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words of a command line that stillframe takes, without the program.
fn assert_is_command(words: &[String], place: &str) {
    let words = std::iter::once("stillframe").chain(words.iter().map(String::as_str));
    if let Err(error) = Cli::try_parse_from(words) {
        panic!("{place}\n{error}");
    }
}

/// The value of an option in a command line, written `--name value` or `--name=value`.
fn option<'a>(words: &'a [String], name: &str) -> &'a str {
    let at = words.iter().position(|word| word.split('=').next() == Some(name));
    let at = at.unwrap_or_else(|| panic!("no {name} in {words:?}"));
    words[at].split_once('=').map_or_else(|| words[at + 1].as_str(), |(_, value)| value)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}
