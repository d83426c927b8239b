//! All tests that look at stillframe from outside, in one binary.
//!
//! `BLESS=1` writes golden files, `STILLFRAME_SEED` repeats a random run, `PROPTEST_CASES` sets how
//! many worlds each law is tried in.

mod cli;
mod cron;
mod engines;
mod laws;
mod local;
mod memory;
mod sim;
mod support;
