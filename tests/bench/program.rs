//! `stillframe validate` of ten policies as a whole process.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::world;
use crate::{row, share, timed};

const POLICIES: usize = 10;
const LIMIT: Duration = Duration::from_millis(60);
/// How often the program is started.
const RUNS: usize = 20;

pub fn run() {
    let directory = tempfile::tempdir().unwrap();
    for file in world::files(POLICIES) {
        let path = directory.path().join(file.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // The program knows the embedded engine.
        let text = file.text.replace(
            "{memory: {memory: {}}}",
            "{machines: {local: {instances: instances, store: store, createKeys: true}}}",
        );
        fs::write(path, text).unwrap();
    }
    let mut runs: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_stillframe"));
            program.arg("validate").arg("--policies").arg(directory.path().join("policies"));
            let (took, status) = timed(|| program.stdout(Stdio::null()).status().unwrap());
            assert!(status.success());
            took
        })
        .collect();
    runs.sort();
    let text = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1_000.0);
    let (median, worst) = (runs[RUNS / 2], runs[RUNS - 1]);
    row("validate ten policies, median", &text(median), Some(share(median, LIMIT)), Some(1.0));
    row("  the slowest of twenty", &text(worst), Some(share(worst, LIMIT)), Some(1.0));
}
