//! Loading and validating ten thousand policy files against parsing them as bare YAML.

use std::sync::Arc;
use std::time::Duration;

use stillframe::policy::{Reading, SourceFile, load_with};

use crate::world;
use crate::{MIB, row, seconds, share, shared, worked};

const FILES: usize = 10_000;
/// Loading may take so much of the time of parsing.
const LIMIT: f64 = 2.0;
/// How often everything is measured.
const ROUNDS: usize = 7;

pub fn run() {
    let files = world::files(FILES);
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    println!(
        "{FILES} policy files, {} KiB, the best of {ROUNDS} rounds",
        bytes as u64 * 1024 / MIB
    );
    let [mut events, mut values, mut loading, mut processors] = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        let (took, count) = worked(|| files.iter().map(parse_events).sum::<usize>());
        assert!(count > FILES);
        events = events.min(took);
        values = values.min(worked(|| files.iter().map(parse_values).collect::<Vec<_>>()).0);
        let again = files.iter().cloned().map(Arc::new).collect();
        let (clock, took, loaded) =
            shared(|| load_with(again, &[world::kind()], Reading::default()));
        loading = loading.min(clock);
        processors = processors.min(took);
        assert_eq!(loaded.policies.unwrap().policies.len(), FILES);
        assert_eq!(loaded.findings, []);
    }
    row("saphyr-parser: events only", &seconds(events), None, None);
    row("serde_yaml: values (baseline)", &seconds(values), None, None);
    row("load and validate", &seconds(loading), Some(share(loading, values)), Some(LIMIT));
    let jittered: Vec<Arc<SourceFile>> = files.iter().map(with_jitter).map(Arc::new).collect();
    let jitter = (0..ROUNDS)
        .map(|_| {
            let load = || load_with(jittered.clone(), &[world::kind()], Reading::default());
            let (clock, _, loaded) = shared(load);
            assert!(loaded.policies.is_some());
            clock
        })
        .min()
        .unwrap();
    row("  where each has a jitter", &seconds(jitter), Some(share(jitter, values)), Some(LIMIT));
    row("  all threads together", &seconds(processors), Some(share(processors, values)), None);
    row("  all threads against the events", "", Some(share(processors, events)), None);
}

fn with_jitter(file: &SourceFile) -> SourceFile {
    let text = file.text.replace("deadline: 4h\n", "deadline: 4h\n    jitter: 10m\n");
    SourceFile { path: file.path.clone(), text }
}

fn parse_events(file: &SourceFile) -> usize {
    saphyr_parser::Parser::new_from_str(&file.text).map(Result::unwrap).count()
}

fn parse_values(file: &SourceFile) -> serde_yaml::Value {
    serde_yaml::from_str(&file.text).unwrap()
}
