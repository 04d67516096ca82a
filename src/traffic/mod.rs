//! From the wanted split to a JSON patch for a route, and back to the route as it was found.
//!
//! Routes are read and written as JSON, so that a field that this program has never heard of
//! survives. A release takes four calls: [`first_sight`] says what is stable, [`survey`] records
//! what is needed to give a route back or says why the route cannot be managed, [`plan`] answers the
//! patch that makes the route carry what is wanted, and [`acceptance`] whether its parents take it.
//!
//! What a patch changes, and nothing else:
//!
//! * While the candidate has a part, the weights of a managed rule are multiplied by the record's
//!   `factor`, and the stable backend's part is shared between the two. Foreign backends keep their
//!   share exactly. The candidate's reference is a copy of the stable one's with its five fields.
//! * While headers are matched, one rule for each managed one is appended at the end, a copy with
//!   more headers in its matches and the candidate as its only backend. Nothing is ever inserted
//!   before a rule: some data planes know rules by their place.
//! * At weight 0 without headers, and after the end, the rules are what they were. What other people
//!   changed meanwhile stays, but for the two backends' weights and the appended rules.
//!
//! | file | what it is for |
//! |---|---|
//! | `sight` | what a route serves |
//! | `survey` | the record, and refusals before anything is shifted |
//! | `plan` | from what is wanted to a change |
//! | `locate` | the managed rules again, after other people's edits |
//! | `split` | the references of one managed rule |
//! | `headers` | the rules for header testers |
//! | `patch` | from old and new lists to narrow operations |
//! | `acceptance` | what a route's parents say |
//! | `kind` | what differs between kinds of routes |
//! | `view` | lenient reading of a route's JSON |
//! | `error` | refusals |

mod acceptance;
mod error;
mod headers;
mod kind;
mod locate;
mod patch;
mod plan;
mod sight;
mod split;
mod survey;
mod view;

pub use acceptance::{Acceptance, Parent, acceptance, controllers, parents};
pub use error::TrafficError;
pub use plan::{Change, plan, split_and_added_rules};
pub use sight::{FirstSight, first_sight, holds};
pub use survey::survey;

use crate::api::Backend;

/// Who asks, and for what: all that is constant in one release for one route.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Name of the Canary; it becomes part of the names of added rules.
    pub owner: &'a str,
    /// Namespace of the Canary and its route, which a backend's defaults to.
    pub namespace: &'a str,
    /// Names of the rules to manage; none for every rule that holds the stable backend.
    pub rules: &'a [String],
    /// The backend that serves, with its namespace filled in.
    pub stable: &'a Backend,
    /// The backend that should serve, with its namespace filled in.
    pub candidate: &'a Backend,
}
