//! A shop in a namespace of its own: versions behind Services, a route, a Canary, traffic.

use crate::Stage;
use crate::operator::api;
use anyhow::{Context, Result, bail};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use serin::api::{Canary, CanaryStatus, Phase};
use std::process::Stdio;
use std::time::{Duration, Instant};
use testbed::load::{Load, Running};

pub struct Shop<'a> {
    pub stage: &'a Stage,
    pub namespace: String,
    /// When the test began; messages of failures count from it.
    begun: Instant,
}

/// What is measured every second: quick enough for releases of seconds.
pub fn analysis() -> Value {
    json!({"errorRate": {"max": "5%", "vsStable": {}}, "interval": "1s"})
}

impl<'a> Shop<'a> {
    /// Versions v1 and v2 behind `api-v1` and `api-v2`, and a route that serves v1.
    pub async fn open(stage: &'a Stage, namespace: &str) -> Result<Shop<'a>> {
        Self::open_with(
            stage,
            namespace,
            &[("api-v1", "v1"), ("api-v2", "v2")],
            |_| {},
        )
        .await
    }

    /// The same with other versions (name of Deployment and Service, image tag), and a route that `edit` has changed.
    pub async fn open_with(
        stage: &'a Stage,
        namespace: &str,
        versions: &[(&str, &str)],
        edit: impl FnOnce(&mut Value),
    ) -> Result<Shop<'a>> {
        let shop = Self::at(stage, namespace);
        stage.world.namespace(namespace).await?;
        for (name, tag) in versions {
            stage
                .world
                .apply(&testbed::deployment(namespace, name, tag, 1))
                .await?;
        }
        let mut route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "api", "namespace": namespace},
            "spec": {
                "parentRefs": [{"name": testbed::GATEWAY, "namespace": testbed::GATEWAY_NAMESPACE}],
                "hostnames": [shop.host()],
                "rules": [{"backendRefs": [{"name": "api-v1", "port": 8080}]}],
            },
        });
        edit(&mut route);
        stage.world.apply(&serde_json::to_string(&route)?).await?;
        shop.settle_alerts().await?;
        for (name, _) in versions {
            shop.available(name).await?;
        }
        Ok(shop)
    }

    /// What there is in a namespace.
    pub fn at(stage: &'a Stage, namespace: &str) -> Shop<'a> {
        Self {
            stage,
            namespace: namespace.into(),
            begun: Instant::now(),
        }
    }

    pub fn host(&self) -> String {
        format!("{}.example", self.namespace)
    }

    /// An AlertProvider `oncall` that leads to the stage's receiver, and the right to read its Secret.
    async fn settle_alerts(&self) -> Result<()> {
        let objects = include_str!("../../examples/alerts.yaml")
            .replace("namespace: shop", &format!("namespace: {}", self.namespace))
            .replace(
                "https://hooks.example.com/serin",
                &self.stage.receiver.url(&self.namespace),
            );
        self.stage.world.apply(&objects).await
    }

    /// Takes the shop down, so that nothing of it goes on beside the next test.
    pub async fn close(&self) -> Result<()> {
        self.kubectl(&["delete", "canaries", "--all", "--timeout=60s"])
            .await?;
        self.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"])
            .await?;
        Ok(())
    }

    /// Waits until a Deployment has its pods ready.
    pub async fn available(&self, name: &str) -> Result<()> {
        let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
            Api::namespaced(self.stage.world.admin(), &self.namespace);
        for _ in 0..600 {
            let status = deployments.get(name).await?.status.unwrap_or_default();
            if status.available_replicas.unwrap_or(0) > 0
                && status.unavailable_replicas.unwrap_or(0) == 0
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{name} is not available after 30s")
    }

    pub fn canaries(&self) -> Api<Canary> {
        Api::namespaced(self.stage.world.admin(), &self.namespace)
    }

    pub fn routes(&self) -> Api<DynamicObject> {
        api(
            &self.stage.world.admin(),
            &self.namespace,
            "gateway.networking.k8s.io",
            "v1",
            "HTTPRoute",
            "httproutes",
        )
    }

    pub async fn route_spec(&self) -> Result<Value> {
        Ok(self.routes().get("api").await?.data["spec"].clone())
    }

    /// Applies a Canary `api` with these steps, and waits until it is at rest on v1.
    pub async fn canary(&self, steps: Value, more: Value) -> Result<()> {
        let all = [
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
        let mut spec = json!({
            "target": {"backend": {"name": "api-v1", "port": 8080}},
            "routes": [{"kind": "HTTPRoute", "name": "api"}],
            "steps": steps,
            "analysis": analysis(),
            "alerts": [{"providerRef": {"name": "oncall"}, "events": all}],
        });
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        let canary = json!({
            "apiVersion": "serin.dev/v1alpha1",
            "kind": "Canary",
            "metadata": {"name": "api", "namespace": self.namespace},
            "spec": spec,
        });
        self.stage.world.apply(&canary.to_string()).await?;
        self.wait("at rest", 20, |status| status.phase == Phase::Idle)
            .await?;
        Ok(())
    }

    pub async fn patch(&self, spec: Value) -> Result<Canary> {
        let patch = Patch::Merge(json!({"spec": spec}));
        Ok(self
            .canaries()
            .patch("api", &PatchParams::default(), &patch)
            .await?)
    }

    /// Names another backend as the one that should serve.
    pub async fn target(&self, name: &str) -> Result<()> {
        self.patch(json!({"target": {"backend": {"name": name}}}))
            .await?;
        Ok(())
    }

    pub async fn annotate(&self, key: &str, value: &str) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        self.canaries()
            .patch("api", &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    pub async fn status(&self) -> Result<CanaryStatus> {
        Ok(self.canaries().get("api").await?.status.unwrap_or_default())
    }

    pub async fn revision(&self) -> Result<String> {
        self.status()
            .await?
            .revision
            .context("status has no revision")
    }

    /// Waits until the status says something; fails at once where it ends otherwise.
    pub async fn wait(
        &self,
        what: &str,
        seconds: u64,
        holds: impl Fn(&CanaryStatus) -> bool,
    ) -> Result<CanaryStatus> {
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut status;
        loop {
            let canary = self.canaries().get("api").await?;
            let seen =
                canary.status.as_ref().map(|s| s.observed_generation) == canary.metadata.generation;
            status = canary.status.unwrap_or_default();
            if seen && holds(&status) {
                return Ok(status);
            }
            if Instant::now() > until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        bail!(
            "not {what} within {seconds}s (at {:?}): {:?} step {:?} weight {:?}: {}",
            self.begun.elapsed(),
            status.phase,
            status.step,
            status.weight,
            status.message
        )
    }

    pub async fn promoted(&self, seconds: u64) -> Result<CanaryStatus> {
        self.wait("promoted", seconds, |status| {
            status.phase == Phase::Promoted
        })
        .await
    }

    pub async fn at_weight(&self, weight: u8, seconds: u64) -> Result<CanaryStatus> {
        self.wait(&format!("at weight {weight}"), seconds, |status| {
            status.weight == Some(weight) && status.phase != Phase::Idle
        })
        .await
    }

    /// Requests to the shop, at a constant rate, through the gateway.
    pub fn traffic(&self, rate: u32, headers: &[(&str, &str)]) -> Result<Running> {
        let load = Load {
            rate,
            host: self.host(),
            path: "/".into(),
            headers: headers
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            bound: Duration::from_secs(180),
            ..Load::default()
        };
        Ok(load.start(self.stage.world.gateway_addr()))
    }

    /// Waits until requests are answered.
    pub async fn serves(&self) -> Result<()> {
        for _ in 0..200 {
            let probe = Load {
                bound: Duration::from_secs(5),
                ..Load::new(self.host(), 20)
            };
            let running = probe.start(self.stage.world.gateway_addr());
            tokio::time::sleep(Duration::from_millis(300)).await;
            let counts = running.stop().await;
            if counts.failed() == 0 && counts.total() > 0 {
                return Ok(());
            }
        }
        bail!("{} does not serve", self.host())
    }

    /// What kubectl prints.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = tokio::process::Command::new(self.stage.world.kubectl())
            .arg("--kubeconfig")
            .arg(self.stage.world.kubeconfig())
            .args(["--namespace", &self.namespace])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "kubectl {}: {}{text}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(text)
    }

    /// What kubectl says when it refuses.
    pub async fn kubectl_apply_refused(&self, object: &Value) -> Result<String> {
        use tokio::io::AsyncWriteExt;
        let mut child = tokio::process::Command::new(self.stage.world.kubectl())
            .arg("--kubeconfig")
            .arg(self.stage.world.kubeconfig())
            .args(["--namespace", &self.namespace, "apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child
            .stdin
            .take()
            .context("kubectl has no standard input")?;
        stdin.write_all(object.to_string().as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        if output.status.success() {
            bail!("it was taken: {object}");
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Objects as one canonical text: keys in order.
pub fn canonical(value: &Value) -> String {
    // serde_json's map keeps its keys sorted.
    value.to_string()
}
