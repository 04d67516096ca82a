//! The managed rules and the added ones, found again after other people's edits.

use super::{Frame, headers, split, view};
use crate::api::{HeaderRule, RouteRecord, RuleRecord, Wanted};
use serde_json::Value;

/// Where the rules of a record are now, and which rules were added for the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// The place of each recorded rule; none where it is gone, or holds neither backend any more.
    pub managed: Vec<Option<usize>>,
    /// Places of added rules.
    pub added: Vec<usize>,
}

/// Finds the rules of a record again. A rule with a name is known by it, and where the name is gone,
/// by holding both backends; a rule without, by its place and its backends, or by them alone.
pub(super) fn locate(
    route: &Value,
    frame: &Frame<'_>,
    record: &RouteRecord,
    wanted: &Wanted,
) -> Places {
    let rules = view::rules(route);
    let headers = all_headers(record, wanted);
    let added: Vec<usize> = (0..rules.len())
        .filter(|at| is_added(rules, *at, frame, &headers))
        .collect();
    let holds = |at: usize, backend| {
        !view::places(view::refs(&rules[at]), backend, frame.namespace).is_empty()
    };
    let stable = |at| holds(at, frame.stable);
    let candidate = |at| holds(at, frame.candidate);

    let mut managed = vec![None; record.rules.len()];
    let mut assign = |takes: &dyn Fn(&RuleRecord, usize) -> bool| {
        for (k, rule) in record.rules.iter().enumerate() {
            if managed[k].is_some() {
                continue;
            }
            managed[k] = (0..rules.len()).find(|at| {
                !managed.contains(&Some(*at)) && !added.contains(at) && takes(rule, *at)
            });
        }
    };
    let here = |rule: &RuleRecord, at: usize| rule.name.is_none() && at == rule.index as usize;
    assign(&|rule, at| rule.name.is_some() && rule.name.as_deref() == view::name(&rules[at]));
    assign(&|rule, at| here(rule, at) && fits(&rules[at], frame, rule));
    assign(&|rule, at| rule.name.is_none() && fits(&rules[at], frame, rule));
    assign(&|rule, at| here(rule, at) && (stable(at) || candidate(at)));
    assign(&|_, at| stable(at) && candidate(at));
    for place in &mut managed {
        *place = place.filter(|at| stable(*at) || candidate(*at));
    }
    Places { managed, added }
}

/// The headers of the whole release and of what is wanted now.
fn all_headers(record: &RouteRecord, wanted: &Wanted) -> Vec<HeaderRule> {
    let mut headers = record.headers.clone();
    if let Wanted::Split { headers: now, .. } = wanted {
        headers.extend(now.iter().cloned());
    }
    headers
}

/// Whether a rule was added for the release: by its name, which the survey found free. Where the API
/// server drops names no rule has one; then by its only backend and the headers that it asks for,
/// which the survey found in no other rule.
fn is_added(rules: &[Value], at: usize, frame: &Frame<'_>, headers: &[HeaderRule]) -> bool {
    match view::name(&rules[at]) {
        Some(name) => headers::is_name_of(frame.owner, name),
        None => {
            rules.iter().all(|rule| view::name(rule).is_none())
                && only_candidate(&rules[at], frame)
                && headers::asks_for(&rules[at], headers)
        }
    }
}

/// Whether a rule sends all its requests to the candidate by one reference.
pub(super) fn only_candidate(rule: &Value, frame: &Frame<'_>) -> bool {
    let refs = view::refs(rule);
    refs.len() == 1 && view::is(&refs[0], frame.candidate, frame.namespace)
}

/// Whether a rule has the backends of a record, and stable's part as it was found or split.
fn fits(rule: &Value, frame: &Frame<'_>, record: &RuleRecord) -> bool {
    let (stable, candidate) = (frame.stable.revision(), frame.candidate.revision());
    let refs = view::refs(rule);
    let keys: Vec<String> = refs.iter().map(|r| view::key(r, frame.namespace)).collect();
    let stood = split::stood(frame, record);
    let others = keys.iter().filter(|key| stood || **key != candidate);
    let ours = keys
        .iter()
        .zip(refs)
        .filter(|(key, _)| [&stable, &candidate].contains(key));
    let sum: i64 = ours.map(|(_, reference)| view::weight(reference)).sum();
    let found = record.backends.iter().position(|key| *key == stable);
    let whole = found
        .and_then(|at| *record.weights.get(at)?)
        .map_or(1, i64::from);
    others.eq(&record.backends) && [whole, whole * i64::from(record.factor)].contains(&sum)
}
