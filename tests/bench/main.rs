//! What the embedded engine, the planner and the loader take, measured; never part of the tests.
//!
//! `cargo bench` prints each figure with the baseline or the limit it is to be read against: the
//! same bytes read and written by the operating system, the same document decoded, the same files
//! parsed. Machines are noisy, so only the ratios of one run mean something. `cargo bench --
//! planning` runs one part. `STILLFRAME_BENCH_MIB` sets the size of a disk,
//! `STILLFRAME_BENCH_INSTANCES` the size of the inventory, a tenth of its images.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a bench stops where something goes wrong and prints what it measured"
)]

mod cloud;
mod engine;
mod loading;
mod planning;
mod program;
mod simulation;
#[cfg(feature = "watch")]
mod watch;
mod world;

use std::path::Path;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// That of the program.
#[cfg(all(feature = "watch", unix, not(target_env = "musl")))]
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The parts, in the order in which they run.
const PARTS: &[(&str, fn())] = &[
    ("program", program::run),
    ("loading", loading::run),
    ("planning", planning::run),
    ("simulation", simulation::run),
    ("engine", engine::run),
    ("cloud", cloud::run),
    #[cfg(feature = "watch")]
    ("watch", watch::run),
];

fn main() {
    // Cargo hands over `--bench`.
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [part, file] = asked.as_slice()
        && part == planning::ROUND
    {
        return planning::round(file);
    }
    #[cfg(feature = "watch")]
    if let [watch::IDLE, page] = asked.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        return watch::idle(*page == watch::PAGE);
    }
    for (name, run) in PARTS.iter().copied() {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            println!("\n{name}");
            run();
        }
    }
}

/// A figure beside its limit.
fn row(what: &str, figure: &str, ratio: Option<f64>, limit: Option<f64>) {
    let ratio_text = ratio.map(|ratio| format!("{ratio:.2}×")).unwrap_or_default();
    let limit_text = limit.map(|limit| format!("limit {limit:.1}×")).unwrap_or_default();
    println!("{what:<52} {figure:>12} {ratio_text:>8}  {limit_text}");
}

fn seconds(took: Duration) -> String {
    format!("{:.3} s", took.as_secs_f64())
}

fn share(of: Duration, baseline: Duration) -> f64 {
    of.as_secs_f64() / baseline.as_secs_f64()
}

/// What a piece of work returns and how long it took on the clock.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = work();
    (began.elapsed(), result)
}

/// What a piece of work on one thread returns and how long the processor was at it: a machine that
/// is busy with something else does not count.
fn worked<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = processor_time();
    let result = work();
    (processor_time().saturating_sub(began), result)
}

/// The same for work of several threads that outlive it: on the clock, on the processors, and what
/// it returns.
fn shared<T>(work: impl FnOnce() -> T) -> (Duration, Duration, T) {
    let began = all_threads();
    let (clock, result) = timed(work);
    (clock, all_threads().saturating_sub(began), result)
}

/// How long this thread has run (proc(5), `schedstat`).
fn processor_time() -> Duration {
    ran(Path::new("/proc/thread-self"))
}

/// How long all threads of this process have run.
fn all_threads() -> Duration {
    std::fs::read_dir("/proc/self/task").unwrap().map(|task| ran(&task.unwrap().path())).sum()
}

fn ran(task: &Path) -> Duration {
    let text = std::fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}
