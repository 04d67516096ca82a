//! Fifty releases at once, each in a namespace of its own: no request fails, and none waits for another.

use crate::shop::{Shop, analysis, canonical};
use crate::{Run, Stage, tests};
use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use serin::api::{Canary, CanaryStatus, Phase};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![fifty_releases_at_once]
}

/// Half of them are promoted, half aborted.
const SHOPS: usize = 50;

/// Requests a second to each.
const RATE: u32 = 4;

/// How many are set up, or asked for something, at once.
const AT_ONCE: usize = 10;

async fn fifty_releases_at_once(stage: &Stage) -> Result<()> {
    let shops: Vec<_> = (0..SHOPS)
        .map(|n| Shop::at(stage, &format!("many-{n}")))
        .collect();
    let begun = Instant::now();
    let seen = Seen::follow(stage);
    for_all(&shops, set_up).await?;
    seen.wait("at rest", 60, |s| s.phase == Phase::Idle).await?;
    let mut original = HashMap::new();
    for shop in &shops {
        original.insert(shop.namespace.clone(), shop.route_spec().await?);
    }
    serve(stage, &shops).await?;
    let loads = shops
        .iter()
        .map(|shop| shop.traffic(RATE, &[]))
        .collect::<Result<Vec<_>>>()?;
    println!("{SHOPS} shops are set up after {:?}", begun.elapsed());

    let (audit, usage) = (audit_mark(stage)?, Usage::of(stage)?);
    let begun = Instant::now();
    for_all(&shops, async |shop: &Shop<'_>| {
        seen.changed(&shop.namespace);
        shop.target("api-v2").await
    })
    .await?;
    for_all(&shops, async |shop: &Shop<'_>| {
        if !is_aborted(shop) {
            return Ok(());
        }
        let at = |s: &CanaryStatus| s.weight == Some(60);
        let status = seen.wait_for(&shop.namespace, "at 60%", 60, at).await?;
        shop.annotate("serin.dev/abort", &status.revision.unwrap_or_default())
            .await
    })
    .await?;
    for shop in &shops {
        let end = if is_aborted(shop) {
            Phase::Aborted
        } else {
            Phase::Promoted
        };
        let at_end = |s: &CanaryStatus| s.phase == end;
        seen.wait_for(&shop.namespace, "at its end", 60, at_end)
            .await?;
    }
    let took = begun.elapsed();
    let used = Usage::of(stage)?.since(&usage);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let requests = audit_since(stage, audit)?;

    let (mut failed, mut total) = (Vec::new(), 0);
    for (shop, load) in shops.iter().zip(loads) {
        let counts = load.stop().await;
        total += counts.total();
        if counts.failed() > 0 {
            failed.push(format!("{}: {counts:?}", shop.namespace));
        }
    }
    let first = seen.first_weights()?;
    println!(
        "{SHOPS} releases in {took:?}: first weight after {:?} (p50), {:?} (p99); {used}; {total} client requests",
        first[first.len() / 2],
        first[first.len() * 99 / 100],
    );
    let each = requests.values().sum::<usize>() as f64 / SHOPS as f64;
    println!("API requests for each release: {each:.1}: {requests:?}");
    ensure!(failed.is_empty(), "failed requests: {failed:?}");
    for shop in &shops {
        let mut expected = original[&shop.namespace].clone();
        if !is_aborted(shop) {
            expected["rules"][0]["backendRefs"][0]["name"] = json!("api-v2");
        }
        let found = shop.route_spec().await?;
        ensure!(
            canonical(&found) == canonical(&expected),
            "{}: {found}, expected {expected}",
            shop.namespace
        );
    }
    // The goal is a second; the rest is for a machine that does other things too.
    let slowest = first.last().copied().unwrap_or_default();
    ensure!(
        slowest < Duration::from_secs(3),
        "first weights after {first:?}"
    );
    ensure!(used.resident < 150 << 20, "{used}");
    for_all(&shops, async |shop: &Shop<'_>| shop.close().await).await
}

