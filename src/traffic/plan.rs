//! From what is wanted to a change of the route.

use super::kind::Shape;
use super::locate::{Places, locate};
use super::patch::{Draft, Slot};
use super::split::{Arms, TooLarge};
use super::{Frame, TrafficError, headers, view};
use crate::api::{RouteRecord, Wanted};
use serde_json::Value;

/// What makes a route carry what is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// It applies only to the object and the generation that it was made from.
    pub patch: json_patch::Patch,
    /// The route after it.
    pub result: Value,
}

/// The change that makes the route carry what is wanted; none when it does already.
///
/// Whatever happened to the route meanwhile, the weights of our two backends and the added rules are
/// put right, and all else stays as other people made it. A rule that they removed stays removed.
///
/// # Errors
/// When the route is another object than the record's, when no managed rule is left to carry a
/// split or a promotion, or when the result would not fit the API's limits.
pub fn plan(
    route: &Value,
    frame: &Frame<'_>,
    record: &RouteRecord,
    wanted: &Wanted,
) -> Result<Option<Change>, TrafficError> {
    if view::uid(route) != record.uid {
        return Err(TrafficError::Remade {
            route: view::title(route),
        });
    }
    let Places { managed, added } = locate(route, frame, record, wanted);
    if *wanted != Wanted::Stable && managed.iter().all(Option::is_none) {
        return Err(TrafficError::RulesGone {
            route: view::title(route),
            stable: frame.stable.to_string(),
        });
    }
    let rules = view::rules(route);
    let mut draft = Draft::new(route);
    let mut testers = Vec::new();
    for (rule, at) in record.rules.iter().zip(managed) {
        let Some((at, arms)) = at.and_then(|at| Some((at, Arms::read(&rules[at], frame, rule)?)))
        else {
            continue;
        };
        let place = || (view::title(route), view::place(at, &rules[at]));
        let slots = arms.wanted(wanted).map_err(|TooLarge(weight)| {
            let (route, rule_place) = place();
            TrafficError::WeightTooLarge {
                route,
                rule: rule_place,
                factor: rule.factor,
                weight,
            }
        })?;
        let limit = Shape::of(route)?.max_refs;
        if slots.len() > limit && slots.iter().any(|slot| slot.from.is_none()) {
            let (route, rule) = place();
            let count = slots.len();
            return Err(TrafficError::TooManyBackends {
                route,
                rule,
                count,
                limit,
            });
        }
        draft.refs(at, &slots);
        if let Wanted::Split { headers, .. } = wanted {
            let canary = arms.canary_ref();
            testers.extend(headers::testers(
                route,
                (at, rule.index),
                frame.owner,
                canary,
                headers,
            )?);
        }
    }
    room(route, &added, &testers)?;
    draft.added(&added, &pair(rules, &added, testers));
    let change = draft.finish();
    Ok(change.map(|(patch, result)| Change { patch, result }))
}

/// Places of the rules whose requests are split, and of those that were added for header testers, so
/// that their requests can be told apart from each other and from those of all other rules.
#[must_use]
pub fn split_and_added_rules(
    route: &Value,
    frame: &Frame<'_>,
    record: &RouteRecord,
    wanted: &Wanted,
) -> (Vec<usize>, Vec<usize>) {
    let Places { managed, added } = locate(route, frame, record, wanted);
    (managed.into_iter().flatten().collect(), added)
}

/// Gives each rule that should be there the place of the added one that it is already: by name, or in
/// order where names are dropped.
fn pair(rules: &[Value], added: &[usize], testers: Vec<Value>) -> Vec<Slot> {
    let mut free = added.to_vec();
    let mut slot = |mut value: Value| {
        let is = |at: &usize| {
            let name = view::name(&rules[*at]);
            name.is_none() || name == view::name(&value)
        };
        let from = free.iter().position(is).map(|k| free.remove(k));
        if let (Some(at), Some(object)) = (from, value.as_object_mut())
            && view::name(&rules[at]).is_none()
        {
            object.remove("name");
        }
        Slot { from, value }
    };
    testers.into_iter().map(&mut slot).collect()
}

/// Whether the route has room for the rules that should be there beside those of other people.
fn room(route: &Value, added: &[usize], testers: &[Value]) -> Result<(), TrafficError> {
    if testers.is_empty() {
        return Ok(());
    }
    let shape = Shape::of(route)?;
    let others = view::rules(route)
        .iter()
        .enumerate()
        .filter(|(at, _)| !added.contains(at))
        .map(|(_, rule)| rule);
    let all: Vec<&Value> = others.chain(testers).collect();
    let route = view::title(route);
    if all.len() > shape.max_rules {
        let (count, limit) = (all.len(), shape.max_rules);
        return Err(TrafficError::TooManyRules {
            route,
            count,
            limit,
        });
    }
    let count: usize = all
        .iter()
        .map(|rule| view::list(rule, "matches").len().max(1))
        .sum();
    if count > shape.max_matches_in_all {
        let limit = shape.max_matches_in_all;
        return Err(TrafficError::TooManyMatchesInAll {
            route,
            count,
            limit,
        });
    }
    Ok(())
}
