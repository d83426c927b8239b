//! Tests of policies: what is written in `*.test.yaml`, held against what the planner does.
//!
//! A test document goes in as text, with policies as they were loaded; out come mistakes in it, and
//! for each case the expectations that are not met. A case has a world (sources, and restore points
//! that are written or that a schedule has made), an instant, and what the plan must be. The planner
//! and the guards are the ones of every other run: this room judges, and decides nothing about
//! images by itself.

mod case;
mod history;
mod judge;
mod outcome;
mod read;
mod run;
mod slots;
mod world;
pub mod written;

pub use case::{Case, Suite};
pub use judge::Failure;
pub use read::Reader;
pub use run::{Runner, Verdict};

use serde_json::Value;

use crate::policy::schema::simplify;

/// The JSON Schema of test documents.
pub fn test_schema() -> Value {
    let mut schema = schemars::schema_for!(written::TestDocument).to_value();
    simplify(&mut schema);
    schema
}

#[cfg(test)]
mod tests;