fn is_aborted(shop: &Shop<'_>) -> bool {
    shop.namespace
        .trim_start_matches("many-")
        .parse()
        .is_ok_and(|n: usize| n % 2 == 1)
}

async fn for_all<'a>(
    shops: &'a [Shop<'a>],
    work: impl AsyncFn(&'a Shop<'a>) -> Result<()>,
) -> Result<()> {
    let work = &work;
    futures::stream::iter(shops)
        .map(async |shop| work(shop).await.with_context(|| shop.namespace.clone()))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn set_up(shop: &Shop<'_>) -> Result<()> {
    let (world, namespace) = (&shop.stage.world, &shop.namespace);
    world.namespace(namespace).await?;
    let route = testbed::route(namespace, "api", &shop.host(), &[("api-v1", 1)]);
    let canary = json!({
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "api", "namespace": namespace},
        "spec": {
            "target": {"backend": {"name": "api-v1", "port": 8080}},
            "routes": [{"kind": "HTTPRoute", "name": "api"}],
            "steps": [{"weight": 30, "hold": "2s"}, {"weight": 60, "hold": "3s"}],
            "analysis": analysis(),
        },
    });
    let all = [
        testbed::deployment(namespace, "api-v1", "v1", 1),
        testbed::deployment(namespace, "api-v2", "v2", 1),
        route,
        canary.to_string(),
    ];
    world.apply(&all.join("\n---\n")).await
}

