//! Routes as anyone may write them, and records as status may hold them.

use crate::mutate::{self, Rng, fuzz};
use crate::seeds;
use serde::Deserialize;
use serde_json::{Value, json};
use serin::api::{Backend, HeaderRule, RouteRecord, Wanted};
use serin::traffic::{self, Frame};

/// A member that no version of the API has; it must stay wherever it stands.
const UNKNOWN: &str = "notYetInvented";

#[test]
fn routes() {
    let seed = seeds::route();
    let known = json!({"route": seeds::route(), "record": seeds::record()});
    fuzz("routes", |rng| {
        let mut route = seed.clone();
        mutate::trees(rng, &mut route, &known, |_| true);
        let mut record = seeds::record();
        mutate::trees(rng, &mut record, &known, |value| {
            RouteRecord::deserialize(value).is_ok()
        });
        if rng.chance(50) {
            mark(&mut route);
        }
        manage(rng, &route, serde_json::from_value(record).ok());
    });
}

fn manage(rng: &mut Rng, route: &Value, record: Option<RouteRecord>) {
    let names = ["v1", "v2", "x", ""];
    let backend = |rng: &mut Rng| Backend {
        group: String::new(),
        kind: "Service".into(),
        name: (*rng.pick(&names)).into(),
        namespace: Some("shop".into()),
        port: *rng.pick(&[80, 80, 80, 0]),
    };
    let (stable, candidate) = match rng.chance(80) {
        true => (named("v1"), named("v2")),
        false => (backend(rng), backend(rng)),
    };
    let rules: Vec<String> = match rng.below(4) {
        0 => vec!["main".into(), mutate::word(rng)],
        1 => vec!["main".into()],
        _ => Vec::new(),
    };
    let long = mutate::word(rng);
    let owner = if rng.chance(80) { "web" } else { &long };
    let frame = Frame {
        owner,
        namespace: "shop",
        rules: &rules,
        stable: &stable,
        candidate: &candidate,
    };
    let _ = traffic::first_sight(&[(route, &rules)], &candidate, "shop");
    let _ = traffic::holds(route, &rules, "shop");
    let _ = traffic::acceptance(route);
    for parent in traffic::parents(route) {
        let _ = (parent.to_string(), parent.gateway().is_some());
    }
    let _ = traffic::controllers(route);

    let splits: Vec<Wanted> = (0..3).map(|_| wanted(rng)).collect();
    match traffic::survey(route, &frame, &splits) {
        Ok(found) if plain(route) => {
            let mut now = route.clone();
            for wanted in &splits {
                now = apply(&now, &frame, &found, wanted).unwrap_or(now);
            }
            now = apply(&now, &frame, &found, &Wanted::Stable).unwrap_or(now);
            let (now, before) = (without_ours(now, owner), without_ours(route.clone(), owner));
            assert!(
                now == before,
                "it was not given back as it was found: {before}\nis now {now}\nafter {splits:?}"
            );
        }
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
    }
    if let Some(record) = record {
        let mut now = route.clone();
        for wanted in splits.iter().chain([&Wanted::Candidate, &Wanted::Stable]) {
            let _ = traffic::split_and_added_rules(&now, &frame, &record, wanted);
            now = apply(&now, &frame, &record, wanted).unwrap_or(now);
        }
    }
}

/// Whether the references are such as an API server lets pass.
fn plain(route: &Value) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let weight = |reference: &Value| match reference.get("weight") {
        None => true,
        Some(weight) => weight.as_u64().is_some_and(|weight| weight <= 1_000_000),
    };
    let fields = |reference: &Value| {
        ["group", "kind", "namespace", "name"]
            .iter()
            .all(|field| reference.get(field).is_none_or(Value::is_string))
    };
    list(&route["spec"]["rules"])
        .iter()
        .flat_map(|rule| list(&rule["backendRefs"]))
        .all(|reference| reference.is_object() && weight(&reference) && fields(&reference))
}

fn named(name: &str) -> Backend {
    serde_json::from_value(json!({"name": name, "namespace": "shop", "port": 80})).unwrap()
}

fn wanted(rng: &mut Rng) -> Wanted {
    let header = |rng: &mut Rng| -> HeaderRule {
        let name = rng.pick(&["x-canary", "X-Canary", "a", "é"]);
        serde_json::from_value(json!({"name": name, "value": mutate::word(rng)})).unwrap()
    };
    match rng.below(8) {
        0 => Wanted::Stable,
        _ => Wanted::Split {
            weight: *rng.pick(&[0, 1, 33, 50, 99, 100, 101, 255]),
            headers: (0..rng.below(3)).map(|_| header(rng)).collect(),
        },
    }
}

/// The route after what makes it carry what is wanted; none where nothing is to do, or it cannot be.
fn apply(route: &Value, frame: &Frame<'_>, record: &RouteRecord, wanted: &Wanted) -> Option<Value> {
    let change = match traffic::plan(route, frame, record, wanted) {
        Ok(change) => change?,
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.reason().is_empty());
            return None;
        }
    };
    // As it travels: written, read, and applied by someone else.
    let text = serde_json::to_vec(&change.patch).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&text).unwrap();
    let mut after = route.clone();
    json_patch::patch(&mut after, &patch).expect("a patch applies to what it was made from");
    assert_eq!(after, change.result);
    for (path, value) in route.as_object().into_iter().flatten() {
        assert!(
            path == "spec" || after[path] == *value,
            "{path} was changed"
        );
    }
    for (name, value) in route["spec"].as_object().into_iter().flatten() {
        assert!(
            name == "rules" || after["spec"][name] == *value,
            "spec.{name} was changed"
        );
    }
    survives(route, &after, frame);
    Some(after)
}

/// Puts a member of the future into every object.
fn mark(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(mark),
        Value::Object(map) => {
            map.values_mut().for_each(mark);
            map.insert(UNKNOWN.into(), json!({"a": [1]}));
        }
        _ => {}
    }
}

/// What is unknown is still there in every rule and reference that is not ours to take away.
fn survives(before: &Value, after: &Value, frame: &Frame<'_>) {
    let rules = |route: &Value| {
        route["spec"]["rules"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let ours = format!("serin-{}-", frame.owner);
    let foreign = |rule: &&Value| {
        // An added rule is ours by its name, or, where names are dropped, by its only backend.
        let name = rule["name"].as_str();
        let refs = rule["backendRefs"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        !(name.is_some_and(|name| name.starts_with(&ours)) || refs.len() == 1 && name.is_none())
            && frame.owner.len() <= 50
    };
    let (before, after) = (rules(before), rules(after));
    for rule in before.iter().filter(foreign) {
        let rest = |rule: &Value| {
            let mut rule = rule.clone();
            if let Some(map) = rule.as_object_mut() {
                map.remove("backendRefs");
            }
            rule
        };
        let kept = after.iter().find(|new| rest(new) == rest(rule));
        assert!(kept.is_some(), "a rule of somebody else's is gone: {rule}");
    }
}

/// Rules left from a release whose record was lost are taken over, and taken away.
fn without_ours(mut route: Value, owner: &str) -> Value {
    let ours = format!("serin-{owner}-");
    if let Some(rules) = route["spec"]["rules"].as_array_mut() {
        rules.retain(|rule| {
            !rule["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(&ours))
        });
    }
    route
}
