//! What a route serves, before anything is known about it.

use super::{headers, view};
use crate::api::Backend;
use serde_json::Value;

/// What routes say at first sight, when the stable backend is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstSight {
    /// This backend is stable. If it is not the target, there is something to release.
    Serves(Backend),
    /// Several backends could be meant.
    Ambiguous { holds: Vec<Backend> },
    /// The target already has weight in a rule beside the stable backend.
    CandidateHasWeight {
        /// The route and the rule, as messages call them.
        route: String,
        rule: String,
        stable: Backend,
        weight: i64,
    },
    /// No managed rule sends requests to a backend that a Canary can name.
    Empty,
}

/// Which backend is stable, from routes and the names of their managed rules (none for all).
///
/// A rule that holds the target at weight 0 beside one other backend keeps it ready, so the other is
/// stable. Else, where the target has weight it serves already, and what stands beside it is
/// foreign. Else stable is the one backend that the rules hold. References at weight 0, and those
/// without a port, do not count.
#[must_use]
pub fn first_sight(
    routes: &[(&Value, &[String])],
    target: &Backend,
    namespace: &str,
) -> FirstSight {
    let rules: Vec<(&Value, usize, &Value)> = routes
        .iter()
        .flat_map(|(route, filter)| {
            managed(route, filter).map(move |(at, rule)| (*route, at, rule))
        })
        .collect();
    let mut beside = Vec::new();
    let mut all = Vec::new();
    for (_, _, rule) in &rules {
        let served = served(rule, namespace);
        let idle = view::refs(rule)
            .iter()
            .any(|reference| view::is(reference, target, namespace))
            && !served.contains(target);
        if idle {
            merge(&mut beside, served.clone());
        }
        merge(&mut all, served);
    }
    let stable = match (&*beside, &*all) {
        ([stable], _) => stable.clone(),
        ([], all) if all.contains(target) => return FirstSight::Serves(target.clone()),
        ([], [stable]) => stable.clone(),
        ([], []) => return FirstSight::Empty,
        ([], _) => return FirstSight::Ambiguous { holds: all },
        (_, _) => return FirstSight::Ambiguous { holds: beside },
    };
    let both = rules.iter().find(|(_, _, rule)| {
        let served = served(rule, namespace);
        served.contains(&stable) && stable != *target && served.contains(target)
    });
    match both {
        Some((route, at, rule)) => FirstSight::CandidateHasWeight {
            route: view::title(route),
            rule: view::place(*at, rule),
            weight: view::refs(rule)
                .iter()
                .filter(|reference| view::is(reference, target, namespace))
                .map(view::weight)
                .sum(),
            stable,
        },
        None => FirstSight::Serves(stable),
    }
}

/// The backends that the managed rules of a route send requests to, in order, each once. References
/// at weight 0, and those without a port, do not count.
#[must_use]
pub fn holds(route: &Value, rules: &[String], namespace: &str) -> Vec<Backend> {
    let mut backends = Vec::new();
    for (_, rule) in managed(route, rules) {
        merge(&mut backends, served(rule, namespace));
    }
    backends
}

fn managed<'a>(route: &'a Value, filter: &'a [String]) -> impl Iterator<Item = (usize, &'a Value)> {
    view::rules(route)
        .iter()
        .enumerate()
        .filter(move |(_, rule)| {
            let listed = |name| filter.iter().any(|listed| listed == name);
            match (filter, view::name(rule)) {
                ([], name) => !name.is_some_and(headers::is_any_name),
                (_, name) => name.is_some_and(listed),
            }
        })
}

/// The backends of a rule that have weight and that a Canary can name.
pub(super) fn served(rule: &Value, namespace: &str) -> Vec<Backend> {
    view::refs(rule)
        .iter()
        .filter(|reference| view::weight(reference) > 0)
        .filter_map(|reference| view::backend(reference, namespace))
        .filter(|backend| backend.port > 0)
        .collect()
}

fn merge(into: &mut Vec<Backend>, from: Vec<Backend>) {
    for backend in from {
        if !into.contains(&backend) {
            into.push(backend);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backend(name: &str) -> Backend {
        Backend {
            group: String::new(),
            kind: "Service".into(),
            name: name.into(),
            namespace: Some("shop".into()),
            port: 80,
        }
    }

    fn route(rules: &[&[(&str, u32)]]) -> Value {
        let rules: Vec<Value> = rules
            .iter()
            .enumerate()
            .map(|(at, refs)| {
                let refs: Vec<Value> = refs
                    .iter()
                    .map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}))
                    .collect();
                json!({"name": format!("r{at}"), "backendRefs": refs})
            })
            .collect();
        json!({"kind": "HTTPRoute", "metadata": {"name": "web"}, "spec": {"rules": rules}})
    }

    #[test]
    fn first_sights() {
        let serves = |name| FirstSight::Serves(backend(name));
        let ambiguous = |names: &[&str]| FirstSight::Ambiguous {
            holds: names.iter().map(|name| backend(name)).collect(),
        };
        let both = FirstSight::CandidateHasWeight {
            route: "HTTPRoute web".into(),
            rule: "spec.rules[1] (\"r1\")".into(),
            stable: backend("v1"),
            weight: 5,
        };
        type Rules<'a> = &'a [&'a [(&'a str, u32)]];
        let table: [(&str, Rules<'_>, FirstSight); 13] = [
            ("the target serves", &[&[("v2", 1)]], serves("v2")),
            (
                "the target serves beside others",
                &[&[("v2", 1), ("x", 9)]],
                serves("v2"),
            ),
            ("another serves", &[&[("v1", 1)]], serves("v1")),
            (
                "another serves in two rules",
                &[&[("v1", 1)], &[("v1", 7)]],
                serves("v1"),
            ),
            (
                "the target waits at weight 0",
                &[&[("v1", 1), ("v2", 0)]],
                serves("v1"),
            ),
            (
                "it waits in one rule",
                &[&[("v1", 1), ("v2", 0)], &[("x", 1)]],
                serves("v1"),
            ),
            (
                "it waits beside one with weight",
                &[&[("v1", 1), ("v2", 0), ("x", 0)]],
                serves("v1"),
            ),
            (
                "two could be meant",
                &[&[("v1", 1), ("x", 1)]],
                ambiguous(&["v1", "x"]),
            ),
            (
                "it waits beside two",
                &[&[("v1", 1), ("x", 1), ("v2", 0)]],
                ambiguous(&["v1", "x"]),
            ),
            (
                "rules differ",
                &[&[("v1", 1)], &[("x", 1)]],
                ambiguous(&["v1", "x"]),
            ),
            ("no weight at all", &[&[("v1", 0)]], FirstSight::Empty),
            ("no rules", &[], FirstSight::Empty),
            (
                "both have weight",
                &[&[("v1", 1), ("v2", 0)], &[("v1", 95), ("v2", 5)]],
                both,
            ),
        ];
        for (what, rules, sight) in table {
            let route = route(rules);
            assert_eq!(
                first_sight(&[(&route, &[])], &backend("v2"), "shop"),
                sight,
                "{what}"
            );
        }
    }

    #[test]
    fn only_listed_rules_count() {
        let route = route(&[&[("v1", 1)], &[("x", 1), ("y", 0)]]);
        let listed = ["r1".to_owned()];
        assert_eq!(
            first_sight(&[(&route, &listed)], &backend("v2"), "shop"),
            FirstSight::Serves(backend("x"))
        );
        assert_eq!(holds(&route, &listed, "shop"), [backend("x")]);
        assert_eq!(holds(&route, &[], "shop"), [backend("v1"), backend("x")]);
    }
}
