//! All tests that look at stillframe from outside, in one binary.
mod cron;
mod laws;
