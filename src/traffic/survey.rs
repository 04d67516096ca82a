//! What is needed to give a route back, or why it cannot be managed.

use super::kind::Shape;
use super::{Frame, TrafficError, headers, locate, plan, sight, split, view};
use crate::api::{Backend, HeaderRule, RouteRecord, RuleRecord, Wanted};
use serde_json::Value;

/// Reads a route before a release: everything needed to give it back.
///
/// `splits` is all that the release may want, so that what does not fit the API's limits is refused
/// before anything is shifted.
///
/// # Errors
/// When the route cannot be managed, or cannot carry one of the splits.
pub fn survey(
    route: &Value,
    frame: &Frame<'_>,
    splits: &[Wanted],
) -> Result<RouteRecord, TrafficError> {
    let shape = Shape::of(route)?;
    if frame.stable == frame.candidate {
        return Err(TrafficError::SameBackend {
            route: view::title(route),
            backend: frame.stable.to_string(),
        });
    }
    let record = RouteRecord {
        kind: shape.kind,
        name: view::metadata(route, "name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        uid: view::uid(route).to_owned(),
        rules: managed(route, frame)?
            .into_iter()
            .map(|at| rule(route, at, frame))
            .collect::<Result<_, _>>()?,
        headers: all_headers(splits),
    };
    unclaimed(route, frame, &record)?;
    for wanted in splits {
        plan(route, frame, &record, wanted)?;
    }
    Ok(record)
}

/// Places of the rules to manage: those that are listed, or all that hold the stable backend.
fn managed(route: &Value, frame: &Frame<'_>) -> Result<Vec<usize>, TrafficError> {
    let rules = view::rules(route);
    let named = |name: &str| -> Vec<usize> {
        let same = |at: &usize| view::name(&rules[*at]) == Some(name);
        (0..rules.len()).filter(same).collect()
    };
    let holds_stable =
        |at: usize| !view::places(view::refs(&rules[at]), frame.stable, frame.namespace).is_empty();
    let mut places = Vec::new();
    for name in frame.rules {
        let found = named(name);
        let Some(&at) = found.first() else {
            return Err(TrafficError::UnknownRule {
                route: view::title(route),
                rule: name.clone(),
            });
        };
        if !holds_stable(at) {
            return Err(TrafficError::StableNotInRule {
                route: view::title(route),
                rule: view::place(at, &rules[at]),
                stable: frame.stable.to_string(),
                holds: view::names(&sight::served(&rules[at], frame.namespace)),
            });
        }
        if !places.contains(&at) {
            places.push(at);
        }
    }
    if frame.rules.is_empty() {
        places.extend((0..rules.len()).filter(|at| holds_stable(*at)));
    }
    if places.is_empty() {
        return Err(TrafficError::StableNotHeld {
            route: view::title(route),
            stable: frame.stable.to_string(),
            holds: view::names(&sight::holds(route, &[], frame.namespace)),
        });
    }
    let unclear = |at: &&usize| view::name(&rules[**at]).is_some_and(|name| named(name).len() > 1);
    if let Some(at) = places.iter().find(unclear) {
        return Err(TrafficError::DuplicateRule {
            route: view::title(route),
            rule: view::name(&rules[*at]).unwrap_or_default().to_owned(),
        });
    }
    places.sort_unstable();
    Ok(places)
}

fn rule(route: &Value, at: usize, frame: &Frame<'_>) -> Result<RuleRecord, TrafficError> {
    let rule = &view::rules(route)[at];
    let refs = view::refs(rule);
    let place = || (view::title(route), view::place(at, rule));
    let only = |backend: &Backend| match *view::places(refs, backend, frame.namespace) {
        [] => Ok(None),
        [at] => Ok(Some(&refs[at])),
        _ => {
            let (route, rule) = place();
            let backend = backend.to_string();
            Err(TrafficError::BackendTwice {
                route,
                rule,
                backend,
            })
        }
    };
    let stable = only(frame.stable)?;
    let weight = stable.map_or(0, view::weight);
    if weight == 0 {
        let (route, rule) = place();
        let stable = frame.stable.to_string();
        return Err(TrafficError::StableWithoutWeight {
            route,
            rule,
            stable,
        });
    }
    let candidate = only(frame.candidate)?;
    if let Some(weight) = candidate.map(view::weight).filter(|weight| *weight > 0) {
        let (route, rule) = place();
        let candidate = frame.candidate.to_string();
        return Err(TrafficError::CandidateHasWeight {
            route,
            rule,
            candidate,
            weight,
        });
    }
    Ok(RuleRecord {
        name: view::name(rule).map(str::to_owned),
        index: u32::try_from(at).unwrap_or(u32::MAX),
        weights: refs.iter().map(view::written_weight).collect(),
        backends: refs.iter().map(|r| view::key(r, frame.namespace)).collect(),
        spelled: stable.map(split::spelled).unwrap_or_default(),
        factor: factor(weight),
    })
}

/// The smallest factor by which each whole percent of a weight is a whole number.
fn factor(weight: i64) -> i32 {
    let (mut a, mut b) = (100, weight);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    i32::try_from(100 / a).unwrap_or(100)
}

fn all_headers(splits: &[Wanted]) -> Vec<HeaderRule> {
    let mut all = Vec::new();
    for wanted in splits {
        let Wanted::Split { headers, .. } = wanted else {
            continue;
        };
        for header in headers {
            if !all.contains(header) {
                all.push(header.clone());
            }
        }
    }
    all
}

/// Refuses rules that could later be mistaken for added ones. A rule with the name and the backend of
/// one, whose every match asks for a header, is left from a release whose record was lost, and is taken over.
fn unclaimed(route: &Value, frame: &Frame<'_>, record: &RouteRecord) -> Result<(), TrafficError> {
    for (at, value) in view::rules(route).iter().enumerate() {
        let managed = record.rules.iter().any(|rule| rule.index as usize == at);
        let only_candidate = locate::only_candidate(value, frame);
        let (route, rule) = (view::title(route), view::place(at, value));
        if let Some(name) = view::name(value) {
            let left = only_candidate && headers::asks_for_any(value);
            if headers::is_name_of(frame.owner, name) && (managed || !left) {
                return Err(TrafficError::NameTaken { route, rule });
            }
            continue;
        }
        let asks = |header: &&HeaderRule| headers::asks_for(value, std::slice::from_ref(*header));
        if managed && headers::asks_for(value, &record.headers) {
            let header = record.headers.iter().find(asks).or(record.headers.first());
            let header = header.map_or_else(String::new, |found| found.header.name.clone());
            return Err(TrafficError::HeaderConflict {
                route,
                rule,
                header,
            });
        }
        if only_candidate && headers::asks_for(value, &record.headers) {
            let candidate = frame.candidate.to_string();
            return Err(TrafficError::HeaderTaken {
                route,
                rule,
                candidate,
            });
        }
    }
    Ok(())
}
