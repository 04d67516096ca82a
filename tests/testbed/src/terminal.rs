//! Lines for the person who waits, also under `cargo test`.

use std::io::Write;

/// Writes one line to standard error. The test harness captures the print macros
/// only, so this is seen while a test still runs.
pub(crate) fn say(line: &str) {
    // Nobody may be listening; that is no reason to fail.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
