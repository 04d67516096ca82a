//! A model of a data plane: it sees a route after a while, says so in the route's status, obeys it a bit
//! later, and splits requests by what it has applied. It reads routes with its own eyes, not with ours.

use crate::api::Api;
use crate::store::{Part, Writer, generation};
use crate::{NAMESPACE, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

pub const CONTROLLER: &str = "traefik.io/gateway-controller";

/// How a version behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Health {
    /// Share of requests that fail.
    pub errors: f64,
    /// Answers nothing any more; the plane gives up and says 504.
    pub hangs: bool,
    /// No endpoint is ready.
    pub down: bool,
}

/// What clients have seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients {
    pub sent: u64,
    pub failed: u64,
    /// Failed requests by the version that failed them, or by the plane's own reason.
    pub failed_by: BTreeMap<String, u64>,
    pub served_by: BTreeMap<String, u64>,
    /// Requests with the testers' header, by the version that answered.
    pub testers: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
struct Rule {
    index: usize,
    /// Path prefix, and headers that must be there.
    matches: Vec<(String, Vec<(String, String)>)>,
    refs: Vec<(String, f64)>,
}

#[derive(Debug, Clone, Default)]
struct Route {
    seen: i64,
    accept_at: Option<Instant>,
    apply_at: Option<Instant>,
    waiting: Vec<Rule>,
    rules: Vec<Rule>,
}

/// Labels of a series: service and code.
pub type Counters = BTreeMap<(String, u16), f64>;

pub struct Plane {
    pub health: BTreeMap<String, Health>,
    pub clients: Clients,
    pub counters: Counters,
    /// From a write of a route until the plane says that it accepts it.
    pub accept: Duration,
    /// From there until it obeys.
    pub apply: Duration,
    /// Says nothing more about routes.
    pub silent: bool,
    /// Requests in a second, for each route.
    pub rate: f64,
    routes: BTreeMap<String, Route>,
    parts: BTreeMap<String, f64>,
}

/// Shares of all requests: path, testers' header, part.
const KINDS: [(&str, bool, f64); 3] =
    [("/", false, 0.85), ("/menu", false, 0.1), ("/", true, 0.05)];

impl Default for Plane {
    fn default() -> Self {
        Self {
            health: BTreeMap::new(),
            clients: Clients::default(),
            counters: Counters::new(),
            accept: Duration::from_millis(400),
            apply: Duration::from_millis(1_800),
            silent: false,
            rate: 200.0,
            routes: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }
}

impl Plane {
    /// One tick: watch routes, then serve for as long as it took.
    pub fn tick(&mut self, api: &Api, now: Instant, seconds: f64) {
        self.look(api, now);
        self.serve(seconds);
    }

    /// The plane's process starts again, with counters from 0.
    pub fn restart(&mut self) {
        self.counters.clear();
    }

    fn look(&mut self, api: &Api, now: Instant) {
        let found: Vec<Value> = {
            let store = api.store();
            let routes = store.list("httproutes", Some(NAMESPACE));
            let changed = |route: &&Value| {
                let known = self.routes.get(text(&route["metadata"], "name"));
                known.is_none_or(|known| {
                    known.seen != generation(route)
                        || known.accept_at.is_some()
                        || known.apply_at.is_some()
                })
            };
            routes.into_iter().filter(changed).cloned().collect()
        };
        for route in found {
            self.follow(api, &route, now);
        }
    }

    fn follow(&mut self, api: &Api, route: &Value, now: Instant) {
        let name = text(&route["metadata"], "name").to_owned();
        let (accept, apply) = (self.accept, self.apply);
        let first = !self.routes.contains_key(&name);
        let known = self.routes.entry(name.clone()).or_default();
        if known.seen != generation(route) {
            known.seen = generation(route);
            known.accept_at = Some(now + accept);
        }
        if first {
            // A route that stands there from before is served already.
            known.rules = rules(route);
        }
        if known.accept_at.is_some_and(|at| at <= now) && !self.silent {
            known.accept_at = None;
            known.waiting = rules(route);
            known.apply_at = Some(now + apply);
            write_status(api, route, &name);
        }
        let known = self.routes.entry(name).or_default();
        if known.apply_at.is_some_and(|at| at <= now) {
            known.apply_at = None;
            known.rules = std::mem::take(&mut known.waiting);
        }
    }

    fn serve(&mut self, seconds: f64) {
        let routes: Vec<(String, Vec<Rule>)> = self
            .routes
            .iter()
            .map(|(name, route)| (name.clone(), route.rules.clone()))
            .collect();
        for (name, rules) in routes {
            for (path, tester, share) in KINDS {
                let key = format!("{name} {path} {tester}");
                let count = self.whole(&key, self.rate * seconds * share);
                self.clients.sent += count;
                match choose(&rules, path, tester) {
                    Some(rule) => self.split(&name, rule, tester, count),
                    None => self.fail("no rule", count),
                }
            }
        }
    }

    fn split(&mut self, route: &str, rule: &Rule, tester: bool, count: u64) {
        let sum: f64 = rule.refs.iter().map(|(_, weight)| weight).sum();
        if sum <= 0.0 {
            return self.fail("no backend", count);
        }
        let mut left = count;
        let last = rule.refs.iter().rposition(|(_, weight)| *weight > 0.0);
        for (at, (backend, weight)) in rule.refs.iter().enumerate() {
            let key = format!("{route} {} {backend} {at} {tester}", rule.index);
            let part = if Some(at) == last {
                left
            } else {
                self.whole(&key, count as f64 * weight / sum).min(left)
            };
            left -= part;
            self.call(route, rule, at, backend, tester, part);
        }
    }

