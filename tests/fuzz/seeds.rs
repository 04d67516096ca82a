//! Good inputs with every field said, which the mutations start from.

use serde_json::{Value, json};

/// A Canary in the middle of a release.
pub fn canary() -> Value {
    json!({
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "web", "namespace": "shop", "uid": "c1", "generation": 3, "annotations": {"serin.dev/approve": "v2/1"}},
        "spec": {
            "target": {"backend": {"group": "", "kind": "Service", "name": "v2", "namespace": "shop", "port": 80}},
            "routes": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web", "rules": ["main"]}],
            "steps": [
                {"headers": [{"name": "x-canary", "value": "true", "and": [{"name": "x-team", "value": "qa", "type": "RegularExpression"}]}], "hold": "1m"},
                {"weight": 10, "hold": "20s", "deadline": "5m", "onDeadline": "RollBack", "minRequests": 10},
                {"weight": 50, "hold": "2m", "approval": true, "headers": []},
            ],
            "analysis": {
                "errorRate": {"max": "1%", "vsStable": {"maxRatio": "1.5"}, "onNoData": "RollBack", "onError": "Ignore"},
                "metrics": [{"name": "queue", "query": "sum(queue{ns=\"{{ namespace }}\"})", "max": "100", "min": "-3.5", "failureLimit": 3, "onNoData": "Ignore", "onError": "RollBack"}],
                "interval": "10s",
            },
            "paused": false,
            "alerts": [{"providerRef": {"name": "oncall"}, "events": EVENTS}],
        },
        "status": status(),
    })
}

const EVENTS: [&str; 10] = [
    "Started",
    "StepReached",
    "WaitingForApproval",
    "Stalled",
    "RolledBack",
    "Promoted",
    "Aborted",
    "Superseded",
    "DataLost",
    "RouteContested",
];

