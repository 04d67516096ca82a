//! Two operators, and the one that leads fails in the middle of a release: the other goes on, the
//! one that was deposed writes nothing, and no request fails.

use crate::audit::{self, Entry};
use crate::line::Line;
use crate::operator::Operator;
use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::{Value, json};
use serin::api::CanaryStatus;
use std::time::{Duration, Instant};
use testbed::Component;

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![
        failover_after_kill_at_each_step,
        failover_on_leaving_is_at_once,
    ]
}

/// Minutes of waiting for leases and for a control plane to come back.
pub fn long() -> Vec<(&'static str, Run)> {
    tests![
        failover_after_stop_and_continue_at_each_step,
        failover_after_a_cut_line_at_each_step,
        failover_at_the_default_lease,
        failover_with_an_api_server_that_restarts,
        failover_with_an_etcd_that_restarts,
        failover_with_an_api_server_frozen_for_30s,
    ]
}

/// Two operators, each with its own line to the API server, in place of the stage's one.
struct Pair<'a> {
    stage: &'a Stage,
    operators: [(Operator, Line); 2],
    begun: usize,
}

impl<'a> Pair<'a> {
    async fn set_up(stage: &'a Stage, lease: &str) -> Result<Self> {
        stage.operator.stop().await?;
        let api = stage.world.api_url();
        let api = api.trim_start_matches("https://").parse()?;
        let begun = audit::mark(&stage.world)?;
        let one = async |identity: &str| -> Result<_> {
            let line = Line::to(api).await?;
            let operator = stage
                .operator
                .beside(&stage.world, identity, lease, &line.url())?;
            operator.start()?;
            operator.ready().await?;
            Ok((operator, line))
        };
        let operators = [one("left").await?, one("right").await?];
        let pair = Self {
            stage,
            operators,
            begun,
        };
        pair.leader().await?;
        Ok(pair)
    }

