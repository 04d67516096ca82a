//! Promises about routes, over generated ones: a route is given back as it was found, nothing unknown
//! is lost, foreign shares are exact, and a patch touches nothing else.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use serin::api::{Backend, HeaderMatch, HeaderRule, MatchKind, RouteRecord, Wanted};
use serin::traffic::{
    Change, Frame, acceptance, controllers, first_sight, holds, parents, plan, survey,
};

const NAMESPACE: &str = "shop";

fn backend(name: &str, namespace: &str, port: u16) -> Backend {
    Backend {
        group: String::new(),
        kind: "Service".into(),
        name: name.into(),
        namespace: Some(namespace.into()),
        port,
    }
}

/// A release: the route as it was found, and who is released in whose place.
#[derive(Debug, Clone)]
struct Case {
    route: Value,
    stable: Backend,
    candidate: Backend,
    rules: Vec<String>,
    splits: Vec<Wanted>,
}

impl Case {
    fn frame(&self) -> Frame<'_> {
        Frame {
            owner: "checkout",
            namespace: NAMESPACE,
            rules: &self.rules,
            stable: &self.stable,
            candidate: &self.candidate,
        }
    }

    fn record(&self) -> Option<RouteRecord> {
        survey(&self.route, &self.frame(), &self.splits).ok()
    }

    /// The route after a plan, as the API server would keep it: a change makes a new generation.
    fn step(&self, route: &Value, record: &RouteRecord, wanted: &Wanted) -> Value {
        match plan(route, &self.frame(), record, wanted).unwrap() {
            Some(change) => next(route, &change),
            None => route.clone(),
        }
    }

    fn managed<'a>(&self, record: &'a RouteRecord) -> impl Iterator<Item = usize> + 'a {
        record.rules.iter().map(|rule| rule.index as usize)
    }
}

/// Applies a change for itself, so that no test rests on the result that the room computed.
fn next(route: &Value, change: &Change) -> Value {
    let mut after = route.clone();
    json_patch::patch(&mut after, &change.patch).expect("every patch applies");
    assert_eq!(after, change.result);
    let generation = after["metadata"]["generation"].as_i64().unwrap();
    after["metadata"]["generation"] = json!(generation + 1);
    after
}

fn rules(route: &Value) -> &Vec<Value> {
    route["spec"]["rules"].as_array().unwrap()
}

fn refs(rule: &Value) -> &[Value] {
    rule["backendRefs"].as_array().map_or(&[], Vec::as_slice)
}

fn weight(reference: &Value) -> i64 {
    reference["weight"].as_i64().unwrap_or(1)
}

fn is(reference: &Value, backend: &Backend) -> bool {
    reference["name"] == json!(backend.name)
        && reference["port"] == json!(backend.port)
        && reference["namespace"].as_str().unwrap_or(NAMESPACE)
            == backend.namespace.as_deref().unwrap()
}

/// The weight of a backend in a rule, and of all others.
fn part(rule: &Value, backend: &Backend) -> i64 {
    let same = refs(rule).iter().filter(|reference| is(reference, backend));
    same.map(weight).sum()
}

// ---- generated routes ----

fn unknown() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(json!({"mode": ["a", {"b": null}], "n/~1": 1.5}))),
        1 => any::<i32>().prop_map(|n| Some(json!(n))),
    ]
}

fn with(mut value: Value, field: &str, member: Option<Value>) -> Value {
    if let (Some(object), Some(member)) = (value.as_object_mut(), member) {
        object.insert(field.into(), member);
    }
    value
}

fn written(weights: impl Strategy<Value = u32>) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        4 => weights.prop_map(|weight| Some(json!(weight))),
    ]
}

