//! What is refused before anything is shifted, and in which words.

#![allow(clippy::unwrap_used)]

mod traffic_routes;

use serde_json::{Value, json};
use serin::api::Wanted;
use serin::traffic::survey;
use traffic_routes::{backend, canary, frame, reference, route, rule, split, testers};

#[test]
fn refusals_name_the_place_and_the_way_out() {
    let v1 = || rule("", &[("v1", 1)]);
    let filter = |name: &str| vec![name.to_owned()];
    let many = |count: usize| (0..count).map(|_| v1()).collect::<Vec<_>>();
    let backends = |count: usize| {
        let mut rule = v1();
        let refs = (1..count).map(|k| reference(&format!("x{k}"), 1));
        rule["backendRefs"].as_array_mut().unwrap().extend(refs);
        rule
    };
    let matches = |count: usize| {
        let mut rule = v1();
        rule["matches"] = (0..count)
            .map(|k| json!({"path": {"type": "Exact", "value": format!("/{k}")}}))
            .collect();
        rule
    };
    let asks = |headers: Value| {
        let mut rule = v1();
        rule["matches"][0]["headers"] = headers;
        rule
    };
    let sixteen: Value = (0..16)
        .map(|k| json!({"name": format!("h{k}"), "value": "1"}))
        .collect();
    let two = Wanted::Split {
        weight: 0,
        headers: vec![canary("a"), canary("b")],
    };
    let mut grpc = route(&[v1()]);
    grpc["kind"] = json!("GRPCRoute");
    let mut named_testers = rule("serin-web-0", &[("v1", 1)]);
    named_testers["matches"] = json!([]);
    let mut hand_made = rule("", &[("v2", 1)]);
    hand_made["matches"][0]["headers"] = json!([{"name": "x-canary", "value": "true"}]);
    let table: Vec<(Value, Vec<String>, Wanted, &str, &str)> = vec![
        (
            grpc,
            vec![],
            split(5),
            "RouteKindNotSupported",
            "GRPCRoute web: routes of kind GRPCRoute",
        ),
        (
            json!(null),
            vec![],
            split(5),
            "StableNotInRoute",
            "the rules hold nothing",
        ),
        (
            route(&[]),
            vec![],
            split(5),
            "StableNotInRoute",
            "HTTPRoute web: no rule sends requests to the stable backend v1:80",
        ),
        (
            route(&[rule("", &[("x", 1)])]),
            vec![],
            split(5),
            "StableNotInRoute",
            "the rules hold x:80",
        ),
        (
            route(&[v1()]),
            filter("main"),
            split(5),
            "RuleNotFound",
            "no rule is named \"main\"",
        ),
        (
            route(&[rule("main", &[("x", 1)])]),
            filter("main"),
            split(5),
            "StableNotInRule",
            "spec.rules[0] (\"main\")",
        ),
        (
            route(&[rule("a", &[("v1", 1)]), rule("a", &[("x", 1)])]),
            vec![],
            split(5),
            "RuleNameNotUnique",
            "named \"a\"",
        ),
        (
            route(&[rule("", &[("v1", 1), ("v1", 2)])]),
            vec![],
            split(5),
            "BackendTwiceInRule",
            "name v1:80 twice",
        ),
        (
            route(&[rule("", &[("v1", 1), ("v2", 0), ("v2", 0)])]),
            vec![],
            split(5),
            "BackendTwiceInRule",
            "name v2:80 twice",
        ),
        (
            route(&[v1(), rule("", &[("v1", 0), ("x", 1)])]),
            vec![],
            split(5),
            "StableWithoutWeight",
            "spec.rules[1]",
        ),
        (
            route(&[rule("", &[("v1", 9), ("v2", 1)])]),
            vec![],
            split(5),
            "CandidateHasWeight",
            "v2:80 already has weight 1",
        ),
        (
            route(&[rule("", &[("v1", 99_999), ("x", 1)])]),
            vec![],
            split(5),
            "WeightTooLarge",
            "multiplied by 100, and 9499905 is over",
        ),
        (
            route(&[backends(16)]),
            vec![],
            split(5),
            "TooManyBackends",
            "17 entries",
        ),
        (
            route(&many(9)),
            vec![],
            testers(0),
            "TooManyRules",
            "18 entries",
        ),
        (
            route(&[matches(33)]),
            vec![],
            two.clone(),
            "TooManyMatches",
            "66 matches",
        ),
        (
            route(&[matches(44), matches(1), matches(1)]),
            vec![],
            Wanted::Split {
                weight: 0,
                headers: vec![canary("a")],
            },
            "ok",
            "",
        ),
        (
            route(&[matches(60), matches(5)]),
            vec![],
            testers(0),
            "TooManyMatches",
            "130 matches in all",
        ),
        (
            route(&[asks(sixteen)]),
            vec![],
            testers(0),
            "TooManyHeaders",
            "17 headers",
        ),
        (
            route(&[asks(json!([{"name": "X-Canary", "value": "no"}]))]),
            vec![],
            testers(0),
            "HeaderConflict",
            "\"x-canary\"",
        ),
        (
            route(&[asks(json!([{"name": "X-Canary", "value": "true"}]))]),
            vec![],
            testers(0),
            "HeaderConflict",
            "\"x-canary\"",
        ),
        (
            route(&[named_testers]),
            vec![],
            split(5),
            "RuleNameTaken",
            "serin-web-0",
        ),
        (
            route(&[v1(), hand_made]),
            vec![],
            testers(0),
            "HeaderTaken",
            "spec.rules[1]",
        ),
    ];
    let (stable, candidate) = (backend("v1"), backend("v2"));
    for (route, rules, wanted, reason, words) in table {
        let frame = frame(&rules, &stable, &candidate);
        match survey(&route, &frame, &[wanted]) {
            Ok(_) => assert_eq!(reason, "ok"),
            Err(error) => {
                assert_eq!(error.reason(), reason, "{error}");
                assert!(
                    error.to_string().contains(words),
                    "{words:?} is not in: {error}"
                );
            }
        }
    }
    let frame = frame(&[], &stable, &stable);
    assert_eq!(
        survey(&route(&[v1()]), &frame, &[]).unwrap_err().reason(),
        "SameBackend"
    );
}
