//! What a Secret holds, and what else nobody must see, is in no output of the operator at any level of its log.

use crate::many::{audit_lines, audit_mark};
use crate::operator::Setting;
use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use serin::api::Phase;
use std::process::Stdio;
use std::time::{Duration, Instant};
use testbed::Component;

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![planted_values_are_nowhere]
}

/// Every planted value begins so.
const PLANTED: &str = "planted-7d1f";

/// Providers whose alerts cannot be delivered, and words of the reason that is told.
const FAILING: [(&str, &str); 5] = [
    ("closed", "cannot be connected to"),
    ("lost", "answered 404"),
    ("odd", "is not called"),
    ("garbled", "cannot be the value of header"),
    ("short", "has no key"),
];

async fn planted_values_are_nowhere(stage: &Stage) -> Result<()> {
    let setting = stage.operator.setting();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let watched = Setting {
        prometheus: setting.prometheus.replace(
            "http://",
            &format!("http://{PLANTED}-user:{PLANTED}-password@"),
        ),
        allow_egress: format!("{},{closed}", setting.allow_egress),
        filter: "trace".into(),
    };
    stage.operator.kill();
    let (log_mark, audit) = (
        std::fs::metadata(stage.operator.log())?.len(),
        audit_mark(stage)?,
    );
    stage.operator.start_with(&watched)?;
    stage.operator.ready().await?;

    let shop = Shop::open(stage, "secrets").await?;
    let inbox = format!("{PLANTED}-path");
    let url = |base: &str| format!("{base}?token={PLANTED}-query");
    let header = format!("Bearer {PLANTED}-header");
    provider(&shop, "works", &url(&stage.receiver.url(&inbox)), &header).await?;
    provider(
        &shop,
        "closed",
        &url(&format!("http://{closed}/{PLANTED}-path")),
        &header,
    )
    .await?;
    let lost = format!("{}/{PLANTED}-deeper", stage.receiver.url(&inbox));
    provider(&shop, "lost", &url(&lost), &header).await?;
    provider(
        &shop,
        "odd",
        &format!("http://{PLANTED}-user:{PLANTED}-word@127.0.0.1/"),
        &header,
    )
    .await?;
    provider(
        &shop,
        "garbled",
        &url(&stage.receiver.url(&inbox)),
        &format!("{PLANTED}\r\nx: y"),
    )
    .await?;
    provider(&shop, "short", "", &header).await?;
    let names = FAILING.iter().map(|(name, _)| *name).chain(["works"]);
    let alerts: Vec<Value> = names
        .map(|name| json!({"providerRef": {"name": name}, "events": ["Started", "Promoted", "Aborted", "DataLost"]}))
        .collect();
    shop.canary(
        json!([{"weight": 30, "hold": "4s"}]),
        json!({"alerts": alerts}),
    )
    .await?;
    shop.annotate("example.com/note", &format!("{PLANTED}-annotation"))
        .await?;
    shop.serves().await?;
    let traffic = shop.traffic(50, &[])?;

    shop.target("api-v2").await?;
    shop.at_weight(30, 15).await?;
    stage.world.stop(Component::Prometheus).await?;
    let unreachable = shop
        .wait("held", 15, |s| s.message.contains("cannot be reached"))
        .await;
    stage.world.start_again(Component::Prometheus).await?;
    unreachable?;
    shop.promoted(40).await?;
    shop.target("api-v1").await?;
    shop.at_weight(30, 15).await?;
    shop.annotate("serin.dev/abort", &shop.revision().await?)
        .await?;
    shop.wait("aborted", 15, |s| s.phase == Phase::Aborted)
        .await?;
    traffic.stop().await;
    let (headers, _) = stage
        .receiver
        .wait(&inbox, "Aborted", Duration::from_secs(10))
        .await?;
    ensure!(
        headers.get("x-key").is_some_and(|v| *v == header),
        "{headers:?}"
    );
    let until = Instant::now() + Duration::from_secs(20);
    let events = loop {
        let events = shop.kubectl(&["get", "events", "-o", "json"]).await?;
        let untold = FAILING.iter().find(|(_, words)| !events.contains(words));
        let Some((name, words)) = untold else {
            break events;
        };
        ensure!(Instant::now() < until, "no event of {name} says {words:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };

    let mut hidden = vec![PLANTED.to_owned(), token(stage)?];
    // As the API server sends it.
    for key in ["url", "key"] {
        let path = format!("jsonpath={{.data.{key}}}");
        hidden.push(
            shop.kubectl(&["get", "secret", "works", "-o", &path])
                .await?,
        );
    }
    let log = std::fs::read(stage.operator.log())?;
    let log = String::from_utf8_lossy(&log[usize::try_from(log_mark)?..]).into_owned();
    ensure!(log.contains("TRACE"), "the log is not at level trace");
    let status = shop
        .kubectl(&["get", "canaries", "-o", "jsonpath={.items[*].status}"])
        .await?;
    let outputs = [
        ("the log", log),
        ("/metrics", stage.operator.page("/metrics").await?),
        ("a status", status),
        ("an event", events),
        (
            "an AlertProvider",
            shop.kubectl(&["get", "alertproviders", "-o", "json"])
                .await?,
        ),
        (
            "the audit log",
            json!(audit_lines(stage, audit)?).to_string(),
        ),
        ("--help", help(&watched).await?),
    ];
    let mut found = Vec::new();
    for (what, text) in &outputs {
        ensure!(!text.is_empty(), "{what} is empty");
        for value in &hidden {
            let lines = text.lines().filter(|line| line.contains(value.as_str()));
            found.extend(
                lines
                    .take(5)
                    .map(|line| format!("{what}: {}", around(line, value))),
            );
        }
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    shop.close().await?;
    stage.operator.kill();
    stage.operator.start()?;
    stage.operator.ready().await
}

/// A part of a long line.
fn around(line: &str, value: &str) -> String {
    let at = line.find(value).unwrap_or(0);
    let head: String = line.chars().take(120).collect();
    let before: String = line[..at].chars().rev().take(60).collect();
    let before: String = before.chars().rev().collect();
    let after: String = line[at..].chars().take(80).collect();
    format!("{head} ... {before}{after}")
}

/// A provider with a Secret of its own.
async fn provider(shop: &Shop<'_>, name: &str, url: &str, header: &str) -> Result<()> {
    let mut data = json!({"key": header});
    if !url.is_empty() {
        data["url"] = json!(url);
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": shop.namespace},
        "stringData": data,
    });
    let provider = json!({
        "apiVersion": "serin.dev/v1alpha1", "kind": "AlertProvider",
        "metadata": {"name": name, "namespace": shop.namespace},
        "spec": {"webhook": {
            "urlFrom": {"name": name, "key": "url"},
            "headers": [{"name": "X-Key", "valueFrom": {"name": name, "key": "key"}}],
        }},
    });
    let group = "rbac.authorization.k8s.io";
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role",
        "metadata": {"name": format!("serin-{name}"), "namespace": shop.namespace},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get"]}],
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
        "metadata": {"name": format!("serin-{name}"), "namespace": shop.namespace},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": format!("serin-{name}")},
        "subjects": [{"kind": "ServiceAccount", "name": "serin", "namespace": "serin-system"}],
    });
    let all = [secret, provider, role, binding].map(|object| object.to_string());
    shop.stage.world.apply(&all.join("\n---\n")).await
}

/// The operator's own token for the API server.
fn token(stage: &Stage) -> Result<String> {
    let path = stage.world.dir().join("kubeconfig-serin-system-serin");
    let text = std::fs::read_to_string(path)?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "));
    let token = line
        .context("the kubeconfig has no token")?
        .trim_matches('"');
    ensure!(token.len() > 100, "no token of a ServiceAccount");
    Ok(token.to_owned())
}

/// What the program says of itself, told its settings by the environment.
async fn help(setting: &Setting) -> Result<String> {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_serin"))
        .args(["run", "--help"])
        .env("SERIN_PROMETHEUS_URL", &setting.prometheus)
        .stdin(Stdio::null())
        .output()
        .await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
