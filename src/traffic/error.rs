//! Why a route cannot be managed, or cannot carry what is wanted.

use thiserror::Error;

/// Why a route cannot be managed. Each message names the route, the rule, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TrafficError {
    #[error("{route}: routes of kind {kind} cannot be split; name an HTTPRoute")]
    Kind { route: String, kind: String },
    #[error(
        "{route}: stable and candidate are both {backend}; set target.backend to another one to release"
    )]
    SameBackend { route: String, backend: String },
    #[error(
        "{route}: no rule is named {rule:?}; name a rule so in the route, or change routes[].rules of the Canary"
    )]
    UnknownRule { route: String, rule: String },
    #[error("{route}: several rules are named {rule:?}; give each rule of the route its own name")]
    DuplicateRule { route: String, rule: String },
    #[error(
        "{route}: no rule sends requests to the stable backend {stable} (the rules hold {holds}); add it to the backendRefs of a rule, or take the route out of the Canary's routes"
    )]
    StableNotHeld {
        route: String,
        stable: String,
        holds: String,
    },
    #[error(
        "{route}, {rule}: backendRefs do not name the stable backend {stable} (they hold {holds}); add it, or take the rule out of routes[].rules of the Canary"
    )]
    StableNotInRule {
        route: String,
        rule: String,
        stable: String,
        holds: String,
    },
    #[error("{route}, {rule}: backendRefs name {backend} twice; make one reference of the two")]
    BackendTwice {
        route: String,
        rule: String,
        backend: String,
    },
    #[error(
        "{route}, {rule}: the stable backend {stable} has weight 0, so there is nothing to split; give it a weight, or list other rules in routes[].rules of the Canary"
    )]
    StableWithoutWeight {
        route: String,
        rule: String,
        stable: String,
    },
    #[error(
        "{route}, {rule}: the candidate {candidate} already has weight {weight} in backendRefs; set it to 0 or remove the reference, a release raises it step by step"
    )]
    CandidateHasWeight {
        route: String,
        rule: String,
        candidate: String,
        weight: i64,
    },
    #[error(
        "{route}, {rule}: to split whole percents, backendRefs weights are multiplied by {factor}, and {weight} is over the limit of 1000000; use smaller weights in the same ratio"
    )]
    WeightTooLarge {
        route: String,
        rule: String,
        factor: i32,
        weight: i64,
    },
    #[error(
        "{route}, {rule}: backendRefs would have {count} entries with the candidate's, and a rule may have {limit}; remove one"
    )]
    TooManyBackends {
        route: String,
        rule: String,
        count: usize,
        limit: usize,
    },
    #[error(
        "{route}: spec.rules would have {count} entries with the rules that match the steps' headers, and a route may have {limit}; list fewer rules in routes[].rules of the Canary, or remove rules from the route"
    )]
    TooManyRules {
        route: String,
        count: usize,
        limit: usize,
    },
    #[error(
        "{route}, {rule}: its copy for the steps' headers would have {count} matches, and a rule may have {limit}; use fewer alternatives in steps[].headers, or fewer matches in the rule"
    )]
    TooManyMatches {
        route: String,
        rule: String,
        count: usize,
        limit: usize,
    },
    #[error(
        "{route}: with the rules for the steps' headers spec.rules would have {count} matches in all, and a route may have {limit}; use fewer alternatives in steps[].headers, or fewer matches in the route"
    )]
    TooManyMatchesInAll {
        route: String,
        count: usize,
        limit: usize,
    },
    #[error(
        "{route}, {rule}: a match would have {count} headers with those of the steps, and a match may have {limit}; use fewer headers in steps[].headers"
    )]
    TooManyHeaders {
        route: String,
        rule: String,
        count: usize,
        limit: usize,
    },
    #[error(
        "{route}, {rule}: its matches already say what the header {header:?} must be, so no request could be told apart by it; use another header in steps[].headers"
    )]
    HeaderConflict {
        route: String,
        rule: String,
        header: String,
    },
    #[error(
        "{route}, {rule}: its name is one that this Canary gives to its own rules; give it another name"
    )]
    NameTaken { route: String, rule: String },
    #[error(
        "{route}, {rule}: it already sends requests with a header of the Canary's steps to {candidate}; remove it, the release brings its own"
    )]
    HeaderTaken {
        route: String,
        rule: String,
        candidate: String,
    },
    #[error(
        "{route}: none of the rules that this release manages is there any more; put one back that holds {stable}, or abort the release"
    )]
    RulesGone { route: String, stable: String },
    #[error("{route}: it was deleted and made anew during the release; it has to be read again")]
    Remade { route: String },
}

impl TrafficError {
    /// A stable word for events, conditions and metric labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kind { .. } => "RouteKindNotSupported",
            Self::SameBackend { .. } => "SameBackend",
            Self::UnknownRule { .. } => "RuleNotFound",
            Self::DuplicateRule { .. } => "RuleNameNotUnique",
            Self::StableNotHeld { .. } => "StableNotInRoute",
            Self::StableNotInRule { .. } => "StableNotInRule",
            Self::BackendTwice { .. } => "BackendTwiceInRule",
            Self::StableWithoutWeight { .. } => "StableWithoutWeight",
            Self::CandidateHasWeight { .. } => "CandidateHasWeight",
            Self::WeightTooLarge { .. } => "WeightTooLarge",
            Self::TooManyBackends { .. } => "TooManyBackends",
            Self::TooManyRules { .. } => "TooManyRules",
            Self::TooManyMatches { .. } | Self::TooManyMatchesInAll { .. } => "TooManyMatches",
            Self::TooManyHeaders { .. } => "TooManyHeaders",
            Self::HeaderConflict { .. } => "HeaderConflict",
            Self::NameTaken { .. } => "RuleNameTaken",
            Self::HeaderTaken { .. } => "HeaderTaken",
            Self::RulesGone { .. } => "RulesGone",
            Self::Remade { .. } => "RouteRemade",
        }
    }
}
