//! What a Prometheus answers, or whatever else is at its address.

use crate::mutate::{self, Rng, fuzz};
use chrono::{TimeDelta, TimeZone, Utc};
use serde_json::{Value, json};
use serin::analysis::{ErrorLimits, MetricLimits, Window, advance, judge_error_rate, judge_metric};
use serin::api::{ArmCounts, Backend, CheckStatus, Counters, RouteKind};
use serin::metrics::answer::{Body, parse};
use serin::metrics::{Answer, RouteTarget, profile, single};

const HASH: &str = "0123456789abcdef0123";

#[test]
fn answers() {
    let target = target();
    let plane = profile("traefik.io/gateway-controller").unwrap();
    fuzz("answers", |rng| {
        let mut now = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        let mut counters: Option<Counters> = None;
        let mut check: Option<CheckStatus> = None;
        let mut metric: Option<CheckStatus> = None;
        let mut total = ArmCounts::default();
        let limits = *rng.pick(&[
            ErrorLimits {
                max: Some(0.01),
                max_ratio: Some(1.25),
            },
            ErrorLimits {
                max: Some(0.0),
                max_ratio: None,
            },
            ErrorLimits {
                max: None,
                max_ratio: Some(1e300),
            },
            ErrorLimits {
                max: None,
                max_ratio: None,
            },
        ]);
        for _ in 0..5 {
            let Some(answer) = odd(rng) else { continue };
            let measured = single(&answer);
            let bounds = MetricLimits {
                name: "queue",
                min: Some(-1e300),
                max: Some(100.0),
                failure_limit: 2,
            };
            metric = Some(judge_metric(&bounds, metric.as_ref(), &measured, now));
            readable(metric.as_ref());
            let Ok(reading) = plane.read(&target, &answer, now) else {
                continue;
            };
            let (next, delta) = advance(counters.as_ref(), &reading);
            counters = Some(next);
            readable(counters.as_ref());
            let sum = total + delta;
            assert!(
                sum.canary.requests >= total.canary.requests
                    && sum.stable.requests >= total.stable.requests,
                "counts shrank"
            );
            assert!(
                delta.canary.failed <= delta.canary.requests
                    && delta.stable.failed <= delta.stable.requests
            );
            let window = Window {
                delta,
                share: *rng.pick(&[0.0, 0.1, 0.5, 1.0]),
                baseline: rng.chance(50).then_some(total.stable),
            };
            total = sum;
            check = Some(judge_error_rate(&limits, check.as_ref(), &window, now));
            readable(check.as_ref());
            now += TimeDelta::seconds(10);
        }
    });
}

/// What is written can be read: there is no NaN and no infinity in it.
fn readable<T: serde::Serialize + serde::de::DeserializeOwned>(state: Option<&T>) {
    let text = serde_json::to_string(&state).unwrap();
    let _: Option<T> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(!text.contains(":null") && !text.contains("null,"), "{text}");
}

fn backend(name: &str) -> Backend {
    serde_json::from_value(json!({"name": name, "port": 80})).unwrap()
}

fn target() -> RouteTarget {
    RouteTarget {
        kind: RouteKind::HTTPRoute,
        namespace: "shop".into(),
        name: "web".into(),
        stable: backend("v1"),
        canary: backend("v2"),
        skip_rules: vec![3],
    }
}

fn odd(rng: &mut Rng) -> Option<Answer> {
    let seed = match rng.below(6) {
        0 => {
            json!({"status": "error", "errorType": "execution", "error": "too many", "warnings": ["x"]})
        }
        1 => json!({"status": "success", "data": {"resultType": "scalar", "result": [1.5, "7"]}}),
        2 => {
            json!({"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "1"], [2, "NaN"]]}]}})
        }
        _ => vector(rng),
    };
    let mut value = seed.clone();
    if rng.chance(80) {
        mutate::trees(rng, &mut value, &seed, |value| {
            parse(value.to_string().as_bytes()).is_ok()
        });
    }
    let mut bytes = value.to_string().into_bytes();
    if rng.chance(10) {
        mutate::bytes(rng, &mut bytes);
    }
    match parse(&bytes) {
        Ok(Body::Answer(answer)) => Some(answer),
        Ok(Body::Refusal { .. }) => None,
        Err(why) => {
            assert!(!why.is_empty());
            None
        }
    }
}

fn vector(rng: &mut Rng) -> Value {
    let series: Vec<Value> = (0..rng.below(8))
        .map(|_| {
            let service = rng.pick(&["v1", "v2", "v3"]);
            let label = match rng.below(8) {
                0 => format!("shop-{service}-http-80@kubernetesgateway"),
                1 => mutate::word(rng) + "@kubernetesgateway",
                _ => format!(
                    "httproute-shop-web-gw-infra-gw-ep-web-{}-{HASH}-svc-shop-{service}-0@kubernetesgateway",
                    rng.below(5)
                ),
            };
            let value = match rng.below(6) {
                0 => mutate::word(rng),
                1 => (*rng.pick(&["NaN", "+Inf", "-Inf", "-5", "1e308", "1e-308", "0.5"])).into(),
                _ => rng.below(100_000).to_string(),
            };
            json!({
                "metric": {
                    "service": label,
                    "code": rng.pick(&["200", "503", "499", "2", "14", "", "999999"]),
                    "protocol": rng.pick(&["http", "grpc", ""]),
                    "instance": rng.pick(&["a", "b", "🐤", ""]),
                },
                "value": [1_767_225_600.123, value],
            })
        })
        .collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": series}})
}