fn status() -> Value {
    let backend = |name: &str| json!({"group": "", "kind": "Service", "name": name, "namespace": "shop", "port": 80});
    let arm = |requests: u64, failed: u64| json!({"requests": requests, "failed": failed});
    let counts = json!({"canary": arm(212, 9), "stable": arm(1904, 4)});
    let at = "2026-01-01T00:00:00Z";
    let test =
        json!({"wealth": [0.1, -0.2, 0.3, -40.0, 1.0, 2.0, 0.0], "spent": 0.75, "peak": 0.5});
    let mut plan = json!({"steps": [{"weight": 10, "hold": "20s", "minRequests": 5}, {"weight": 50, "hold": "20s", "deadline": "1m", "onDeadline": "RollBack"}]});
    plan["analysis"] = json!({
        "errorRate": {"max": "1%", "vsStable": {}},
        "metrics": [{"name": "queue", "query": "sum(queue)", "max": "100", "failureLimit": 2}],
        "interval": "1s",
    });
    json!({
        "observedGeneration": 2,
        "phase": "Progressing",
        "step": "1/2",
        "weight": 10,
        "revision": "v2-00000000",
        "verdict": "NoHarm",
        "message": "10% to v2",
        "stable": {"revision": "v1-00000000", "backend": backend("v1"), "contestedBy": backend("v3")},
        "refused": "v3-00000000",
        "release": {
            "revision": revision("v2"),
            "candidate": backend("v2"),
            "startedAt": at,
            "endedAt": at,
            "stage": "Stepping",
            "outcome": "RolledBack",
            "reason": "stopped by hand",
            "plan": plan,
            "step": {
                "index": 0, "enteredAt": at, "acceptedAt": at, "clockMillis": 5000, "clockSince": at, "requestsBefore": 3,
                "samples": 4, "pausedMillis": 10, "pausedSince": at, "stalled": false, "blindSince": at, "blindTold": false,
            },
            "approved": [1, 2],
            "promote": false,
            "counts": counts,
            "excessFailures": 8,
            "checks": [
                {"name": "errorRate", "verdict": "NoHarm", "value": "4.2%", "limit": "1%", "message": "9 of 212", "at": at, "counts": counts,
                 "evidence": 0.5, "failures": 1, "relative": test, "absolute": test, "absoluteStable": test, "seen": {"told": 0.1, "canary": 212, "stable": 1904}},
                {"name": "queue", "verdict": "CannotTell", "message": "queue is 7", "at": at, "failures": 1},
            ],
            "counters": {"at": at, "series": {"co.1f2e3d4c@9a8b7c6d": 203, "cf.1f2e3d4c@9a8b7c6d": 9, "so.5a5b5c5d@9a8b7c6d": 1900}},
            "timeline": [{"at": at, "weight": 10, "canary": arm(1, 0), "stable": arm(9, 0), "evidence": 0.1}],
        },
        "routes": [record()],
        "history": [{"revision": "v0-00000000", "backend": backend("v0"), "outcome": "Superseded", "reason": "a newer one", "startedAt": at, "endedAt": at, "excessFailures": 2}],
        "obeyed": [{"verb": "approve", "value": "v2/1"}],
        "outbox": [{"id": "a", "provider": "oncall", "event": "Started", "at": at, "revision": "v2-00000000", "message": "begins", "check": {"name": "errorRate", "value": "1%", "limit": "2%", "counts": counts}}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": 1, "lastTransitionTime": at}],
    })
}

fn revision(name: &str) -> String {
    let backend: serin::api::Backend =
        serde_json::from_value(json!({"name": name, "namespace": "shop", "port": 80})).unwrap();
    backend.revision()
}

/// What is recorded of [`route`] before a release.
pub fn record() -> Value {
    json!({
        "kind": "HTTPRoute", "name": "web", "uid": "u1",
        "rules": [
            {"name": "main", "index": 0, "weights": [3, 1], "backends": [revision("v1"), revision("x")], "spelled": ["group", "kind", "namespace"], "factor": 100},
            {"index": 1, "weights": [null], "backends": [revision("v1")], "factor": 100},
        ],
        "headers": [{"name": "x-canary", "value": "true", "and": [{"name": "x-team", "value": "qa"}]}],
    })
}

/// A route as it is when a release begins.
pub fn route() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "generation": 2, "labels": {"a": "b"}},
        "spec": {
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "namespace": "infra", "sectionName": "web", "port": 80}],
            "hostnames": ["example.com"],
            "rules": [
                {"name": "main", "matches": [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"type": "Exact", "name": "a", "value": "b"}]}],
                 "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}],
                 "backendRefs": [{"group": "", "kind": "Service", "namespace": "shop", "name": "v1", "port": 80, "weight": 3}, {"name": "x", "port": 80, "weight": 1}],
                 "timeouts": {"request": "10s"}},
                {"backendRefs": [{"name": "v1", "port": 80}]},
                {"name": "split", "matches": [{}], "backendRefs": [{"name": "v1", "port": 80, "weight": 90}, {"name": "v2", "port": 80, "weight": 0}]},
                {"name": "serin-web-0", "matches": [{"headers": [{"name": "x-canary", "value": "true"}]}], "backendRefs": [{"name": "v2", "port": 80}]},
            ],
        },
        "status": {"parents": [{
            "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "namespace": "infra", "sectionName": "web", "port": 80},
            "controllerName": "traefik.io/gateway-controller",
            "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": 2},
                {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": "", "observedGeneration": 2},
                {"type": "PartiallyInvalid", "status": "False", "reason": "x", "message": "y", "observedGeneration": 2},
            ],
        }]},
    })
}

pub fn provider() -> Value {
    json!({
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "AlertProvider",
        "metadata": {"name": "oncall", "namespace": "shop"},
        "spec": {"webhook": {
            "urlFrom": {"name": "oncall", "key": "url"},
            "headers": [{"name": "Authorization", "valueFrom": {"name": "oncall", "key": "token"}}],
        }},
    })
}
