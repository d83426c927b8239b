//! The laws of the product as property tests over generated worlds; the number of the law is part
//! of the test's name.
//!
//! `PROPTEST_CASES` sets how many worlds each law is tried in, and then they are new ones;
//! `STILLFRAME_SEED` repeats a run.

mod adopt;
mod format;
mod identity;
mod plan;
mod retention;
mod review;
mod simulate;

use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use super::support::seed;

/// Like [`law`], in an eighth of the worlds: for what simulates weeks in each.
pub fn long_law<W: Debug>(
    worlds: impl Strategy<Value = W>,
    check: impl Fn(W) -> Result<(), TestCaseError>,
) {
    law_in(Config::default().cases.div_ceil(8), worlds, check);
}

/// Tries `check` in many worlds; a failure prints the smallest world and the seed.
pub fn law<W: Debug>(
    worlds: impl Strategy<Value = W>,
    check: impl Fn(W) -> Result<(), TestCaseError>,
) {
    law_in(Config::default().cases, worlds, check);
}

fn law_in<W: Debug>(
    cases: u32,
    worlds: impl Strategy<Value = W>,
    check: impl Fn(W) -> Result<(), TestCaseError>,
) {
    let seed = seed();
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    if let Err(failure) = TestRunner::new(config).run(&worlds, check) {
        panic!("repeat with STILLFRAME_SEED={seed}\n{failure}");
    }
}