/// Waits until every shop answers, from both versions' pods being ready on.
async fn serve(stage: &Stage, shops: &[Shop<'_>]) -> Result<()> {
    for shop in shops {
        for name in ["api-v1", "api-v2"] {
            shop.available(name).await?;
        }
        let until = Instant::now() + Duration::from_secs(20);
        while !stage
            .world
            .get(&shop.host(), "/", &[])
            .await
            .is_ok_and(|a| a.status == 200)
        {
            ensure!(Instant::now() < until, "{} does not serve", shop.host());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// What the watches have brought of the shops, and when.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashMap<String, Shown>>>);

#[derive(Default)]
struct Shown {
    canary: Option<Canary>,
    changed: Option<Instant>,
    weighted: Option<Instant>,
}

impl Seen {
    fn follow(stage: &Stage) -> Self {
        let seen = Self::default();
        let canaries: Api<Canary> = Api::all(stage.world.admin());
        let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "httproutes");
        let routes: Api<DynamicObject> = Api::all_with(stage.world.admin(), &resource);
        let (of_canaries, of_routes) = (seen.clone(), seen.clone());
        tokio::spawn(async move {
            let mut changes = watcher(canaries, watcher::Config::default())
                .default_backoff()
                .applied_objects()
                .boxed();
            while let Some(change) = changes.next().await {
                if let Ok(canary) = change {
                    of_canaries.with(&canary.namespace().unwrap_or_default(), |shown| {
                        shown.canary = Some(canary);
                    });
                }
            }
        });
        tokio::spawn(async move {
            let mut changes = watcher(routes, watcher::Config::default())
                .default_backoff()
                .applied_objects()
                .boxed();
            while let Some(change) = changes.next().await {
                let Ok(route) = change else { continue };
                let weighted = weight_of_v2(&route.data["spec"]) > 0;
                of_routes.with(&route.namespace().unwrap_or_default(), |shown| {
                    if weighted {
                        shown.weighted.get_or_insert_with(Instant::now);
                    }
                });
            }
        });
        seen
    }

    fn with<T>(&self, namespace: &str, look: impl FnOnce(&mut Shown) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        look(all.entry(namespace.to_owned()).or_default())
    }

    fn changed(&self, namespace: &str) {
        self.with(namespace, |shown| shown.changed = Some(Instant::now()));
    }

    async fn wait_for(
        &self,
        namespace: &str,
        what: &str,
        seconds: u64,
        holds: impl Fn(&CanaryStatus) -> bool,
    ) -> Result<CanaryStatus> {
        let until = Instant::now() + Duration::from_secs(seconds);
        loop {
            let (seen, status) = self.with(namespace, |shown| {
                let canary = shown.canary.as_ref();
                let status = canary.and_then(|c| c.status.clone()).unwrap_or_default();
                let generation = canary.and_then(|c| c.metadata.generation);
                (generation == Some(status.observed_generation), status)
            });
            if seen && holds(&status) {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!(
                    "{namespace} is not {what} within {seconds}s: {:?}: {}",
                    status.phase,
                    status.message
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn wait(
        &self,
        what: &str,
        seconds: u64,
        holds: impl Fn(&CanaryStatus) -> bool + Copy,
    ) -> Result<()> {
        for n in 0..SHOPS {
            self.wait_for(&format!("many-{n}"), what, seconds, holds)
                .await?;
        }
        Ok(())
    }

    /// From the change of the target to the first weight on the route, in order.
    fn first_weights(&self) -> Result<Vec<Duration>> {
        let mut all = Vec::new();
        for n in 0..SHOPS {
            let took = self.with(&format!("many-{n}"), |shown| {
                Some(shown.weighted?.saturating_duration_since(shown.changed?))
            });
            all.push(took.with_context(|| format!("many-{n} never had a weight"))?);
        }
        all.sort();
        Ok(all)
    }
}

fn weight_of_v2(spec: &Value) -> u64 {
    let backends = spec["rules"][0]["backendRefs"].as_array();
    backends
        .into_iter()
        .flatten()
        .filter(|backend| backend["name"] == "api-v2")
        .map(|backend| backend["weight"].as_u64().unwrap_or(1))
        .sum()
}

/// What the operator's process has used.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// Bytes, at the most.
    resident: u64,
    cpu: Duration,
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} of CPU, {} MiB at the most",
            self.cpu,
            self.resident >> 20
        )
    }
}

impl Usage {
    fn of(stage: &Stage) -> Result<Self> {
        let pid = stage.operator.pid().context("the operator does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().strip_suffix(" kB"));
        let kib: u64 = peak.context("no VmHWM")?.trim().parse()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // After the name in parentheses; 14 and 15 are utime and stime, in hundredths of a second (proc(5)).
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |at: usize| fields.get(at - 3).and_then(|text| text.parse::<u64>().ok());
        let ticks = ticks(14).zip(ticks(15)).context("no times")?;
        Ok(Self {
            resident: kib << 10,
            cpu: Duration::from_millis((ticks.0 + ticks.1) * 10),
        })
    }

    fn since(self, before: &Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            ..self
        }
    }
}

/// The end of the audit log.
pub fn audit_mark(stage: &Stage) -> Result<usize> {
    let path = stage
        .world
        .audit_log()
        .context("the world keeps no audit log")?;
    Ok(usize::try_from(std::fs::metadata(path)?.len())?)
}

/// The audit log since a place, line by line.
pub fn audit_lines(stage: &Stage, mark: usize) -> Result<Vec<Value>> {
    let path = stage
        .world
        .audit_log()
        .context("the world keeps no audit log")?;
    let bytes = std::fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes[mark.min(bytes.len())..]);
    let ours = |entry: &Value| {
        entry["user"]["username"] == "system:serviceaccount:serin-system:serin"
            && entry["stage"] == "ResponseComplete"
            && entry["verb"] != "watch"
    };
    let entries = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(entries.filter(ours).collect())
}

/// The operator's requests since a place, by verb and resource.
fn audit_since(stage: &Stage, mark: usize) -> Result<std::collections::BTreeMap<String, usize>> {
    let mut counts = std::collections::BTreeMap::new();
    for entry in audit_lines(stage, mark)? {
        let object = &entry["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let part = object["subresource"]
            .as_str()
            .map_or(String::new(), |p| format!("/{p}"));
        let key = format!(
            "{} {}{part}",
            text(&entry["verb"]),
            text(&object["resource"])
        );
        *counts.entry(key).or_default() += 1;
    }
    Ok(counts)
}