/// A reference to a backend, as people or the API server spell it.
fn reference(backend: Backend, weight: Option<Value>) -> impl Strategy<Value = Value> {
    (any::<bool>(), any::<bool>(), any::<bool>(), unknown()).prop_map(
        move |(long, spelled, filtered, unknown)| {
            let mut value = json!({"name": backend.name, "port": backend.port});
            let namespace = backend.namespace.as_deref().unwrap();
            if spelled || namespace != NAMESPACE {
                value["namespace"] = json!(namespace);
            }
            if long {
                value["group"] = json!("");
                value["kind"] = json!("Service");
            }
            if filtered {
                value["filters"] = json!([{"type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"set": [{"name": "x-from", "value": "route"}]}}]);
            }
            with(with(value, "weight", weight.clone()), "newField", unknown)
        },
    )
}

fn foreign() -> impl Strategy<Value = Vec<Value>> {
    let one = (0..4u16, written(0..1000u32)).prop_flat_map(|(n, weight)| {
        reference(backend(&format!("foreign-{n}"), NAMESPACE, 80 + n), weight)
    });
    prop::collection::vec(one, 0..4)
}

fn matches() -> impl Strategy<Value = Option<Value>> {
    let header = prop_oneof![
        3 => Just(None),
        1 => Just(Some(json!([{"type": "Exact", "name": "X-Region", "value": "eu"}]))),
        1 => Just(Some(json!([{"name": "X-CANARY", "value": "true"}]))),
        1 => Just(Some(json!([{"name": "x-canary", "value": "false"}]))),
    ];
    let method = prop_oneof![Just(None), Just(Some(json!("GET")))];
    let one = (0..5u8, header, method, unknown()).prop_map(|(path, headers, method, unknown)| {
        let base = json!({"path": {"type": "PathPrefix", "value": format!("/{path}")}});
        let base = with(with(base, "headers", headers), "method", method);
        with(base, "newField", unknown)
    });
    prop_oneof![
        1 => Just(None),
        3 => prop::collection::vec(one, 1..4).prop_map(|list| Some(Value::Array(list))),
    ]
}

fn rule(stable: Backend, candidate: Backend) -> impl Strategy<Value = Value> {
    let stable = written(1..1000u32).prop_flat_map(move |weight| reference(stable.clone(), weight));
    let candidate = reference(candidate, Some(json!(0)));
    let filters = prop_oneof![
        2 => Just(None),
        1 => Just(Some(json!([{"type": "CORS", "cors": {"allowOrigins": ["*"]}}]))),
        1 => Just(Some(json!([{"type": "URLRewrite", "urlRewrite":
            {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}]))),
    ];
    (
        prop::option::weighted(0.8, stable),
        prop::option::weighted(0.2, candidate),
        foreign(),
        matches(),
        filters,
        prop::option::of(Just(json!({"request": "10s"}))),
        unknown(),
        any::<prop::sample::Index>(),
    )
        .prop_map(
            |(stable, candidate, mut refs, matches, filters, timeouts, unknown, at)| {
                for ours in [stable, candidate].into_iter().flatten() {
                    refs.insert(at.index(refs.len() + 1), ours);
                }
                let rule = with(json!({"backendRefs": refs}), "matches", matches);
                let rule = with(with(rule, "filters", filters), "timeouts", timeouts);
                with(rule, "newField", unknown)
            },
        )
}

fn header(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: name.into(),
        value: value.into(),
        kind: MatchKind::Exact,
    }
}

fn headers() -> impl Strategy<Value = Vec<HeaderRule>> {
    let one = prop_oneof![
        3 => Just(HeaderRule { header: header("x-canary", "true"), and: vec![] }),
        1 => Just(HeaderRule { header: header("x-team", "qa"), and: vec![header("x-region", "eu")] }),
    ];
    prop::collection::vec(one, 0..3)
}

fn split() -> impl Strategy<Value = Wanted> {
    (prop_oneof![Just(0), 0..=100u8], headers())
        .prop_map(|(weight, headers)| Wanted::Split { weight, headers })
}

fn case() -> impl Strategy<Value = Case> {
    let namespaces = || prop_oneof![3 => Just(NAMESPACE), 1 => Just("other")];
    (namespaces(), namespaces(), 80..82u16).prop_flat_map(|(stable, candidate, port)| {
        let stable = backend("api-v1", stable, 80);
        let candidate = backend("api-v2", candidate, port);
        // Few rules mostly, so that header rules have room; up to the limit, so that they have none.
        let count = prop_oneof![4 => 1..5usize, 1 => 5..17usize];
        let one = rule(stable.clone(), candidate.clone()).boxed();
        let rules = count.prop_flat_map(move |count| prop::collection::vec(one.clone(), count));
        let names = prop_oneof![Just(0), Just(1), Just(2)];
        let splits = prop::collection::vec(split(), 1..4);
        (rules, names, unknown(), splits, any::<bool>()).prop_map(move |(mut rules, names, unknown, splits, listed)| {
            for (at, rule) in rules.iter_mut().enumerate() {
                if names == 2 || names == 1 && at % 2 == 0 {
                    rule["name"] = json!(format!("rule-{at}"));
                }
            }
            // Every second rule with a name, as a person could list them.
            let held = rules.iter().filter(|rule| refs(rule).iter().any(|r| is(r, &stable)));
            let names = held.filter_map(|rule| Some(rule.get("name")?.as_str()?.to_owned()));
            let filter: Vec<String> = names.step_by(2).filter(|_| listed).collect();
            let route = json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {"name": "checkout", "namespace": NAMESPACE, "uid": "u1", "generation": 7},
                "spec": {"parentRefs": [{"name": "web"}], "hostnames": ["a.example"], "rules": rules},
                "status": {"parents": []},
            });
            let mut route = route;
            route["spec"] = with(route["spec"].take(), "newField", unknown);
            Case {
                route,
                stable: stable.clone(),
                candidate: candidate.clone(),
                rules: filter,
                splits,
            }
        })
    })
}

// ---- what must hold ----

/// Everything of a split route that a split may not touch, compared with the route as it was found.
fn only_ours_differ(case: &Case, record: &RouteRecord, after: &Value) {
    let (mut before, mut after) = (case.route.clone(), after.clone());
    after["metadata"]["generation"] = before["metadata"]["generation"].clone();
    let count = rules(&before).len();
    after["spec"]["rules"]
        .as_array_mut()
        .unwrap()
        .truncate(count);
    for at in case.managed(record) {
        let stood = refs(&before["spec"]["rules"][at])
            .iter()
            .any(|r| is(r, &case.candidate));
        for route in [&mut before, &mut after] {
            let list = route["spec"]["rules"][at]["backendRefs"]
                .as_array_mut()
                .unwrap();
            list.retain(|reference| stood || !is(reference, &case.candidate));
            for reference in list {
                reference.as_object_mut().unwrap().remove("weight");
            }
        }
    }
    assert_eq!(before, after);
}

fn shares_are_exact(before: &Value, after: &Value, case: &Case, percent: u8) {
    let percent = i64::from(percent);
    let total = |rule: &Value| refs(rule).iter().map(weight).sum::<i64>();
    let (old, new) = (total(before), total(after));
    let whole = part(before, &case.stable);
    assert_eq!(
        part(after, &case.stable) * old * 100,
        whole * (100 - percent) * new
    );
    assert_eq!(
        part(after, &case.candidate) * old * 100,
        whole * percent * new
    );
    let foreign = |rule: &Value| -> Vec<i64> {
        let ours = |r: &&Value| !is(r, &case.stable) && !is(r, &case.candidate);
        refs(rule).iter().filter(ours).map(weight).collect()
    };
    for (was, is) in foreign(before).into_iter().zip(foreign(after)) {
        assert_eq!(is * old, was * new);
    }
}

fn within_limits(route: &Value) {
    assert!(rules(route).len() <= 16);
    let mut all = 0;
    for rule in rules(route) {
        assert!(refs(rule).len() <= 16);
        assert!(
            refs(rule)
                .iter()
                .all(|r| (0..=1_000_000).contains(&weight(r)))
        );
        let matches = rule["matches"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(matches.len() <= 64);
        all += matches.len().max(1);
        for found in matches {
            let headers = found["headers"].as_array().map_or(&[][..], Vec::as_slice);
            let mut names: Vec<String> = headers
                .iter()
                .map(|header| header["name"].as_str().unwrap().to_lowercase())
                .collect();
            names.sort();
            names.dedup();
            assert_eq!(
                names.len(),
                headers.len(),
                "one header name once in a match"
            );
            assert!(headers.len() <= 16);
        }
    }
    assert!(all <= 128);
}

/// The added rules: copies of managed ones that send only to the candidate.
fn testers_are_copies(case: &Case, record: &RouteRecord, after: &Value, wanted: &[HeaderRule]) {
    let count = rules(&case.route).len();
    let added = &rules(after)[count..];
    assert_eq!(added.is_empty(), wanted.is_empty());
    for tester in added {
        let name = tester["name"].as_str().unwrap();
        let place = name.strip_prefix("serin-checkout-").unwrap();
        let index: usize = place.split('.').next().unwrap().parse().unwrap();
        assert!(case.managed(record).any(|at| at == index));
        let mut copy = tester.clone();
        let mut rule = rules(&case.route)[index].clone();
        assert!(matches!(refs(&copy), [only] if is(only, &case.candidate)));
        for rule in [&mut copy, &mut rule] {
            for field in ["name", "matches", "backendRefs"] {
                rule.as_object_mut().unwrap().remove(field);
            }
        }
        assert_eq!(
            copy, rule,
            "filters, timeouts and unknown fields are copied"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patch_then_restore_is_the_identity(case in case()) {
        let Some(record) = case.record() else { return Ok(()) };
        let mut route = case.route.clone();
        for wanted in &case.splits {
            route = case.step(&route, &record, wanted);
            prop_assert!(plan(&route, &case.frame(), &record, wanted).unwrap().is_none(), "twice");
        }
        let restored = case.step(&route, &record, &Wanted::Stable);
        prop_assert_eq!(&restored["spec"], &case.route["spec"]);
        prop_assert!(plan(&restored, &case.frame(), &record, &Wanted::Stable).unwrap().is_none());
    }

    #[test]
    fn a_split_is_exact_and_touches_nothing_else(case in case()) {
        let Some(record) = case.record() else { return Ok(()) };
        let mut route = case.route.clone();
        for wanted in &case.splits {
            // From any split to any other, in one patch.
            route = case.step(&route, &record, wanted);
            let Wanted::Split { weight, headers } = wanted else { unreachable!() };
            only_ours_differ(&case, &record, &route);
            within_limits(&route);
            testers_are_copies(&case, &record, &route, headers);
            for at in case.managed(&record) {
                let (before, after) = (&rules(&case.route)[at], &rules(&route)[at]);
                shares_are_exact(before, after, &case, *weight);
                if *weight == 0 {
                    prop_assert_eq!(before, after);
                }
            }
        }
    }

    #[test]
    fn a_promotion_puts_the_candidate_in_its_place(case in case()) {
        let Some(record) = case.record() else { return Ok(()) };
        let mut route = case.route.clone();
        for wanted in &case.splits {
            route = case.step(&route, &record, wanted);
        }
        let promoted = case.step(&route, &record, &Wanted::Candidate);
        prop_assert!(plan(&promoted, &case.frame(), &record, &Wanted::Candidate).unwrap().is_none());
        prop_assert_eq!(rules(&promoted).len(), rules(&case.route).len());
        // The same with the five fields put back by hand.
        let mut back = promoted.clone();
        back["metadata"] = case.route["metadata"].clone();
        for at in case.managed(&record) {
            let before = &rules(&case.route)[at];
            let stood = refs(before).iter().any(|r| is(r, &case.candidate));
            for (k, was) in refs(before).iter().enumerate() {
                let now = &mut back["spec"]["rules"][at]["backendRefs"][k];
                if is(was, &case.stable) && !stood {
                    prop_assert!(is(now, &case.candidate));
                    for field in ["name", "port", "namespace"] {
                        now.as_object_mut().unwrap().remove(field);
                        if let Some(value) = was.get(field) {
                            now[field] = value.clone();
                        }
                    }
                } else if is(was, &case.stable) {
                    prop_assert_eq!(weight(now), 0);
                    *now = was.clone();
                } else if is(was, &case.candidate) {
                    prop_assert_eq!(weight(now), part(before, &case.stable));
                    *now = was.clone();
                }
            }
        }
        prop_assert_eq!(&back, &case.route);
        // And taken back again within the same release.
        let restored = case.step(&promoted, &record, &Wanted::Stable);
        prop_assert_eq!(&restored["spec"], &case.route["spec"]);
    }

    #[test]
    fn a_route_that_was_put_back_by_others_is_split_again(case in case()) {
        let Some(record) = case.record() else { return Ok(()) };
        for wanted in &case.splits {
            let route = case.step(&case.route, &record, wanted);
            // A person takes out what was appended and edits our weights; a tool applies its own copy.
            let mut edited = route.clone();
            let list = edited["spec"]["rules"].as_array_mut().unwrap();
            list.truncate(rules(&case.route).len());
            for reference in list.iter_mut().filter_map(|rule| rule["backendRefs"].as_array_mut()).flatten() {
                if is(reference, &case.candidate) && weight(reference) > 0 {
                    reference["weight"] = json!(weight(reference) + 7);
                }
            }
            for reread in [edited, case.route.clone()] {
                let healed = case.step(&reread, &record, wanted);
                prop_assert_eq!(&healed["spec"], &route["spec"]);
            }
        }
    }

    #[test]
    fn an_api_server_that_drops_rule_names_changes_nothing_else(case in case()) {
        let mut case = case;
        let drop_names = |route: &mut Value| {
            for rule in route["spec"]["rules"].as_array_mut().unwrap() {
                rule.as_object_mut().unwrap().remove("name");
            }
        };
        drop_names(&mut case.route);
        case.rules.clear();
        let Some(record) = case.record() else { return Ok(()) };
        let mut route = case.route.clone();
        for wanted in &case.splits {
            route = case.step(&route, &record, wanted);
            drop_names(&mut route);
            prop_assert!(plan(&route, &case.frame(), &record, wanted).unwrap().is_none());
        }
        let restored = case.step(&route, &record, &Wanted::Stable);
        prop_assert_eq!(&restored["spec"], &case.route["spec"]);
    }

    #[test]
    fn what_was_found_survives_status(case in case()) {
        let Some(record) = case.record() else { return Ok(()) };
        let stored = serde_json::to_value(&record).unwrap();
        prop_assert_eq!(serde_json::from_value::<RouteRecord>(stored).unwrap(), record);
    }

    #[test]
    fn no_json_makes_it_panic(case in case(), junk in junk(), at in any::<prop::sample::Index>()) {
        let mut broken = case.route.clone();
        let mut spots = Vec::new();
        pointers(&broken, String::new(), &mut spots);
        if let Some(spot) = broken.pointer_mut(&spots[at.index(spots.len())]) {
            *spot = junk.clone();
        }
        let record = case.record();
        for route in [&junk, &broken] {
            let frame = case.frame();
            let _ = (acceptance(route), controllers(route), parents(route));
            let _ = (holds(route, &case.rules, NAMESPACE), first_sight(&[(route, &[])], &case.candidate, NAMESPACE));
            let read = survey(route, &frame, &case.splits);
            for record in read.ok().iter().chain(&record) {
                for wanted in case.splits.iter().chain([&Wanted::Stable, &Wanted::Candidate]) {
                    let _ = plan(route, &frame, record, wanted);
                }
            }
        }
    }
}

fn pointers(value: &Value, at: String, into: &mut Vec<String>) {
    match value {
        Value::Array(list) => {
            for (k, item) in list.iter().enumerate() {
                pointers(item, format!("{at}/{k}"), into);
            }
        }
        Value::Object(object) => {
            for (k, item) in object {
                let k = k.replace('~', "~0").replace('/', "~1");
                pointers(item, format!("{at}/{k}"), into);
            }
        }
        _ => {}
    }
    into.push(at);
}

fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just("api-v1"), Just("HTTPRoute"), Just("")].prop_map(Value::from),
    ];
    let field = prop_oneof![
        Just("spec"),
        Just("rules"),
        Just("backendRefs"),
        Just("name"),
        Just("matches"),
        Just("headers"),
        Just("weight"),
        Just("metadata"),
        Just("status"),
        Just("parents"),
        Just("conditions"),
        Just("parentRef"),
        Just("parentRefs"),
        Just("filters"),
        Just("port"),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((field.clone().prop_map(str::to_owned), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The generated cases are not mostly refused.
#[test]
fn most_generated_routes_can_be_managed() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let managed = (0..200)
        .filter(|_| {
            case()
                .new_tree(&mut runner)
                .unwrap()
                .current()
                .record()
                .is_some()
        })
        .count();
    assert!(managed > 80, "only {managed} of 200");
}
