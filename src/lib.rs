//! stillframe: declarative backup policies for virtual machines.
pub mod apply;
pub mod cli;
pub mod clock;
pub mod desired;
pub mod elapsed;
pub mod engine;
pub mod files;
pub mod inventory;
pub mod name;
pub mod plan;
pub mod policy;
pub mod reconcile;
pub mod report;
pub mod retention;
pub mod schedule;
