//! The kinds that people write, as they stand on the wire.
//!
//! Text such as `5m` or `1%` stays text here and is parsed when a plan is made
//! of it (`release::Plan`), so that an odd value in one object is that object's
//! error and never breaks a watch over all of them.

mod alert_provider;
mod backend;
mod canary;
mod conditions;
mod quantity;
mod status;

pub use alert_provider::*;
pub use backend::*;
pub use canary::*;
pub use conditions::*;
pub use quantity::*;
pub use status::*;

/// The API group of all our kinds, and the prefix of our annotations.
pub const GROUP: &str = "serin.dev";

/// The field manager under which we write, as `managedFields` shows it.
pub const MANAGER: &str = "serin";

/// Held by a Canary while one of its routes carries a split, so that deletion
/// gives the route back first.
pub const FINALIZER: &str = "serin.dev/traffic";
