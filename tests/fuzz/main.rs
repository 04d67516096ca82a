//! A small fuzzer for everything that reads what others write: no panic, no endless loop, nothing lost.
//!
//! One target for each parser. Inputs are mutations of good ones, as JSON trees and as bytes; each case has
//! a seed of its own, which a failure prints and `SERIN_SEED` replays:
//!
//! ```console
//! $ cargo test --test fuzz                                   # about a second for each target
//! $ SERIN_FUZZ_SECONDS=60 cargo test --test fuzz             # a minute for each, each time from another seed
//! $ SERIN_FUZZ_FROM=1 SERIN_FUZZ_SECONDS=60 cargo test ...   # from this one, as .ci/run does
//! $ SERIN_FUZZ_SECONDS=600 cargo test --test fuzz            # ten minutes for each
//! $ SERIN_SEED=0x1f00c0de cargo test --test fuzz routes      # one case again
//! ```
//!
//! | target | from | through |
//! |---|---|---|
//! | `canaries` | Canary and AlertProvider JSON, its status too | plan, questions, a few decisions |
//! | `routes` | routes and records | first sight, survey, plan, acceptance |
//! | `answers` | what a Prometheus answers | values, readings, counts, verdicts |
//! | `queries` | query templates | check, render |
//! | `texts` | quantities, URLs, allow lists, `Retry-After` | their parsers |
//!
//! Expositions have no target yet: nothing in the tree reads one.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]
#![recursion_limit = "256"]

mod answers;
mod canaries;
mod limits;
mod mutate;
mod queries;
mod routes;
mod seeds;
mod texts;
