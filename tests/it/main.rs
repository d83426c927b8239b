//! All tests that look at stillframe from outside, in one binary.
//!
//! `BLESS=1` writes golden files, `STILLFRAME_SEED` repeats a random run, `PROPTEST_CASES` sets how
//! many worlds each law is tried in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::missing_panics_doc,
    clippy::struct_excessive_bools,
    clippy::maybe_infinite_iter,
    reason = "tests stop where something is not as it should be, and read the environment"
)]

mod adopt;
mod audits;
mod check;
mod cli;
mod conform;
mod copies;
mod cron;
mod engines;
mod examples;
mod expectations;
mod explain;
mod gce;
mod guards;
mod hints;
mod imports;
mod language;
mod laws;
mod lints;
mod local;
mod logged;
mod memory;
mod misfortune;
#[cfg(feature = "watch")]
mod packaging;
mod plans;
mod reviews;
mod rivals;
mod saved;
mod schemas;
#[cfg(feature = "serve")]
mod serve;
mod sim;
mod steps;
mod support;
#[cfg(feature = "otlp")]
mod telemetry;
mod tidy;
mod translate;
#[cfg(feature = "watch")]
mod watch;
mod worlds;
