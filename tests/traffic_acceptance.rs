//! What a route's parents say, by the Gateway API's status contract.

use serde_json::{Value, json};
use serin::api::GATEWAY_GROUP;
use serin::traffic::{Acceptance, acceptance, controllers};

const C: &str = "traefik.io/gateway-controller";

fn on(kind: &str, status: &str, generation: i64, reason: &str) -> Value {
    json!({"type": kind, "status": status, "observedGeneration": generation, "reason": reason, "message": "m"})
}

fn entry(parent: Value, controller: &str, conditions: &[Value]) -> Value {
    json!({"parentRef": parent, "controllerName": controller, "conditions": conditions})
}

fn route(parents: &[Value], status: &[Value]) -> Value {
    json!({
        "metadata": {"namespace": "shop", "generation": 3},
        "spec": {"parentRefs": parents},
        "status": {"parents": status},
    })
}

/// One word for an answer: `accepted`, `pending`, or the condition that refuses and its reason.
fn word(acceptance: &Acceptance) -> String {
    match acceptance {
        Acceptance::Accepted => "accepted".into(),
        Acceptance::Pending { .. } => "pending".into(),
        Acceptance::Refused {
            condition, reason, ..
        } => format!("{condition}/{reason}"),
    }
}

#[test]
fn one_parent() {
    let yes = |generation| {
        vec![
            on("Accepted", "True", generation, "Accepted"),
            on("ResolvedRefs", "True", generation, "ResolvedRefs"),
        ]
    };
    let with = |mut conditions: Vec<Value>, more: Value| {
        conditions.push(more);
        conditions
    };
    let table = [
        ("both at this generation", yes(3), "accepted"),
        ("a later one", yes(4), "accepted"),
        ("an older one", yes(2), "pending"),
        ("no conditions", vec![], "pending"),
        ("one that is no object", vec![json!(1)], "pending"),
        ("no ResolvedRefs", yes(3)[..1].to_vec(), "pending"),
        ("no Accepted", yes(3)[1..].to_vec(), "pending"),
        (
            "nobody owns it",
            vec![on("Accepted", "Unknown", 3, "Pending")],
            "pending",
        ),
        (
            "refused before",
            vec![on("Accepted", "False", 2, "NoMatchingParent")],
            "pending",
        ),
        (
            "refused",
            vec![
                on("Accepted", "False", 3, "NotAllowedByListeners"),
                yes(3)[1].clone(),
            ],
            "Accepted/NotAllowedByListeners",
        ),
        (
            "refused while ResolvedRefs is late",
            vec![on("Accepted", "False", 3, "UnsupportedValue")],
            "Accepted/UnsupportedValue",
        ),
        (
            "a backend is missing",
            vec![
                yes(3)[0].clone(),
                on("ResolvedRefs", "False", 3, "BackendNotFound"),
            ],
            "ResolvedRefs/BackendNotFound",
        ),
        (
            "a rule is dropped",
            with(
                yes(3),
                on("PartiallyInvalid", "True", 3, "UnsupportedValue"),
            ),
            "PartiallyInvalid/UnsupportedValue",
        ),
        (
            "fallen back to the last good generation",
            with(
                yes(2),
                on("PartiallyInvalid", "True", 3, "UnsupportedValue"),
            ),
            "PartiallyInvalid/UnsupportedValue",
        ),
        (
            "partially invalid before",
            with(
                yes(3),
                on("PartiallyInvalid", "True", 2, "UnsupportedValue"),
            ),
            "accepted",
        ),
        (
            "what only one plane writes",
            with(
                yes(3),
                on("BackendsAvailable", "False", 3, "EndpointsNotFound"),
            ),
            "accepted",
        ),
    ];
    for (what, conditions, expected) in table {
        // The status spells out what the spec leaves to the defaults, or the other way round.
        let short = json!({"name": "web"});
        let long =
            json!({"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": "shop", "name": "web"});
        for (spec, status) in [(&short, &long), (&long, &short)] {
            let status = entry(status.clone(), C, &conditions);
            let route = route(std::slice::from_ref(spec), &[status]);
            assert_eq!(word(&acceptance(&route)), expected, "{what}");
            assert_eq!(controllers(&route), [C]);
        }
    }
}

#[test]
fn several_parents_and_controllers() {
    let (web, lan) = (
        json!({"name": "web"}),
        json!({"name": "lan", "sectionName": "http"}),
    );
    let both = [web.clone(), lan.clone()];
    let yes = [
        on("Accepted", "True", 3, "Accepted"),
        on("ResolvedRefs", "True", 3, "ResolvedRefs"),
    ];
    let no = [on("Accepted", "False", 3, "NoMatchingParent")];
    let late = [on("Accepted", "True", 2, "Accepted")];
    let unknown = [on("Accepted", "Unknown", 3, "Pending")];
    let e = |parent: &Value, controller, conditions: &[Value]| {
        entry(parent.clone(), controller, conditions)
    };
    let table = [
        (
            "all accept",
            route(&both, &[e(&web, C, &yes), e(&lan, C, &yes)]),
            "accepted",
        ),
        (
            "one is silent",
            route(&both, &[e(&web, C, &yes)]),
            "pending",
        ),
        (
            "another section answers",
            route(
                &both,
                &[e(&web, C, &yes), e(&json!({"name": "lan"}), C, &yes)],
            ),
            "pending",
        ),
        (
            "one refuses, one is late",
            route(&both, &[e(&web, C, &late), e(&lan, C, &no)]),
            "Accepted/NoMatchingParent",
        ),
        (
            "a controller that has left",
            route(&both[..1], &[e(&web, "old", &late), e(&web, C, &yes)]),
            "accepted",
        ),
        (
            "two controllers, one undecided",
            route(&both[..1], &[e(&web, C, &yes), e(&web, "b", &unknown)]),
            "pending",
        ),
        (
            "two controllers, one refuses",
            route(&both[..1], &[e(&web, "b", &no), e(&web, C, &yes)]),
            "Accepted/NoMatchingParent",
        ),
        ("no parents", route(&[], &[]), "pending"),
        (
            "parents in the status only",
            route(&[], &[e(&web, C, &yes)]),
            "accepted",
        ),
        (
            "an answer for a parent that was removed",
            route(&both[..1], &[e(&web, C, &yes), e(&lan, C, &no)]),
            "accepted",
        ),
    ];
    for (what, route, expected) in table {
        assert_eq!(word(&acceptance(&route)), expected, "{what}");
    }
}

#[test]
fn a_silent_parent_is_named() {
    let route = route(
        &[json!({"name": "web", "namespace": "infra", "sectionName": "https"})],
        &[],
    );
    let Acceptance::Pending { parent, message } = acceptance(&route) else {
        panic!("nobody has answered");
    };
    assert_eq!(parent, "Gateway infra/web section https");
    assert_eq!(message, format!("no controller has answered for {parent}"));
}
