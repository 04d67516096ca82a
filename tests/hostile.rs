//! Hostile inputs, each with the answer it gets: what stands in `docs/hostile.md` is what the library says.
//!
//! `SERIN_WRITE_DOCS=1 cargo test --test hostile` writes the page anew.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod traffic_routes;

use chrono::{TimeDelta, TimeZone, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use serin::alerts::{
    Allowed, Answer as Posted, CallError, Directory, Egress, Letter, LookupError, Origin, Redacted,
    Refusal, SecretData, Target, Wire, letter,
};
use serin::analysis::{Arm, MOST_AT_ONCE, Measured, Reading, SeriesSample};
use serin::api::{
    Alert, AlertEvent, AlertProviderSpec, Backend, CanarySpec, CanaryStatus, Command, HeaderRule,
    PlanSpec, RouteKind, RouteRecord, Time, Verb, Wanted,
};
use serin::metrics::answer::{Body, parse};
use serin::metrics::{Answer, RouteTarget, Variables, check, profile, render, single};
use serin::release::{
    Acceptance, Answer as Told, BackendFact, Facts, Plan, RouteFact, RouteState, Sight, decide,
};
use serin::traffic::{Frame, plan, survey};
use std::collections::BTreeMap;
use traffic_routes::{backend, canary, frame, reference, route, rule, split, testers};

#[test]
fn the_page_says_what_the_library_says() {
    let mut page = String::from(HEAD);
    let mut count = 0;
    for (title, words, rows) in sections() {
        page += &format!("\n## {title}\n\n{words}\n\n| input | answer |\n|---|---|\n");
        for (input, answer) in rows {
            assert!(!answer.is_empty(), "{input} has no answer");
            page += &format!("| {} | {} |\n", cell(&input), cell(&answer));
            count += 1;
        }
    }
    assert!(count >= 40, "only {count} inputs");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/hostile.md");
    if std::env::var_os("SERIN_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    let mut lines = written.lines();
    for line in page.lines() {
        assert_eq!(
            lines.next(),
            Some(line),
            "docs/hostile.md is out of date: SERIN_WRITE_DOCS=1 cargo test --test hostile"
        );
    }
    assert_eq!(lines.next(), None);
}

const HEAD: &str = "\
# Hostile inputs, and the answers they get

Whatever a tenant writes is refused with a sentence, or handled. Nothing of it makes the operator fall over, slows
the other Canaries, or takes away what is not ours. Much of this `kubectl apply` refuses already, by the schema of the
kinds; what stands here is what the operator itself says, for objects that came past it.

`tests/hostile.rs` puts each input to the library and compares the answer with this page. What is too long to be written
out was put in words. The parsers behind it are fuzzed (`tests/fuzz`):
a second each in `cargo test`, a minute in `.ci/run`, ten with `SERIN_FUZZ_SECONDS=600 cargo test --test fuzz`.
";

/// A text in a cell of a table, as it is.
fn cell(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_control() { '␣' } else { c })
        .collect();
    let plain = plain.replace('|', "\\|");
    match plain.starts_with('`') {
        true => plain,
        false => plain.replace('<', "&lt;"),
    }
}

type Rows = Vec<(String, String)>;

fn sections() -> Vec<(&'static str, &'static str, Rows)> {
    vec![
        (
            "Fields of a Canary",
            "The condition `Ready` is False with this message; nothing is released.",
            fields(),
        ),
        (
            "Queries",
            "`Ready` is False with reason `InvalidQuery`, or, where a value cannot stand in a query, the check is in error and the weight is held.",
            queries(),
        ),
        (
            "Annotations",
            "One event, and the annotation is removed. A value of more than 512 bytes is noted by its hash.",
            annotations(),
        ),
        (
            "A status that someone has written",
            "The message of the Canary after the next look.",
            statuses(),
        ),
        (
            "Routes",
            "`Ready` is False with this message; the route is not touched.",
            routes(),
        ),
        (
            "What is not ours, and looks like it",
            "Refused; never overwritten and never taken away.",
            collisions(),
        ),
        (
            "Answers of a Prometheus",
            "The check has no data or is in error, and by default the weight is held.",
            answers(),
        ),
        (
            "Addresses of alerts",
            "The URL is not called; the Canary says so, and other alerts go on.",
            urls(),
        ),
        (
            "AlertProviders and Secrets",
            "The alert waits and is tried again; nothing of a Secret is shown.",
            letters(),
        ),
        (
            "Entries of `--allow-egress`",
            "The operator does not start.",
            entries(),
        ),
    ]
}

fn row(input: impl Into<String>, answer: impl ToString) -> (String, String) {
    (input.into(), answer.to_string())
}

fn spec(field: &str, value: &Value) -> CanarySpec {
    let mut spec = json!({
        "target": {"backend": {"name": "v2", "port": 80}},
        "routes": [{"kind": "HTTPRoute", "name": "web"}],
        "steps": [{"weight": 10, "hold": "1m", "deadline": "5m"}],
        "analysis": {"errorRate": {"max": "1%", "vsStable": {"maxRatio": "1.5"}}, "interval": "10s",
                     "metrics": [{"name": "queue", "query": "up", "max": "1", "min": "0"}]},
    });
    if !field.is_empty() {
        *spec
            .pointer_mut(&format!(
                "/{}",
                field.replace(['.', '['], "/").replace(']', "")
            ))
            .unwrap() = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

fn fields() -> Rows {
    let table = [
        ("steps[0].hold", "5 minutes"),
        ("steps[0].hold", ""),
        ("steps[0].hold", "99999999d"),
        ("steps[0].hold", "９s"),
        ("steps[0].deadline", "-5m"),
        ("analysis.interval", "soon"),
        ("analysis.errorRate.max", "150%"),
        ("analysis.errorRate.max", "NaN"),
        ("analysis.errorRate.vsStable.maxRatio", "1e9"),
        ("analysis.metrics[0].max", "∞"),
        ("analysis.metrics[0].min", "--1"),
    ];
    let mut rows: Rows = table
        .into_iter()
        .map(|(field, value)| {
            let error = Plan::of(&PlanSpec::of(&spec(field, &json!(value)))).unwrap_err();
            row(format!("`{field}: {value:?}`"), error)
        })
        .collect();
    let headers: Vec<HeaderRule> = (0..8)
        .map(|n| {
            let mut rule = canary(&format!("x-{n}"));
            rule.header.value = "v".repeat(4_096);
            rule
        })
        .collect();
    let steps = json!(vec![json!({"headers": headers}); 32]);
    let spec = spec("steps", &steps);
    let status = CanaryStatus::default();
    rows.push(row(
        "32 steps with 8 headers of 4 KiB each",
        message(&spec, &status, Vec::new()),
    ));
    rows
}

fn queries() -> Rows {
    let mut rows: Rows = [
        "sum(rate(x[5m])",
        "up{a=\"{{ nmae }}\"}",
        "up{a=\"{{ name",
        "x[5m]",
        "\"hello\"",
        "up; drop",
        "",
    ]
    .into_iter()
    .map(|query| row(format!("`{query}`"), check(query).unwrap_err()))
    .collect();
    rows.push(row(
        "4,096 opening brackets",
        check(&"(".repeat(4_096)).unwrap_err(),
    ));
    let variables = Variables {
        namespace: "shop".into(),
        name: "web".into(),
        stable: "v1".into(),
        canary: "a\"} or vector(0) #".into(),
        service: "v2".into(),
        window: TimeDelta::seconds(10),
    };
    let error = render("up{s=\"{{ canary }}\"}", &variables).unwrap_err();
    rows.push(row("a backend with the name `a\"} or vector(0) #`", error));
    rows
}

fn now() -> Time {
    Utc.with_ymd_and_hms(2026, 1, 1, 0, 1, 0).unwrap()
}

fn facts<'a>(spec: &'a CanarySpec, status: &'a CanaryStatus, record: RouteRecord) -> Facts<'a> {
    let state = RouteState::Found {
        uid: "u1".into(),
        survey: Ok(record),
        carries: true,
        acceptance: Acceptance::Accepted,
        settle: TimeDelta::zero(),
        holds_stable: true,
    };
    Facts {
        name: "web",
        namespace: "shop",
        generation: 1,
        deleting: false,
        held: true,
        spec,
        status,
        commands: Vec::new(),
        obstacle: None,
        sight: Sight::Serves(backend("v1")),
        routes: vec![RouteFact {
            unwritten: None,
            title: "HTTPRoute web".into(),
            state,
        }],
        candidate: BackendFact::Ready,
        answers: Vec::new(),
        delivered: Vec::new(),
    }
}

fn record() -> RouteRecord {
    serde_json::from_value(json!({"kind": "HTTPRoute", "name": "web", "uid": "u1", "rules": []}))
        .unwrap()
}

fn message(spec: &CanarySpec, status: &CanaryStatus, answers: Vec<Told>) -> String {
    let facts = Facts {
        answers,
        ..facts(spec, status, record())
    };
    decide(&facts, now()).status.message
}

/// In the first step, since a minute.
fn under_way() -> Value {
    let at = "2026-01-01T00:00:00Z";
    json!({
        "stable": {"revision": backend("v1").revision(), "backend": backend("v1")},
        "release": {
            "revision": backend("v2").revision(), "candidate": backend("v2"), "startedAt": at, "stage": "Stepping",
            "plan": PlanSpec::of(&spec("", &Value::Null)),
            "step": {"index": 0, "enteredAt": at, "acceptedAt": at},
        },
    })
}

fn annotations() -> Rows {
    let revision = backend("v2").revision();
    let bad = spec("steps[0].hold", &json!("ages"));
    let table = [
        (Verb::Approve, "yes".to_owned()),
        (Verb::Approve, format!("{revision}/0")),
        (Verb::Approve, format!("{revision}/99999999999999999999")),
        (Verb::Approve, format!("{revision}/7")),
        (Verb::Approve, "v3-00000000/1".into()),
        (Verb::Abort, String::new()),
        (Verb::Abort, "x".repeat(200_000)),
        (Verb::Promote, "v2".into()),
        (Verb::Promote, "\u{1b}[2J".into()),
        (Verb::Retry, "🐤".into()),
        (Verb::Replan, revision.clone()),
    ];
    let status: CanaryStatus = serde_json::from_value(under_way()).unwrap();
    table
        .into_iter()
        .map(|(verb, value)| {
            let shown = match value.len() {
                0..200 => format!("`{}={value}`", verb.annotation()),
                long => format!("`{}=` and {long} letters `x`", verb.annotation()),
            };
            let commands = vec![Command { verb, value }];
            let facts = Facts {
                commands,
                ..facts(&bad, &status, record())
            };
            let decision = decide(&facts, now());
            let note = decision
                .events
                .into_iter()
                .find(|note| note.reason == "CommandIgnored");
            row(shown, note.unwrap().message)
        })
        .collect()
}

fn statuses() -> Rows {
    let spec = spec("", &Value::Null);
    let shown = |input: &str, change: &dyn Fn(&mut Value)| {
        let mut status = under_way();
        change(&mut status);
        let status = serde_json::from_value(status).unwrap();
        row(input, message(&spec, &status, Vec::new()))
    };
    vec![
        shown("`release.plan.steps: []`", &|s| {
            s["release"]["plan"]["steps"] = json!([])
        }),
        shown("`release.plan.steps[0].hold: \"for ever\"`", &|s| {
            s["release"]["plan"]["steps"][0]["hold"] = json!("for ever")
        }),
        shown("`release.step.index: 4294967295`", &|s| {
            s["release"]["step"]["index"] = json!(u32::MAX)
        }),
        shown(
            "`release.step.enteredAt: \"+262142-12-31T23:59:59Z\"`",
            &|s| s["release"]["step"]["enteredAt"] = json!("+262142-12-31T23:59:59Z"),
        ),
        shown("`release.step.clockMillis: -9223372036854775808`", &|s| {
            s["release"]["step"]["clockMillis"] = json!(i64::MIN)
        }),
        shown("`release.plan: 7`", &|s| s["release"]["plan"] = json!(7)),
        shown(
            "a check that says `Harm`",
            &|s| s["release"]["checks"] = json!([{"name": "errorRate", "verdict": "Harm", "message": "because", "at": now()}]),
        ),
        shown("a release, and no `stable`", &|s| s["stable"] = Value::Null),
    ]
}

fn refused(route: &Value, rules: &[&str], wanted: Wanted) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    let (stable, candidate) = (backend("v1"), backend("v2"));
    survey(route, &frame(&rules, &stable, &candidate), &[wanted])
        .unwrap_err()
        .to_string()
}

fn routes() -> Rows {
    let v1 = || rule("", &[("v1", 1)]);
    let many = |count: usize| (0..count).map(|_| v1()).collect::<Vec<_>>();
    let refs = |count: usize| {
        let mut rule = v1();
        rule["backendRefs"]
            .as_array_mut()
            .unwrap()
            .extend((1..count).map(|n| reference(&format!("x{n}"), 1)));
        rule
    };
    let matches = |count: usize| {
        let mut rule = v1();
        rule["matches"] = (0..count)
            .map(|n| json!({"path": {"type": "Exact", "value": format!("/{n}")}}))
            .collect();
        rule
    };
    let asks = |headers: Value| {
        let mut rule = v1();
        rule["matches"][0]["headers"] = headers;
        rule
    };
    let mut grpc = route(&[v1()]);
    grpc["kind"] = json!("GRPCRoute");
    let two = Wanted::Split {
        weight: 0,
        headers: vec![canary("a"), canary("b")],
    };
    let sixteen: Value = (0..16)
        .map(|n| json!({"name": format!("h{n}"), "value": "1"}))
        .collect();
    let mut rows = vec![
        row("`null`", refused(&Value::Null, &[], split(5))),
        row(
            "`spec: []`",
            refused(
                &json!({"kind": "HTTPRoute", "metadata": {"name": "web"}, "spec": []}),
                &[],
                split(5),
            ),
        ),
        row("a GRPCRoute", refused(&grpc, &[], split(5))),
        row("no rules", refused(&route(&[]), &[], split(5))),
        row(
            "rules that hold another backend",
            refused(&route(&[rule("", &[("é🐤", 1)])]), &[], split(5)),
        ),
        row(
            "`routes[].rules: [main]`, and no such rule",
            refused(&route(&[v1()]), &["main"], split(5)),
        ),
        row(
            "a listed rule with another backend",
            refused(&route(&[rule("main", &[("x", 1)])]), &["main"], split(5)),
        ),
        row(
            "two rules of one name",
            refused(
                &route(&[rule("a", &[("v1", 1)]), rule("a", &[("x", 1)])]),
                &[],
                split(5),
            ),
        ),
        row(
            "stable twice in a rule",
            refused(&route(&[rule("", &[("v1", 1), ("v1", 2)])]), &[], split(5)),
        ),
        row(
            "stable with weight 0 in a rule",
            refused(
                &route(&[v1(), rule("", &[("v1", 0), ("x", 1)])]),
                &[],
                split(5),
            ),
        ),
        row(
            "weights near the limit",
            refused(
                &route(&[rule("", &[("v1", 99_999), ("x", 1)])]),
                &[],
                split(5),
            ),
        ),
        row(
            "16 backends in a rule already",
            refused(&route(&[refs(16)]), &[], split(5)),
        ),
        row(
            "9 rules, and header testers",
            refused(&route(&many(9)), &[], testers(0)),
        ),
        row(
            "33 matches, and two headers",
            refused(&route(&[matches(33)]), &[], two),
        ),
        row(
            "65 matches, and header testers",
            refused(&route(&[matches(60), matches(5)]), &[], testers(0)),
        ),
        row(
            "16 headers in a match already",
            refused(&route(&[asks(sixteen)]), &[], testers(0)),
        ),
        row(
            "a match that has the testers' header",
            refused(
                &route(&[asks(json!([{"name": "X-Canary", "value": "no"}]))]),
                &[],
                testers(0),
            ),
        ),
    ];
    let (stable, candidate) = (backend("v1"), backend("v2"));
    let frame: Frame<'_> = frame(&[], &stable, &candidate);
    let record = survey(&route(&[v1()]), &frame, &[]).unwrap();
    let mut anew = route(&[v1()]);
    anew["metadata"]["uid"] = json!("u2");
    rows.push(row(
        "during a release: deleted and made anew",
        plan(&anew, &frame, &record, &split(5)).unwrap_err(),
    ));
    let gone = route(&[rule("", &[("x", 1)])]);
    rows.push(row(
        "during a release: all its rules replaced",
        plan(&gone, &frame, &record, &split(5)).unwrap_err(),
    ));
    rows
}

/// Rules and names that someone else has made, which ours could be taken for.
fn collisions() -> Rows {
    let v1 = || rule("", &[("v1", 1)]);
    let with_headers = |mut rule: Value| {
        rule["matches"][0]["headers"] = json!([{"name": "x-canary", "value": "true"}]);
        rule
    };
    let taken = |value: Value| refused(&route(&[v1(), value]), &[], testers(5));
    vec![
        row(
            "a rule `serin-web-0` that sends requests elsewhere",
            taken(rule("serin-web-0", &[("x", 1)])),
        ),
        row(
            "a rule `serin-web-0` that sends some to the candidate",
            taken(rule("serin-web-0", &[("v2", 1), ("x", 1)])),
        ),
        row(
            "a rule `serin-web-0` that sends all to the candidate, by no header",
            taken(rule("serin-web-0", &[("v2", 1)])),
        ),
        row(
            "a rule `serin-web-99` that splits",
            taken(rule("serin-web-99", &[("v1", 1)])),
        ),
        row(
            "a rule of no name that sends testers to the candidate",
            taken(with_headers(rule("", &[("v2", 1)]))),
        ),
        row(
            "a candidate that has weight already",
            taken(rule("main", &[("v1", 9), ("v2", 1)])),
        ),
        {
            let (v1, frame_rules) = (backend("v1"), []);
            let frame = frame(&frame_rules, &v1, &v1);
            row(
                "a candidate that is the stable backend",
                survey(&route(&[rule("", &[("v1", 1)])]), &frame, &[]).unwrap_err(),
            )
        },
    ]
}

fn answers() -> Rows {
    let vector = |result: &str| {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#)
    };
    let deep = vector(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)));
    let told = |body: &str| match parse(body.as_bytes()) {
        Err(why) => why,
        Ok(Body::Refusal { kind, message }) => format!("{kind}: {message}"),
        Ok(Body::Answer(answer)) => match single(&answer) {
            Measured::Value(value) => format!("the value {value}"),
            Measured::NoData(why) | Measured::Error(why) => why,
        },
    };
    let bodies = [
        String::new(),
        "<html>".into(),
        r#"{"status":"success"}"#.into(),
        r#"{"status":"maybe"}"#.into(),
        r#"{"status":"error","errorType":"execution","error":"too many samples"}"#.into(),
        r#"{"status":"success","data":{"resultType":"tensor","result":[]}}"#.into(),
        r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(),
        r#"{"status":"success","data":{"resultType":"string","result":[1,"hi"]}}"#.into(),
        vector("7"),
        vector("[]"),
        vector(r#"[{"value":[1,"NaN"]}]"#),
        vector(r#"[{"value":[1,"-Inf"]}]"#),
        vector(r#"[{"value":[1,"1e999"]}]"#),
        vector(r#"[{"value":[1,"seven"]}]"#),
        vector(r#"[{"value":[1e300,"7"]}]"#),
        vector(r#"[{"value":[1,"1"]},{"value":[1,"2"]}]"#),
        vector(r#"[{"metric":{},"histogram":[1,{}]}]"#),
    ];
    let mut rows: Rows = bodies
        .iter()
        .map(|body| match body.as_str() {
            "" => row("nothing", told(body)),
            _ => row(format!("`{body}`"), told(body)),
        })
        .collect();
    rows.push(row("lists nested 10,000 deep", told(&deep)));
    let plane = profile("traefik.io/gateway-controller").unwrap();
    let read = |canary: Backend, body: &str| {
        let Ok(Body::Answer(answer)) = parse(body.as_bytes()) else {
            unreachable!()
        };
        let answer: Answer = answer;
        let target = RouteTarget {
            kind: RouteKind::HTTPRoute,
            namespace: "shop".into(),
            name: "web".into(),
            stable: backend("v1"),
            canary,
            skip_rules: Vec::new(),
        };
        plane.read(&target, &answer, now()).unwrap_err().to_string()
    };
    let port = Backend {
        port: 81,
        ..backend("v1")
    };
    let import = Backend {
        kind: "ServiceImport".into(),
        ..backend("v2")
    };
    let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}"#;
    let series = (0..=MOST_AT_ONCE).map(|n| SeriesSample {
        key: format!("co.{n}@1"),
        arm: Arm::Canary,
        failed: false,
        value: 1.0,
    });
    let reading = Reading {
        at: now(),
        series: series.collect(),
    };
    let status = serde_json::from_value(under_way()).unwrap();
    let many = message(
        &spec("", &Value::Null),
        &status,
        vec![Told::ErrorRate(Ok(reading))],
    );
    rows.push(row("counters of 4,001 series", many));
    rows.push(row("a scalar for counters", read(backend("v2"), scalar)));
    rows.push(row(
        "counters of two ports of one Service",
        read(port, &vector("[]")),
    ));
    rows.push(row(
        "counters of a ServiceImport",
        read(import, &vector("[]")),
    ));
    rows
}

fn urls() -> Rows {
    let egress = Egress::open(Vec::new()).with_api_servers(["10.96.0.1"]);
    let mut rows: Rows = [
        "hooks.example.com/x",
        "file:///etc/passwd",
        "http://hooks.example.com:0/",
        "http://user:pass@hooks.example.com/",
        "http://hooks.example.com@127.0.0.1/",
        "http://127.0.0.1:8080/",
        "http://0x7f.1/",
        "http://①②⑦.⓪.⓪.①/",
        "http://[::ffff:169.254.169.254]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/",
        "http://localhost./",
        "http://kubernetes.default.svc/",
        "https://10.96.0.1/api",
        "http://[ff02::1]/",
        "http://hooks.exa\nmple.com/",
    ]
    .into_iter()
    .map(|url| {
        row(
            format!("`{}`", url.replace('\n', "\\n")),
            egress.admit(url).unwrap_err(),
        )
    })
    .collect();
    let long = format!("https://hooks.example.com/{}", "x".repeat(4_096));
    rows.push(row("a URL of 4 KiB", egress.admit(&long).unwrap_err()));
    let address = "169.254.169.254".parse().unwrap();
    let rebound = egress
        .admit_addresses("hooks.example.com", [address])
        .unwrap_err();
    rows.push(row("a name that has come to mean 169.254.169.254", rebound));
    let listed = Egress::only_listed(vec!["hooks.example.com".parse::<Allowed>().unwrap()]);
    rows.push(row(
        "another host than the platform's list names",
        listed.admit("https://evil.example.com/").unwrap_err(),
    ));
    rows
}

fn entries() -> Rows {
    [
        "",
        "https://hooks.example.com/",
        "hooks.example.com:0",
        "10.0.0.0/33",
        "a b",
        "user@hooks.example.com",
        "fd00::1:443x",
    ]
    .into_iter()
    .map(|entry| {
        row(
            format!("`{entry:?}`"),
            entry.parse::<Allowed>().unwrap_err(),
        )
    })
    .collect()
}

/// One namespace's AlertProviders and Secrets.
struct Shelf(Option<AlertProviderSpec>, BTreeMap<String, SecretData>);

impl Directory for Shelf {
    fn provider<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<AlertProviderSpec>, LookupError>> {
        async { Ok(self.0.clone()) }.boxed()
    }

    fn secret<'a>(
        &'a self,
        _: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<SecretData>, LookupError>> {
        async move { Ok(self.1.get(name).cloned()) }.boxed()
    }
}

/// Judges URLs and calls nobody.
struct Judge;

impl Wire for Judge {
    fn admit(&self, url: &str) -> Result<Target, Refusal> {
        Egress::open(Vec::new()).admit(url)
    }

    fn post(&self, _: Letter) -> BoxFuture<'_, Result<Posted, CallError>> {
        unreachable!("no letter is written here")
    }
}

fn letters() -> Rows {
    const PLANT: &str = "PLANTED-hunter2";
    let provider = |header: &str| -> AlertProviderSpec {
        let headers = match header {
            "" => json!([]),
            name => json!([{"name": name, "valueFrom": {"name": "oncall", "key": "token"}}]),
        };
        serde_json::from_value(
            json!({"webhook": {"urlFrom": {"name": "oncall", "key": "url"}, "headers": headers}}),
        )
        .unwrap()
    };
    let secret = |url: &[u8], token: &[u8]| {
        let data = [("url", url), ("token", token)];
        let data = data.map(|(key, value)| (key.to_owned(), Redacted::new(value.to_vec())));
        BTreeMap::from([("oncall".to_owned(), BTreeMap::from(data))])
    };
    let good = format!("https://hooks.example.com/{PLANT}");
    let lines = format!("{PLANT}\r\nHost: evil");
    let long = PLANT.repeat(1_000);
    let evil = format!("http://127.0.0.1/{PLANT}");
    let good = good.as_bytes();
    let mut keyless = secret(good, b"");
    keyless.get_mut("oncall").unwrap().remove("url");
    let odd = || serde_json::from_value(json!({})).unwrap();
    let table = [
        ("no such provider", Shelf(None, BTreeMap::new())),
        (
            "a provider with nothing in it",
            Shelf(Some(odd()), BTreeMap::new()),
        ),
        (
            "a provider whose Secret is not there",
            Shelf(Some(provider("")), BTreeMap::new()),
        ),
        (
            "a Secret without the key",
            Shelf(Some(provider("")), keyless),
        ),
        (
            "a Secret that holds a loopback URL",
            Shelf(Some(provider("")), secret(evil.as_bytes(), b"")),
        ),
        (
            "a Secret that holds no text",
            Shelf(Some(provider("")), secret(b"\xff\xfe", b"")),
        ),
        (
            "a header `Host`",
            Shelf(Some(provider("Host")), secret(good, PLANT.as_bytes())),
        ),
        (
            "a header `Idempotency-Key`",
            Shelf(
                Some(provider("Idempotency-Key")),
                secret(good, PLANT.as_bytes()),
            ),
        ),
        (
            "a header's name with a line end",
            Shelf(Some(provider("a\nb")), secret(good, PLANT.as_bytes())),
        ),
        (
            "a header's value with a line end",
            Shelf(
                Some(provider("Authorization")),
                secret(good, lines.as_bytes()),
            ),
        ),
        (
            "a header's value of 15 KiB",
            Shelf(
                Some(provider("Authorization")),
                secret(good, long.as_bytes()),
            ),
        ),
    ];
    let origin = Origin {
        namespace: "shop".into(),
        name: "web".into(),
        uid: "c1".into(),
    };
    let alert = Alert {
        id: "a1".into(),
        provider: "oncall".into(),
        event: AlertEvent::RolledBack,
        at: now(),
        revision: backend("v2").revision(),
        message: "it failed".into(),
        check: None,
    };
    table
        .into_iter()
        .map(|(input, shelf)| {
            let written = letter(&shelf, &Judge, &origin, &alert)
                .now_or_never()
                .unwrap();
            let error = written.unwrap_err().to_string();
            assert!(!error.contains(PLANT), "{error}");
            row(input, error)
        })
        .collect()
}
