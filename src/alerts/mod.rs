//! The outbox's courier, and the rules for whom it may call.
//!
//! An alert is written to its Canary's status first and taken out when it was delivered, so it
//! survives the operator. In between it is the [`Courier`]'s.
//!
//! | file | what it is for |
//! |---|---|
//! | `address`, `guard` | which URLs of tenants may be called: the platform's [`Egress`] rules |
//! | `call` | the one HTTP client for such URLs, which connects to checked addresses only |
//! | `payload` | the JSON that a receiver gets |
//! | `directory` | where AlertProviders and Secrets are looked up |
//! | `letter` | from a provider, its Secrets and an alert to a request |
//! | `retry` | how long to wait |
//! | `desk` | what is queued, in flight, settled: pure, with the time as an argument |
//! | `courier` | the task that makes it happen |
//! | `redacted` | what a Secret holds, unprintable |

pub mod address;
mod call;
mod courier;
mod desk;
mod directory;
mod guard;
mod letter;
mod payload;
mod redacted;
mod retry;

pub use call::{Answer, CallError, Caller, Letter, Limits, Lookup, SystemLookup, Wire};
pub use courier::Courier;
pub use desk::{Posted, Tally, Trouble};
pub use directory::{Cluster, Directory, LookupError, SecretData};
pub use guard::{Allowed, Egress, NotAnEntry, Refusal, Target, Unlisted};
pub use letter::{LetterError, letter};
pub use payload::{Origin, delivery_id, payload};
pub use redacted::Redacted;
pub use retry::{Pace, retry_after};
