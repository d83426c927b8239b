//! The program: arguments in, exit code out.

use std::process::ExitCode;

/// The system's own keeps what a round of watch has used for as long as the process lives.
#[cfg(all(feature = "watch", unix, not(target_env = "musl")))]
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    stillframe::cli::run()
}
