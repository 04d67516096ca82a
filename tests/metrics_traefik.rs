//! The series of Traefik: the query for them, and what each of them counts.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use chrono::TimeDelta;
use serin::analysis::{Arm, Reading};
use serin::api::{Backend, RouteKind, Time};
use serin::metrics::profile::{ReadError, RouteTarget, profile};
use serin::metrics::template::check;
use serin::metrics::{Answer, Data, Sample};
use std::collections::{BTreeMap, BTreeSet};

fn now() -> Time {
    Time::from_timestamp(1_700_000_000, 0).unwrap()
}

fn backend(name: &str, namespace: Option<&str>, port: u16) -> Backend {
    Backend {
        group: String::new(),
        kind: "Service".into(),
        name: name.into(),
        namespace: namespace.map(Into::into),
        port,
    }
}

fn target() -> RouteTarget {
    RouteTarget {
        kind: RouteKind::HTTPRoute,
        namespace: "shop".into(),
        name: "check.out".into(),
        stable: backend("api", None, 8080),
        canary: backend("api-1", None, 8080),
        skip_rules: vec![],
    }
}

const HASH: &str = "0123456789abcdef0123";

fn new_label(route: &str, rule: usize, service: &str, index: usize) -> String {
    format!(
        "httproute-{route}-gw-infra-public-ep-web-2-{rule}-{HASH}-svc-{service}-{index}@kubernetesgateway"
    )
}

fn series(service: &str, code: &str, protocol: &str, instance: &str, value: f64) -> Sample {
    let labels = [
        ("service", service),
        ("code", code),
        ("protocol", protocol),
        ("instance", instance),
    ];
    Sample {
        labels: BTreeMap::from(labels.map(|(k, v)| (k.into(), v.into()))),
        value,
        at: now(),
    }
}

fn read(target: &RouteTarget, samples: Vec<Sample>) -> Result<Reading, ReadError> {
    let answer = Answer {
        data: Data::Vector(samples),
        warnings: vec![],
    };
    traefik().read(target, &answer, now())
}

fn traefik() -> &'static serin::metrics::profile::Profile {
    profile("traefik.io/gateway-controller").unwrap()
}

fn arm_of(target: &RouteTarget, label: &str) -> Option<Arm> {
    let reading = read(target, vec![series(label, "200", "http", "a", 1.0)]).unwrap();
    reading.series.first().map(|s| s.arm)
}

#[test]
fn profiles_are_chosen_by_controller() {
    assert_eq!(traefik().name, "Traefik");
    assert_eq!(traefik().settle, TimeDelta::seconds(3));
    assert!(profile("example.com/unknown").is_none());
}

#[test]
fn the_query_for_traefik_is_promql_and_finds_what_the_reader_takes() {
    let target = target();
    let query = traefik().requests(&target);
    assert_eq!(check(&query), Ok(()));
    assert_eq!(
        query,
        r#"sum by (service, code, protocol, instance) (traefik_service_requests_total{service=~"(httproute-shop-check-out-gw-.+-ep-.+-[0-9]+-[0-9a-f]{20}-svc-(shop-api|shop-api-1)-[0-9]+|shop-api-http-8080|shop-api-1-http-8080)@kubernetesgateway"})"#
    );
}

#[test]
fn labels_of_traefik() {
    let target = target();
    let table = [
        (
            new_label("shop-check-out", 0, "shop-api", 0),
            Some(Arm::Stable),
        ),
        (
            new_label("shop-check-out", 0, "shop-api-1", 1),
            Some(Arm::Canary),
        ),
        (
            new_label("shop-check-out", 12, "shop-api", 10),
            Some(Arm::Stable),
        ),
        // Ends like one of ours, and is not.
        (new_label("shop-check-out", 0, "shop-api-1-1", 1), None),
        (new_label("shop-check-out", 0, "other-shop-api", 0), None),
        (new_label("shop-check-out", 0, "x-3-svc-shop-api", 0), None),
        (new_label("shop-other", 0, "shop-api", 0), None),
        (new_label("my-shop-check-out", 0, "shop-api", 0), None),
        (
            "shop-api-http-8080@kubernetesgateway".into(),
            Some(Arm::Stable),
        ),
        (
            "shop-api-1-http-8080@kubernetesgateway".into(),
            Some(Arm::Canary),
        ),
        ("shop-api-http-9090@kubernetesgateway".into(), None),
        ("shop-api-http-8080@kubernetescrd".into(), None),
        (
            format!("{}-wrr", new_label("shop-check-out", 0, "shop-api", 0)),
            None,
        ),
        ("@kubernetesgateway".into(), None),
        (String::new(), None),
        (
            "httproute-shop-check-out-gw--svc-shop-api-0@kubernetesgateway".into(),
            None,
        ),
        (
            "httproute-shop-check-out-gw-a-b-ep-web-0-é-svc-shop-api-0@kubernetesgateway".into(),
            None,
        ),
    ];
    for (label, arm) in table {
        assert_eq!(arm_of(&target, &label), arm, "{label}");
    }
}

