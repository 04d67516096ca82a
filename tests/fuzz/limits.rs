//! Inputs at the limits, and beyond: handled or refused.

use crate::mutate::Rng;
use crate::seeds;
use serde_json::{Value, json};
use serin::api::{AlertProvider, Canary, CanaryStatus, RouteRecord, Wanted};
use serin::metrics::answer;
use serin::traffic::{self, Frame};

/// What a decision leaves is bounded, whatever it was given.
pub fn bounded(status: &CanaryStatus) {
    let text = |text: &str| {
        let json = serde_json::to_string(text).unwrap();
        assert!(
            json.len() <= 1_026 && !text.contains(char::is_control),
            "{json}"
        );
    };
    text(&status.message);
    assert!(
        status.history.len() <= 10 && status.outbox.len() <= 32 && status.conditions.len() <= 5
    );
    status.history.iter().for_each(|past| text(&past.reason));
    status
        .conditions
        .iter()
        .for_each(|condition| text(&condition.message));
    status.outbox.iter().for_each(|alert| text(&alert.message));
    assert!(
        status
            .obeyed
            .iter()
            .all(|command| command.value.len() <= 1_024)
    );
    let Some(release) = &status.release else {
        return;
    };
    assert!(
        release.timeline.len() <= 64
            && release.checks.len() <= 1 + release.plan.analysis.metrics.len()
    );
    release.reason.iter().for_each(|reason| text(reason));
    release.checks.iter().for_each(|check| text(&check.message));
}

#[test]
fn json_that_is_nested_too_deep_is_refused() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        assert!(serde_json::from_str::<Canary>(&deep).is_err());
        assert!(serde_json::from_str::<AlertProvider>(&deep).is_err());
        assert!(serde_json::from_str::<Value>(&deep).is_err());
        let within =
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{deep}}}}}"#);
        assert!(
            answer::parse(within.as_bytes())
                .unwrap_err()
                .contains("recursion limit")
        );
    }
    // As deep as it goes: read, written and patched like any other.
    let deepest: Value =
        serde_json::from_str(&format!("{}1{}", "[".repeat(100), "]".repeat(100))).unwrap();
    let mut route = seeds::route();
    route["spec"]["rules"][0]["deep"] = deepest.clone();
    let result = split(&route, 5).unwrap();
    assert_eq!(result["spec"]["rules"][0]["deep"], deepest);
}

/// The route with a percent of v1's share for v2, or the refusal.
fn split(route: &Value, weight: u8) -> Result<Value, String> {
    let backend = |name: &str| {
        serde_json::from_value(json!({"name": name, "namespace": "shop", "port": 80})).unwrap()
    };
    let (stable, candidate) = (backend("v1"), backend("v2"));
    let frame = Frame {
        owner: "web",
        namespace: "shop",
        rules: &[],
        stable: &stable,
        candidate: &candidate,
    };
    let wanted = Wanted::Split {
        weight,
        headers: vec![],
    };
    let splits = [wanted.clone()];
    let record = traffic::survey(route, &frame, &splits).map_err(|error| error.to_string())?;
    serde_json::from_value::<RouteRecord>(serde_json::to_value(&record).unwrap()).unwrap();
    let change =
        traffic::plan(route, &frame, &record, &wanted).map_err(|error| error.to_string())?;
    Ok(change.map_or_else(|| route.clone(), |change| change.result))
}

/// A route of 16 rules with 15 backends and 64 matches each, all names as long as they may be.
fn largest(rng: &mut Rng) -> Value {
    let long = |n: usize| format!("{}{n:03}", "名".repeat(250));
    let rules: Vec<Value> = (0..16)
        .map(|rule| {
            let refs: Vec<Value> = std::iter::once(json!({"name": "v1", "port": 80, "weight": 7}))
                .chain(
                    (1..15).map(|n| json!({"name": long(n), "port": 80, "weight": rng.below(100)})),
                )
                .collect();
            let matches: Vec<Value> = (0..64)
                .map(|n| json!({"path": {"type": "Exact", "value": format!("/{rule}/{n}/🐤")}}))
                .collect();
            json!({"name": long(rule), "matches": matches, "backendRefs": refs})
        })
        .collect();
    let mut route = seeds::route();
    route["metadata"]["name"] = json!("a".repeat(253));
    route["spec"]["rules"] = json!(rules);
    route
}

#[test]
fn the_largest_route_is_split() {
    let route = largest(&mut Rng::new(1));
    let result = split(&route, 50).unwrap();
    for rule in result["spec"]["rules"].as_array().unwrap() {
        assert_eq!(rule["backendRefs"].as_array().unwrap().len(), 16);
        assert_eq!(rule["matches"].as_array().unwrap().len(), 64);
    }
}

#[test]
fn a_query_is_checked_in_time_whatever_it_is() {
    let begun = std::time::Instant::now();
    for part in [
        "(",
        "-",
        "sum(",
        "1+",
        "a{",
        "[",
        "\"",
        "{{ name }}",
        "x or ",
        "🐤",
    ] {
        let query: String = part.repeat(4_096).chars().take(4_096).collect();
        let _ = serin::metrics::check(&query);
    }
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}
