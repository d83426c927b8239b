//! stillframe: declarative backup policies for virtual machines.
pub mod clock;
pub mod desired;
pub mod elapsed;
pub mod inventory;
pub mod name;
pub mod plan;
pub mod policy;
pub mod retention;
pub mod schedule;