    /// Whom the Lease names.
    async fn holder(&self) -> Result<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.stage.world.admin(), "serin-system");
        let spec = leases.get("serin").await?.spec.unwrap_or_default();
        Ok(spec.holder_identity.filter(|holder| !holder.is_empty()))
    }

    /// The one that leads, and knows it, and the one that stands by.
    async fn leader(&self) -> Result<(&(Operator, Line), &(Operator, Line))> {
        let [left, right] = &self.operators;
        for _ in 0..1000 {
            let leads = tokio::join!(left.0.leads(), right.0.leads());
            match (leads.0.unwrap_or(false), leads.1.unwrap_or(false)) {
                (true, false) => return Ok((left, right)),
                (false, true) => return Ok((right, left)),
                (true, true) => bail!("both believe that they lead"),
                (false, false) => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
        bail!("nobody leads")
    }

    /// Waits until this one leads, and says how long that was.
    async fn taken_by(&self, operator: &Operator, most: Duration) -> Result<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < most {
            if self.holder().await?.as_ref() == Some(&operator.identity) {
                return Ok(begun.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("{} does not lead after {most:?}", operator.identity)
    }

    /// What the audit log must show: only who leads writes. Says how many late writes failed.
    fn only_leaders_wrote(&self) -> Result<usize> {
        let entries = audit::since(&self.stage.world, self.begun)?;
        let mut leader = String::new();
        let mut deposed_since: Option<&Entry> = None;
        let mut late = 0;
        for entry in entries.iter().filter(|entry| entry.is_write()) {
            if entry.is_lease() {
                if entry.passed() && entry.identity != leader {
                    leader.clone_from(&entry.identity);
                    deposed_since = Some(entry);
                }
                continue;
            }
            if entry.identity == leader {
                continue;
            }
            late += 1;
            ensure!(
                !entry.passed(),
                "{} wrote after {leader} had taken the lease: {entry:?} after {deposed_since:?}",
                entry.identity
            );
        }
        Ok(late)
    }

    async fn close(self) -> Result<()> {
        let late = self.only_leaders_wrote();
        for (operator, line) in &self.operators {
            line.mend();
            if operator.pid().is_some() {
                operator.thaw()?;
            }
            operator.stop().await?;
        }
        self.stage.operator.start()?;
        self.stage.operator.ready().await?;
        println!("late writes, all of them refused: {}", late?);
        Ok(())
    }
}

/// Runs a test with two operators, and puts the stage's own back whatever happens.
async fn with_two<'a>(
    stage: &'a Stage,
    lease: &str,
    test: impl AsyncFnOnce(&Pair<'a>) -> Result<()>,
) -> Result<()> {
    let pair = Pair::set_up(stage, lease).await?;
    let tested = test(&pair).await;
    let closed = pair.close().await;
    tested.and(closed)
}

fn steps() -> Value {
    json!([
        {"headers": [{"name": "x-canary", "value": "true"}], "hold": "2s"},
        {"weight": 10, "hold": "2s"},
        {"weight": 30, "hold": "2s"},
        {"weight": 60, "hold": "2s"},
    ])
}

async fn at_step(shop: &Shop<'_>, step: usize, seconds: u64) -> Result<CanaryStatus> {
    let text = format!("{step}/4");
    shop.wait(&text, seconds, |s| s.step.as_deref() == Some(&text))
        .await
}

/// Every step was there, each once.
fn whole(status: &CanaryStatus) -> Result<()> {
    let points = status.release.iter().flat_map(|r| &r.timeline);
    let mut weights: Vec<u8> = points.map(|point| point.weight).collect();
    weights.dedup();
    ensure!(weights == [0, 10, 30, 60, 100], "{weights:?}");
    ensure!(status.history.len() == 1, "{:?}", status.history);
    Ok(())
}

/// A release in which the leader fails at each step: `fail` does it, `heal` undoes it once the other leads.
async fn fails_at_each_step(
    stage: &Stage,
    name: &str,
    fail: impl Fn(&(Operator, Line)) -> Result<()>,
    heal: impl Fn(usize, &(Operator, Line)) -> Result<()>,
    alive: bool,
) -> Result<()> {
    with_two(stage, "6s", async |pair| {
        let shop = Shop::open(stage, name).await?;
        shop.canary(steps(), json!({})).await?;
        shop.serves().await?;
        let traffic = shop.traffic(100, &[])?;
        shop.target("api-v2").await?;
        let mut took = Vec::new();
        for step in 1..=4 {
            at_step(&shop, step, 20).await?;
            let (leader, other) = pair.leader().await?;
            fail(leader)?;
            took.push(
                pair.taken_by(&other.0, Duration::from_millis(7500))
                    .await
                    .with_context(|| format!("step {step}"))?,
            );
            if alive {
                ensure!(
                    !leader.0.leads().await?,
                    "the deposed one believes that it leads"
                );
                ensure!(leader.0.page("/readyz").await? == "ok\n", "not ready");
            }
            heal(step, leader)?;
            let now = shop.status().await?.step;
            let now = now
                .as_deref()
                .and_then(|s| s.split('/').next()?.parse().ok());
            ensure!(
                now.is_none_or(|now: usize| now <= step + 1),
                "a step was skipped"
            );
        }
        whole(&shop.promoted(40).await?)?;
        let counts = traffic.stop().await;
        ensure!(counts.failed() == 0, "{} requests failed", counts.failed());
        stage
            .receiver
            .wait(name, "Promoted", Duration::from_secs(10))
            .await?;
        println!("{name}: the other led, with a lease of 6s, after {took:?}");
        shop.close().await
    })
    .await
}

async fn failover_after_kill_at_each_step(stage: &Stage) -> Result<()> {
    let kill = |leader: &(Operator, Line)| {
        leader.0.kill();
        Ok(())
    };
    fails_at_each_step(stage, "fo-kill", kill, |_, dead| dead.0.start(), false).await
}

async fn failover_after_stop_and_continue_at_each_step(stage: &Stage) -> Result<()> {
    let heal = |_, stopped: &(Operator, Line)| stopped.0.thaw();
    fails_at_each_step(stage, "fo-stop", |leader| leader.0.freeze(), heal, false).await
}

async fn failover_after_a_cut_line_at_each_step(stage: &Stage) -> Result<()> {
    let cut = |leader: &(Operator, Line)| {
        leader.1.freeze();
        Ok(())
    };
    // By turns what was on the line is lost, or arrives late.
    let heal = |step: usize, cut: &(Operator, Line)| {
        if step.is_multiple_of(2) {
            cut.1.mend();
        } else {
            cut.1.thaw();
        }
        Ok(())
    };
    fails_at_each_step(stage, "fo-line", cut, heal, true).await
}

/// As it is shipped; and a release that begins while nobody leads has its first weight within 3 s of the lease.
async fn failover_at_the_default_lease(stage: &Stage) -> Result<()> {
    with_two(stage, "12s", async |pair| {
        let shop = Shop::open(stage, "fo-long").await?;
        shop.canary(json!([{"weight": 20, "hold": "2s"}]), json!({}))
            .await?;
        shop.serves().await?;
        let traffic = shop.traffic(100, &[])?;
        let (leader, other) = pair.leader().await?;
        ensure!(
            leader.0.leads().await? && !other.0.leads().await?,
            "serin_leader"
        );
        ensure!(
            other.0.page("/readyz").await? == "ok\n",
            "a standby is not ready"
        );
        let mark = audit::mark(&stage.world)?;
        leader.0.kill();
        shop.target("api-v2").await?;
        let took = pair.taken_by(&other.0, Duration::from_secs(16)).await?;
        shop.promoted(40).await?;
        let counts = traffic.stop().await;
        ensure!(counts.failed() == 0, "{} requests failed", counts.failed());
        let entries = audit::since(&stage.world, mark)?;
        let of_other = |resource: &str| {
            let found = entries.iter().find(|entry| {
                entry.is_write()
                    && entry.passed()
                    && entry.identity == other.0.identity
                    && entry.resource == resource
            });
            found
                .map(|entry| entry.answered)
                .with_context(|| format!("no write of {resource}"))
        };
        let (lease, weight) = (of_other("leases")?, of_other("httproutes")?);
        let first = weight - lease;
        println!(
            "fo-long: killed, the other led after {took:?}; first weight {first} after the lease"
        );
        ensure!(
            first.num_milliseconds() < 3000,
            "first weight after {first}"
        );
        shop.close().await
    })
    .await
}

/// SIGTERM gives the lease back.
async fn failover_on_leaving_is_at_once(stage: &Stage) -> Result<()> {
    with_two(stage, "12s", async |pair| {
        let shop = Shop::open(stage, "fo-leave").await?;
        shop.canary(json!([{"weight": 20, "hold": "4s"}]), json!({}))
            .await?;
        shop.serves().await?;
        let traffic = shop.traffic(100, &[])?;
        shop.target("api-v2").await?;
        shop.at_weight(20, 10).await?;
        let (leader, other) = pair.leader().await?;
        let left = leader.0.stop();
        let (left, took) = tokio::join!(left, pair.taken_by(&other.0, Duration::from_secs(3)));
        left?;
        println!("fo-leave: the other led {:?} after SIGTERM", took?);
        shop.promoted(30).await?;
        let counts = traffic.stop().await;
        ensure!(counts.failed() == 0, "{} requests failed", counts.failed());
        shop.close().await
    })
    .await
}

/// A release in whose middle something happens to the control plane.
async fn control_plane(
    stage: &Stage,
    name: &str,
    disturb: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    with_two(stage, "12s", async |pair| {
        let shop = Shop::open(stage, name).await?;
        shop.canary(steps(), json!({})).await?;
        shop.serves().await?;
        let traffic = shop.traffic(100, &[])?;
        shop.target("api-v2").await?;
        at_step(&shop, 3, 30).await?;
        disturb().await?;
        let begun = Instant::now();
        whole(&shop.promoted(60).await?)?;
        let counts = traffic.stop().await;
        ensure!(counts.failed() == 0, "{} requests failed", counts.failed());
        pair.leader().await?;
        println!("{name}: promoted {:?} after it was over", begun.elapsed());
        shop.close().await
    })
    .await
}

async fn failover_with_an_api_server_that_restarts(stage: &Stage) -> Result<()> {
    control_plane(stage, "fo-api", async || {
        stage.world.stop(Component::ApiServer).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        stage.world.start_again(Component::ApiServer).await
    })
    .await
}

async fn failover_with_an_etcd_that_restarts(stage: &Stage) -> Result<()> {
    control_plane(stage, "fo-etcd", async || {
        stage.world.stop(Component::Etcd).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        stage.world.start_again(Component::Etcd).await?;
        // Its clients come back in their own time.
        testbed::wait(
            "the API server to answer",
            Duration::from_secs(30),
            async || {
                Ok(stage.world.admin().apiserver_version().await.is_ok()
                    && Api::<Lease>::namespaced(stage.world.admin(), "serin-system")
                        .get_opt("serin")
                        .await
                        .is_ok())
            },
        )
        .await
    })
    .await
}

async fn failover_with_an_api_server_frozen_for_30s(stage: &Stage) -> Result<()> {
    control_plane(stage, "fo-frozen", async || {
        stage.world.pause(Component::ApiServer)?;
        tokio::time::sleep(Duration::from_secs(30)).await;
        stage.world.resume(Component::ApiServer)
    })
    .await
}
