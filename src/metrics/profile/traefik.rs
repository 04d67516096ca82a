//! Traefik, read in the source of v3.7.9 and seen live.
//!
//! A service's label is, since v3.7.6 (`pkg/provider/kubernetes/gateway/httproute.go`),
//! `httproute-NS-ROUTE-gw-GWNS-GW-ep-ENTRYPOINT-RULE-HASH-svc-SVCNS-SVC-INDEX@kubernetesgateway`, where all before
//! `-svc-` has each run of other characters than letters and digits replaced by one dash (`provider.Normalize`),
//! and the hash, 20 hex digits, is of the match. Before that it was `SVCNS-SVC-http-PORT@kubernetesgateway`.
//!
//! What it cannot tell:
//! * two ports of one Service: since v3.7.6 the label has no port;
//! * a namespace `a` with a route `b-c` from a namespace `a-b` with a route `c`, where both lead to the same Service;
//! * before v3.7.6, the routes and rules that lead to a Service: all are counted, testers by header too;
//! * a request for which no service could be called: without endpoints Traefik answers 503 and counts it nowhere;
//! * of gRPC, the status of an answer that does not announce its trailers: it is taken for 2 (Unknown).

use super::{Profile, ReadError, RouteTarget, literal, string};
use crate::analysis::{Arm, Reading, SeriesSample};
use crate::api::{Backend, RouteKind, Time};
use crate::metrics::{Answer, Data, Sample};
use chrono::TimeDelta;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const NAME: &str = "Traefik";

pub(super) const PROFILE: Profile = Profile {
    controller: "traefik.io/gateway-controller",
    name: NAME,
    // `providers.providersThrottleDuration`, 2 s by default, and a second to apply it. Traefik says that it
    // has accepted a route before it obeys it.
    settle: TimeDelta::seconds(3),
    requests,
    read,
};

const PROVIDER: &str = "@kubernetesgateway";

/// gRPC statuses that are the server's fault: Unknown, DeadlineExceeded, ResourceExhausted, Internal,
/// Unavailable, DataLoss.
const GRPC_FAILURES: [u16; 6] = [2, 4, 8, 13, 14, 15];

fn requests(target: &RouteTarget) -> String {
    let services: Vec<String> = [&target.stable, &target.canary]
        .into_iter()
        .map(|backend| service(target, backend))
        .collect();
    let by_route = format!(
        "{}.+-ep-.+-[0-9]+-[0-9a-f]{{20}}-svc-({})-[0-9]+",
        literal(&route(target)),
        services
            .iter()
            .map(|s| literal(s))
            .collect::<Vec<_>>()
            .join("|"),
    );
    let by_port = [&target.stable, &target.canary]
        .map(|backend| literal(&older(target, backend)))
        .join("|");
    let labels = string(&format!("({by_route}|{by_port}){}", literal(PROVIDER)));
    format!(
        "sum by (service, code, protocol, instance) (traefik_service_requests_total{{service=~{labels}}})"
    )
}

fn read(target: &RouteTarget, answer: &Answer, at: Time) -> Result<Reading, ReadError> {
    for backend in [&target.stable, &target.canary] {
        if backend.kind != "Service" || !backend.group.is_empty() {
            return Err(ReadError::Kind {
                plane: NAME,
                kind: backend.kind.clone(),
            });
        }
    }
    if service(target, &target.stable) == service(target, &target.canary) {
        return Err(ReadError::Inseparable {
            plane: NAME,
            stable: target.stable.to_string(),
            canary: target.canary.to_string(),
        });
    }
    let Data::Vector(samples) = &answer.data else {
        return Err(ReadError::Type(answer.data.kind()));
    };
    // All counters of a process are reset together, so those of one service that mean the same are one.
    let mut series: BTreeMap<String, SeriesSample> = BTreeMap::new();
    for sample in samples {
        let Some(arm) = arm(target, label(sample, "service")) else {
            continue;
        };
        if !sample.value.is_finite() {
            continue;
        }
        let failed = failed(label(sample, "protocol"), label(sample, "code"));
        let key = key(sample, arm, failed);
        let entry = series.entry(key.clone()).or_insert(SeriesSample {
            key,
            arm,
            failed,
            value: 0.0,
        });
        entry.value += sample.value;
    }
    Ok(Reading {
        at,
        series: series.into_values().collect(),
    })
}

/// The beginning of the label of every service of a route.
fn route(target: &RouteTarget) -> String {
    let RouteTarget {
        kind,
        namespace,
        name,
        ..
    } = target;
    let kind = match kind {
        RouteKind::HTTPRoute => "httproute",
    };
    format!("{}-gw-", normalized(&format!("{kind}-{namespace}-{name}")))
}

/// As Traefik's `provider.Normalize`.
fn normalized(name: &str) -> String {
    name.split(|c: char| !c.is_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// How a backend stands in a label.
fn service(target: &RouteTarget, backend: &Backend) -> String {
    format!("{}-{}", target.namespace_of(backend), backend.name)
}

/// The label's first part before v3.7.6.
fn older(target: &RouteTarget, backend: &Backend) -> String {
    normalized(&format!(
        "{}-http-{}",
        service(target, backend),
        backend.port
    ))
}

/// The version that a service belongs to; none for one of another route or backend, or of a rule that does not count.
fn arm(target: &RouteTarget, label: &str) -> Option<Arm> {
    let arms = [(Arm::Stable, &target.stable), (Arm::Canary, &target.canary)];
    let id = label.strip_suffix(PROVIDER)?;
    if let Some((arm, _)) = arms.iter().find(|(_, b)| older(target, b) == id) {
        return Some(*arm);
    }
    let id = id.strip_prefix(&route(target))?;
    let id = without_number(id)?.0;
    let (arm, id) = arms.iter().find_map(|(arm, backend)| {
        let id = id.strip_suffix(&service(target, backend))?;
        Some((*arm, id.strip_suffix("-svc-")?))
    })?;
    let (id, hash) = id.rsplit_once('-')?;
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let (id, rule) = without_number(id)?;
    let ours = hash.len() == 20 && hash.bytes().all(hex) && id.contains("-ep-");
    (ours && !target.skip_rules.contains(&rule)).then_some(arm)
}

/// A text that ends with a dash and a number, without them, and the number.
fn without_number(text: &str) -> Option<(&str, usize)> {
    let (rest, digits) = text.rsplit_once('-')?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    Some((rest, digits.parse().ok().filter(|_| plain)?))
}

/// Whether a code is one of a failure that the backend is to blame for. 499 is a client that has gone.
fn failed(protocol: &str, code: &str) -> bool {
    let Ok(code) = code.parse::<u16>() else {
        return false;
    };
    match protocol {
        // The label is the gRPC status then (`pkg/middlewares/metrics/metrics.go`).
        "grpc" | "grpc-web" => GRPC_FAILURES.contains(&code),
        _ => (500..600).contains(&code),
    }
}

/// Version, outcome, service and process, such as `cf.1f2e3d4c@9a8b7c6d`.
fn key(sample: &Sample, arm: Arm, failed: bool) -> String {
    let arm = match arm {
        Arm::Canary => 'c',
        Arm::Stable => 's',
    };
    let outcome = if failed { 'f' } else { 'o' };
    let service = short(label(sample, "service"));
    let process = short(label(sample, "instance"));
    format!("{arm}{outcome}.{service}@{process}")
}

fn short(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn label<'a>(sample: &'a Sample, name: &str) -> &'a str {
    sample.labels.get(name).map_or("", String::as_str)
}
