//! The operator under test: the real binary, as the ServiceAccount that it is shipped with.

use anyhow::{Context, Result};
use kube::Client;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use testbed::World;

/// What the operator may do, as it is shipped.
const MANIFEST: &str = include_str!("../../deploy/serin.yaml");

pub struct Operator {
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
        for (name, text) in serin::cli::crds::definitions()? {
            world
                .apply(&text)
                .await
                .with_context(|| format!("crds/{name}"))?;
        }
        // All of the manifest but the Deployment: the process below stands for its pod.
        let rights: Vec<&str> = MANIFEST
            .split("\n---\n")
            .filter(|doc| !doc.contains("kind: Deployment"))
            .collect();
        world.apply(&rights.join("\n---\n")).await?;
        let operator = Self {
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
