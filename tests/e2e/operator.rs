//! The operator under test: the real binary, as the ServiceAccount that it is shipped with.

use anyhow::{Context, Result};
use kube::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use testbed::{Helm, World};

/// The chart that it is shipped as.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/serin");

pub struct Operator {
    pub identity: String,
    lease: String,
    kubeconfig: PathBuf,
    log: PathBuf,
    prometheus: String,
    listen: SocketAddr,
    allow_egress: String,
    child: Mutex<Option<Child>>,
}

/// What a run of the operator can be given besides.
#[derive(Debug, Clone)]
pub struct Setting {
    pub prometheus: String,
    /// As the flag takes it: entries with commas between them.
    pub allow_egress: String,
    /// `RUST_LOG`.
    pub filter: String,
}

impl Operator {
    /// Installs the definitions and the rights, and starts the operator.
    pub async fn install(world: &World, allow_egress: &str) -> Result<Self> {
        let chart = Helm::of(Path::new(CHART)).await?;
        let rendered = chart
            .template("serin", "serin-system", &serde_json::json!({}))
            .await?;
        world.namespace("serin-system").await?;
        for object in testbed::documents(&rendered)? {
            // All but the Deployment: the process below stands for its pods.
            if object["kind"] != "Deployment" {
                world.apply(&object.to_string()).await?;
            }
        }
        let operator = Self {
            // The same after each start, so that it finds the lease its own.
            identity: "serin".into(),
            lease: "12s".into(),
            kubeconfig: world.kubeconfig_for("serin-system", "serin").await?,
            log: world.dir().join("serin.log"),
            prometheus: world.prometheus_url(),
            listen: free_port()?,
            allow_egress: allow_egress.to_owned(),
            child: Mutex::new(None),
        };
        operator.start()?;
        operator.ready().await?;
        Ok(operator)
    }

    /// Another operator, not started yet, which reaches the API server at `api`, with leases that last so long.
    pub fn beside(&self, world: &World, identity: &str, lease: &str, api: &str) -> Result<Self> {
        let kubeconfig = world.dir().join(format!("kubeconfig-{identity}"));
        let text = std::fs::read_to_string(&self.kubeconfig)?;
        std::fs::write(&kubeconfig, text.replace(&world.api_url(), api))?;
        Ok(Self {
            identity: identity.into(),
            lease: lease.into(),
            kubeconfig,
            log: world.dir().join(format!("serin-{identity}.log")),
            prometheus: self.prometheus.clone(),
            listen: free_port()?,
            allow_egress: self.allow_egress.clone(),
            child: Mutex::new(None),
        })
    }

    /// What it is started with.
    pub fn setting(&self) -> Setting {
        Setting {
            prometheus: self.prometheus.clone(),
            allow_egress: self.allow_egress.clone(),
            filter: "info,serin=debug".into(),
        }
    }

    pub fn start(&self) -> Result<()> {
        self.start_with(&self.setting())
    }

    pub fn start_with(&self, setting: &Setting) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(env!("CARGO_BIN_EXE_serin"))
            .args(["run", "--log-format=pretty", "--settle=600ms"])
            .args(["--leader-election", "--lease-namespace=serin-system"])
            .arg(format!("--lease-duration={}", self.lease))
            .arg(format!("--identity={}", self.identity))
            .arg(format!("--prometheus-url={}", setting.prometheus))
            .arg(format!("--listen={}", self.listen))
            .arg(format!("--allow-egress={}", setting.allow_egress))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("RUST_LOG", &setting.filter)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the operator")?;
        *self.child.lock().unwrap() = Some(child);
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&self) -> Result<()> {
        let Some(mut child) = self.child.lock().unwrap().take() else {
            return Ok(());
        };
        signal(child.id(), Signal::TERM)?;
        for _ in 0..400 {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let _ = child.kill();
        let _ = child.wait();
        anyhow::bail!("{} did not end within 10s of SIGTERM", self.identity)
    }

    /// SIGSTOP: it stands still between two instructions.
    pub fn freeze(&self) -> Result<()> {
        signal(self.pid().context("it does not run")?, Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        signal(self.pid().context("it does not run")?, Signal::CONT)
    }

    /// Where all its runs log.
    pub fn log(&self) -> &std::path::Path {
        &self.log
    }

    /// What it serves at a path.
    pub async fn page(&self, path: &str) -> Result<String> {
        let url = format!("http://{}{path}", self.listen);
        let answer = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()?
            .get(url)
            .send()
            .await?;
        Ok(answer.text().await?)
    }

    /// Whether it believes that it leads.
    pub async fn leads(&self) -> Result<bool> {
        let page = self.page("/metrics").await?;
        Ok(page.lines().any(|line| line == "serin_leader 1"))
    }

    /// `kill -9`: nothing is said, nothing is tidied.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.lock().unwrap().as_ref().map(Child::id)
    }

    pub async fn ready(&self) -> Result<()> {
        for _ in 0..200 {
            // Readiness comes with the first Canary that is looked at; listening is enough here.
            if tokio::net::TcpStream::connect(self.listen).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the operator does not listen; see {}", self.log.display())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.context("a process id")?, signal)?)
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A dynamic API of one of our kinds or of the Gateway API's.
pub fn api(
    client: &Client,
    namespace: &str,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
) -> kube::Api<kube::api::DynamicObject> {
    let gvk = kube::api::GroupVersionKind::gvk(group, version, kind);
    kube::Api::namespaced_with(
        client.clone(),
        namespace,
        &kube::api::ApiResource::from_gvk_with_plural(&gvk, plural),
    )
}