    fn call(
        &mut self,
        route: &str,
        rule: &Rule,
        at: usize,
        backend: &str,
        tester: bool,
        count: u64,
    ) {
        if count == 0 {
            return;
        }
        let health = self.health.get(backend).copied().unwrap_or_default();
        if health.down {
            return self.fail(backend, count);
        }
        let (failed, code) = if health.hangs {
            (count, 504)
        } else {
            let key = format!("errors {backend}");
            (
                self.whole(&key, count as f64 * health.errors).min(count),
                500,
            )
        };
        if failed > 0 {
            self.fail(backend, failed);
        }
        let served = count - failed;
        *self.clients.served_by.entry(backend.into()).or_default() += count;
        if tester {
            *self.clients.testers.entry(backend.into()).or_default() += count;
        }
        let service = label(route, rule, backend, at);
        for (code, n) in [(200, served), (code, failed)] {
            if n > 0 {
                *self.counters.entry((service.clone(), code)).or_default() += n as f64;
            }
        }
    }

    fn fail(&mut self, by: &str, count: u64) {
        self.clients.failed += count;
        *self.clients.failed_by.entry(by.into()).or_default() += count;
    }

    /// The whole part of what has come together under a key; the rest stays for the next time.
    fn whole(&mut self, key: &str, more: f64) -> u64 {
        let part = match self.parts.get_mut(key) {
            Some(part) => part,
            None => self.parts.entry(key.to_owned()).or_default(),
        };
        *part += more;
        let whole = (*part + 1e-9).floor();
        *part -= whole;
        whole as u64
    }
}

/// As Traefik 3.7.6 and later call the service of a backend in a rule.
fn label(route: &str, rule: &Rule, backend: &str, at: usize) -> String {
    let hash = format!("{:?}", rule.matches)
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!(
        "httproute-{NAMESPACE}-{route}-gw-infra-gw-ep-web-{}-{hash:020x}-svc-{NAMESPACE}-{backend}-{at}@kubernetesgateway",
        rule.index
    )
}

/// The rule that a request goes by: the longest path, then the most headers, then the first.
fn choose<'a>(rules: &'a [Rule], path: &str, tester: bool) -> Option<&'a Rule> {
    let fits = |(prefix, headers): &(String, Vec<(String, String)>)| {
        let all = headers
            .iter()
            .all(|(name, value)| tester && name == "x-canary" && value == "true");
        (path.starts_with(prefix.as_str()) && all).then_some((prefix.len(), headers.len()))
    };
    let mut best: Option<((usize, usize), &Rule)> = None;
    for rule in rules {
        let Some(rank) = rule.matches.iter().filter_map(fits).max() else {
            continue;
        };
        if best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, rule));
        }
    }
    best.map(|(_, rule)| rule)
}

fn rules(route: &Value) -> Vec<Rule> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let one = |found: &Value| {
        let headers = list(&found["headers"]);
        let pair = |h: &Value| (text(h, "name").to_lowercase(), text(h, "value").to_owned());
        let prefix = found["path"]["value"].as_str().unwrap_or("/").to_owned();
        (prefix, headers.iter().map(pair).collect())
    };
    let reference = |r: &Value| {
        (
            text(r, "name").to_owned(),
            r["weight"].as_f64().unwrap_or(1.0),
        )
    };
    list(&route["spec"]["rules"])
        .iter()
        .enumerate()
        .map(|(index, rule)| {
            let mut matches: Vec<_> = list(&rule["matches"]).iter().map(one).collect();
            if matches.is_empty() {
                matches.push(("/".into(), Vec::new()));
            }
            Rule {
                index,
                matches,
                refs: list(&rule["backendRefs"]).iter().map(reference).collect(),
            }
        })
        .collect()
}

fn write_status(api: &Api, route: &Value, name: &str) {
    let mut store = api.store();
    let missing = rules(route)
        .iter()
        .flat_map(|rule| rule.refs.clone())
        .find(|(backend, _)| store.get("services", NAMESPACE, backend).is_none());
    let condition = |kind: &str, bad: Option<String>| {
        json!({
            "type": kind, "status": if bad.is_some() { "False" } else { "True" },
            "reason": if bad.is_some() { "BackendNotFound" } else { kind },
            "message": bad.unwrap_or_default(),
            "observedGeneration": generation(route),
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let parents: Vec<Value> = route["spec"]["parentRefs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|parent| {
            json!({
                "parentRef": parent, "controllerName": CONTROLLER,
                "conditions": [
                    condition("Accepted", None),
                    condition("ResolvedRefs", missing.as_ref().map(|(name, _)| format!("no Service {name}"))),
                ],
            })
        })
        .collect();
    let mut wanted = route.clone();
    wanted["status"] = json!({"parents": parents, "ofTheFuture": 1});
    // Read this very moment; a conflict cannot be.
    let _ = store.replace(
        "httproutes",
        NAMESPACE,
        name,
        Part::Status,
        wanted,
        Writer::Plane,
    );
}
