//! Loading and validating ten thousand policy files against parsing them as bare YAML.

use stillframe::policy::{SourceFile, load};

use crate::world;
use crate::{MIB, row, seconds, share, worked};

const FILES: usize = 10_000;
/// Loading may take so much of the time of parsing.
const LIMIT: f64 = 2.0;
/// How often everything is measured.
const ROUNDS: usize = 3;

pub fn run() {
    let files = world::files(FILES);
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    println!("{FILES} policy files, {} KiB", bytes as u64 * 1024 / MIB);
    for _ in 0..ROUNDS {
        let (events, count) = worked(|| files.iter().map(parse_events).sum::<usize>());
        row("saphyr-parser: events only", &seconds(events), None, None);
        let (values, _) = worked(|| files.iter().map(parse_values).collect::<Vec<_>>());
        row("serde_yaml: values (baseline)", &seconds(values), None, None);
        let again = files.clone();
        let (took, loaded) = worked(|| load(again, &[world::kind()]));
        row("load and validate", &seconds(took), Some(share(took, values)), Some(LIMIT));
        row("  of the events", "", Some(share(took, events)), None);
        assert_eq!(loaded.policies.unwrap().policies.len(), FILES);
        assert_eq!(loaded.findings, []);
        assert!(count > FILES);
    }
}

fn parse_events(file: &SourceFile) -> usize {
    saphyr_parser::Parser::new_from_str(&file.text).map(Result::unwrap).count()
}

fn parse_values(file: &SourceFile) -> serde_yaml::Value {
    serde_yaml::from_str(&file.text).unwrap()
}
