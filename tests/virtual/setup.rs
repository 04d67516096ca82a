//! What stands in the virtual cluster before anything happens.

use crate::NAMESPACE;
use crate::api::Api;
use crate::plane::CONTROLLER;
use crate::store::Writer;
use serde_json::{Value, json};

/// Versions that can be released.
pub const VERSIONS: [&str; 5] = ["v1", "v2", "v3", "v4", "v5"];

/// What is particular to one world.
#[derive(Debug, Clone)]
pub struct Setup {
    pub canary: String,
    pub routes: Vec<String>,
    pub steps: Value,
    pub analysis: Value,
    /// Stable's weight, where the route says one, and whether a foreign backend stands beside it.
    pub weight: Option<i64>,
    pub foreign: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            canary: "shop".into(),
            routes: vec!["shop".into()],
            steps: json!([
                {"headers": [{"name": "x-canary", "value": "true"}], "hold": "3s"},
                {"weight": 10, "hold": "5s"},
                {"weight": 50, "hold": "5s"},
            ]),
            analysis: json!({"errorRate": {"max": "1%", "vsStable": {}}, "interval": "2s"}),
            weight: Some(3),
            foreign: true,
        }
    }
}

pub fn backend(name: &str) -> Value {
    json!({"name": name, "port": 8080})
}

pub fn revision(name: &str) -> String {
    let backend: serin::api::Backend = serde_json::from_value(backend(name)).unwrap();
    backend.within(NAMESPACE).revision()
}

/// All events that an alert can tell of.
pub const EVENTS: [&str; 10] = [
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

impl Setup {
    pub fn canary_object(&self, target: &str) -> Value {
        let routes: Vec<Value> = self
            .routes
            .iter()
            .map(|name| json!({"kind": "HTTPRoute", "name": name}))
            .collect();
        json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "Canary",
            "metadata": {"name": self.canary, "labels": {"team": "shop"}},
            "spec": {
                "target": {"backend": backend(target)},
                "routes": routes,
                "steps": self.steps,
                "analysis": self.analysis,
                "alerts": [{"providerRef": {"name": "oncall"}, "events": EVENTS}],
            },
        })
    }

    /// A route with a second rule, filters, timeouts, and fields that our code does not know.
    pub fn route_object(&self, name: &str) -> Value {
        let mut stable = json!({
            "group": "", "kind": "Service", "name": "v1", "port": 8080, "novelRef": {"a": [1]},
            "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-v", "value": "1"}]}}],
        });
        if let Some(weight) = self.weight {
            stable["weight"] = json!(weight);
        }
        let mut refs = vec![stable];
        if self.foreign {
            refs.push(json!({"name": "legacy", "port": 8080, "weight": 1}));
        }
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name, "labels": {"team": "shop"}, "annotations": {"note": "keep"}},
            "spec": {
                "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "namespace": "infra"}],
                "hostnames": [format!("{name}.example.com")],
                "novel": {"deep": [{"er": true}]},
                "rules": [
                    {
                        "name": "menu",
                        "matches": [{"path": {"type": "PathPrefix", "value": "/menu"}}],
                        "backendRefs": [{"group": "", "kind": "Service", "name": "menu", "port": 8080, "weight": 1}],
                    },
                    {
                        "name": "main", "novelRule": "x",
                        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                        "timeouts": {"request": "10s"},
                        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-served", "value": "yes"}]}}],
                        "backendRefs": refs,
                    },
                ],
            },
        })
    }
}

/// Puts everything there, as people would.
pub fn furnish(api: &Api, setup: &Setup) {
    let mut store = api.store();
    let mut put = |plural: &'static str, namespace: &str, object: Value| {
        store
            .create(plural, namespace, object, Writer::Person)
            .unwrap();
    };
    put(
        "gatewayclasses",
        "",
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": "traefik"}, "spec": {"controllerName": CONTROLLER}}),
    );
    put(
        "gateways",
        "infra",
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "gw"}, "spec": {"gatewayClassName": "traefik"}}),
    );
    for name in VERSIONS.into_iter().chain(["menu", "legacy"]) {
        put("services", NAMESPACE, service(name));
        put("endpointslices", NAMESPACE, slice(name, true));
    }
    put(
        "secrets",
        NAMESPACE,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "oncall"},
            "data": {"url": "aHR0cHM6Ly9ob29rcy5leGFtcGxlLmNvbS9hbGVydHM="}}),
    );
    put(
        "alertproviders",
        NAMESPACE,
        json!({"apiVersion": "serin.dev/v1alpha1", "kind": "AlertProvider", "metadata": {"name": "oncall"},
            "spec": {"webhook": {"urlFrom": {"name": "oncall", "key": "url"}}}}),
    );
    for name in &setup.routes {
        put("httproutes", NAMESPACE, setup.route_object(name));
    }
    put("canaries", NAMESPACE, setup.canary_object("v1"));
}

pub fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": 8080}]}})
}

pub fn slice(name: &str, ready: bool) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]})
}
