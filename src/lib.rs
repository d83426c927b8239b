//! stillframe: declarative backup policies for virtual machines.
pub mod clock;
pub mod elapsed;
pub mod inventory;
pub mod name;
pub mod retention;
pub mod schedule;