#[test]
fn backends_in_other_namespaces() {
    let target = RouteTarget {
        stable: backend("api", Some("blue"), 80),
        canary: backend("api", Some("green"), 80),
        ..target()
    };
    assert_eq!(
        arm_of(&target, &new_label("shop-check-out", 0, "blue-api", 0)),
        Some(Arm::Stable)
    );
    assert_eq!(
        arm_of(&target, &new_label("shop-check-out", 0, "green-api", 1)),
        Some(Arm::Canary)
    );
    assert_eq!(
        arm_of(&target, &new_label("shop-check-out", 0, "shop-api", 1)),
        None
    );
}

#[test]
fn testers_by_header_do_not_count() {
    let target = RouteTarget {
        skip_rules: vec![2, 3],
        ..target()
    };
    for (rule, counts) in [(0, true), (1, true), (2, false), (3, false), (23, true)] {
        let arm = arm_of(&target, &new_label("shop-check-out", rule, "shop-api-1", 0));
        assert_eq!(arm.is_some(), counts, "rule {rule}");
    }
}

#[test]
fn backends_that_cannot_be_told_apart() {
    let ports = RouteTarget {
        canary: backend("api", None, 9090),
        ..target()
    };
    let error = read(&ports, vec![]).unwrap_err();
    assert_eq!(error.reason(), "BackendsInseparable");
    assert_eq!(
        error.to_string(),
        "Traefik counts api:8080 and api:9090 in one series, so they cannot be told apart; give each version a Service of its own name"
    );
    let mut import = target();
    import.canary.kind = "ServiceImport".into();
    assert_eq!(
        read(&import, vec![]).unwrap_err().reason(),
        "BackendKindUnknown"
    );
    let scalar = Answer {
        data: Data::String("x".into()),
        warnings: vec![],
    };
    let error = traefik().read(&target(), &scalar, now()).unwrap_err();
    assert_eq!(error, ReadError::Type("string"));
}

#[test]
fn codes_that_are_failures() {
    let label = new_label("shop-check-out", 0, "shop-api", 0);
    for (protocol, code, failed) in [
        ("http", "200", false),
        ("http", "404", false),
        ("http", "499", false),
        ("http", "500", true),
        ("http", "503", true),
        ("http", "599", true),
        ("http", "0", false),
        ("http", "14", false),
        ("sse", "502", true),
        ("websocket", "101", false),
        ("grpc", "0", false),
        ("grpc", "1", false),
        ("grpc", "2", true),
        ("grpc", "5", false),
        ("grpc", "14", true),
        ("grpc-web", "13", true),
        ("grpc", "500", false),
        ("http", "", false),
    ] {
        let reading = read(&target(), vec![series(&label, code, protocol, "a", 1.0)]).unwrap();
        assert_eq!(reading.series[0].failed, failed, "{protocol} {code}");
    }
}

#[test]
fn series_are_summed_by_process_and_outcome() {
    let stable = new_label("shop-check-out", 0, "shop-api", 0);
    let canary = new_label("shop-check-out", 0, "shop-api-1", 1);
    let reading = read(
        &target(),
        vec![
            series(&stable, "200", "http", "10.0.0.1:9100", 100.0),
            series(&stable, "404", "http", "10.0.0.1:9100", 5.0),
            series(&stable, "500", "http", "10.0.0.1:9100", 2.0),
            series(&stable, "502", "http", "10.0.0.1:9100", 1.0),
            series(&stable, "200", "http", "10.0.0.2:9100", 7.0),
            series(&canary, "200", "http", "10.0.0.1:9100", f64::NAN),
            series(&canary, "500", "http", "10.0.0.1:9100", 9.0),
        ],
    )
    .unwrap();
    assert_eq!(reading.at, now());
    let seen: Vec<_> = reading
        .series
        .iter()
        .map(|s| (s.arm, s.failed, s.value))
        .collect();
    assert_eq!(seen.len(), 4);
    for want in [
        (Arm::Stable, false, 105.0),
        (Arm::Stable, true, 3.0),
        (Arm::Stable, false, 7.0),
        (Arm::Canary, true, 9.0),
    ] {
        assert!(seen.contains(&want), "{want:?} of {seen:?}");
    }
    let processes: BTreeSet<_> = reading
        .series
        .iter()
        .map(|s| s.key.rsplit_once('@').unwrap().1)
        .collect();
    assert_eq!(processes.len(), 2);
    assert!(reading.series.iter().all(|s| s.key.len() <= 20));
    assert_eq!(read(&target(), vec![]).unwrap().series, []);
}
