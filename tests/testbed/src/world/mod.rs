//! The world as a whole: its start, its parts, its end.

mod start;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use tokio::runtime::{Handle, Id, Runtime};

use crate::children::{Child, Recipe};
use crate::ground::{Folder, Slot};
use crate::load::{Answer, get};
use crate::parts::{Component, Layout, Programs};
use crate::{cluster, identity, terminal};

#[derive(Clone, Debug)]
pub struct Options {
    /// Write the API server's audit log, one JSON object a line, at level Metadata.
    pub audit: bool,
    /// Say nothing while the world starts. (Builds and downloads are told all the same.)
    pub quiet: bool,
    /// How long Traefik gathers changes before it acts on them.
    pub throttle: Duration,
    /// How often Prometheus scrapes Traefik.
    pub scrape_interval: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            audit: false,
            quiet: false,
            throttle: Duration::from_millis(200),
            scrape_interval: Duration::from_secs(1),
        }
    }
}

/// A running world. Dropped, all of it ends; after [`World::shutdown`] nothing is
/// left, otherwise its folder with the logs stays (for two days, unless it is in use).
pub struct World {
    options: Options,
    layout: Layout,
    programs: Programs,
    children: Mutex<BTreeMap<Component, Child>>,
    /// Set once the API server is there.
    config: Option<Config>,
    clients: Mutex<HashMap<Id, Client>>,
    /// The node and the service proxy, away from the caller's own tasks.
    runtime: Option<Runtime>,
    folder: Folder,
    slot: Slot,
    clean: bool,
}

impl World {
    /// Brings a world up: everything answers when this returns.
    ///
    /// # Errors
    /// When a program can neither be found nor made, or a part does not come up: the
    /// error has the end of its log.
    pub async fn start(options: Options) -> Result<World> {
        // An error means that the process has a provider already, which will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let programs = Programs::find().await?;
        let begun = Instant::now();
        let mut slot = Slot::claim()?;
        let folder = Folder::make()?;
        let layout = Layout::new(folder.path(), &mut slot)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("testbed")
            .enable_all()
            .build()
            .context("start threads")?;
        let mut world = World {
            options,
            layout,
            programs,
            children: Mutex::default(),
            config: None,
            clients: Mutex::default(),
            runtime: Some(runtime),
            folder,
            slot,
            clean: false,
        };
        world
            .bring_up(begun)
            .await
            .context("bring the testbed up")?;
        Ok(world)
    }

    /// A client with all rights (group `system:masters`), for the runtime it is asked in.
    pub fn admin(&self) -> Client {
        let config = self
            .config
            .clone()
            .expect("a world is handed out once its API server answers");
        let make = || {
            Client::try_from(config)
                .expect("this configuration made a client when the world started")
        };
        // A client's connections end with the runtime that they began in.
        match Handle::try_current() {
            Ok(handle) => lock(&self.clients)
                .entry(handle.id())
                .or_insert_with(make)
                .clone(),
            Err(_) => {
                let _inside = self.runtime.as_ref().map(Runtime::enter);
                make()
            }
        }
    }

    /// The kubeconfig file of [`World::admin`], for people's kubectl.
    pub fn kubeconfig(&self) -> &Path {
        &self.layout.kubeconfig
    }

    /// The kubectl binary.
    pub fn kubectl(&self) -> &Path {
        &self.programs.kubectl
    }

    /// Writes a kubeconfig file with a token of this ServiceAccount, good for a day.
    ///
    /// # Errors
    /// When the ServiceAccount does not exist.
    pub async fn kubeconfig_for(&self, namespace: &str, service_account: &str) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), namespace);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(86_400),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(service_account, &PostParams::default(), &request)
            .await
            .with_context(|| {
                format!("get a token for the ServiceAccount {namespace}/{service_account}")
            })?;
        let token = answer
            .status
            .context("the token request has no answer")?
            .token;
        let path = self
            .layout
            .dir
            .join(format!("kubeconfig-{namespace}-{service_account}"));
        let authority = self
            .authority()?
            .context("the API server's certificate is not there")?;
        std::fs::write(
            &path,
            identity::kubeconfig(
                &self.api_url(),
                &authority,
                service_account,
                &token,
                namespace,
            ),
        )?;
        Ok(path)
    }

    pub fn api_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.layout.api)
    }

    /// Where the Gateway's listener is.
    pub fn gateway_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.layout.gateway).into()
    }

    pub fn prometheus_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.layout.prometheus)
    }

    /// What Prometheus scrapes.
    pub fn traefik_metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.layout.gateway_admin)
    }

    /// The world's folder: a log file for each part, kubeconfig files, data.
    pub fn dir(&self) -> &Path {
        &self.layout.dir
    }

    pub fn audit_log(&self) -> Option<PathBuf> {
        self.options.audit.then(|| self.layout.audit_log())
    }

    /// Makes a namespace, after the end of one of this name that is being deleted.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        cluster::make_namespace(&self.admin(), name).await
    }

    /// Applies the documents of a YAML text server-side, with force, as
    /// [`FIELD_MANAGER`](crate::FIELD_MANAGER). Namespaced objects must name their namespace.
    ///
    /// # Errors
    /// When a document cannot be read or the API server refuses it: those before it
    /// have been applied.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        cluster::apply(&self.admin(), yaml).await
    }

    /// One GET request through the gateway.
    ///
    /// # Errors
    /// When the connection fails or no answer comes within 10 s.
    pub async fn get(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        get(self.gateway_addr(), host, path, headers).await
    }

    /// Ends a part (SIGTERM, after 5 s SIGKILL). Its data and its port stay.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&self, component: Component) -> Result<()> {
        let child = lock(&self.children).remove(&component);
        let child = child.with_context(|| format!("{} does not run", component.name()))?;
        child.stop(Duration::from_secs(5)).await?;
        Ok(())
    }

    /// Ends a part at once, with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, component: Component) -> Result<()> {
        let child = lock(&self.children).remove(&component);
        drop(child.with_context(|| format!("{} does not run", component.name()))?);
        Ok(())
    }

    /// Starts a part that was stopped or killed, and waits until it answers.
    ///
    /// # Errors
    /// When it runs already, or does not come up.
    pub async fn start_again(&self, component: Component) -> Result<()> {
        self.launch(component)?;
        self.ready(component).await
    }

    /// Freezes a part (SIGSTOP): connections to it stay, and get no answer.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, component: Component) -> Result<()> {
        lock(&self.children)
            .get(&component)
            .with_context(|| format!("{} does not run", component.name()))?
            .pause()
    }

    /// Lets a frozen part go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, component: Component) -> Result<()> {
        lock(&self.children)
            .get(&component)
            .with_context(|| format!("{} does not run", component.name()))?
            .resume()
    }

    /// The process id of a part that runs.
    pub fn pid(&self, component: Component) -> Option<u32> {
        lock(&self.children).get(&component).map(Child::id)
    }

    /// Starts a process of the test's own, such as the operator, that ends with the
    /// test as the parts do. Its output goes to `NAME.log` in the world's folder, after
    /// that of a process of this name before it. The caller's environment holds, but
    /// for `KUBECONFIG`, proxies and what tells a program that it is in a cluster.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn<A: Into<String>>(
        &self,
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        envs: &[(&str, &str)],
    ) -> Result<Process> {
        let log = self.layout.dir.join(format!("{name}.log"));
        let recipe = Recipe {
            name: name.to_owned(),
            program: program.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            envs: envs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            dir: None,
            log: log.clone(),
        };
        Ok(Process {
            child: Child::start(&self.programs.guard, &recipe)?,
            log,
        })
    }

    /// Keeps the world's folder after its end, and says where it is.
    pub fn keep(&self) {
        if !self.folder.is_kept() {
            self.folder.keep();
            terminal::say(&format!(
                "testbed: the logs stay in {}",
                self.layout.dir.display()
            ));
        }
    }

    /// Ends the world and leaves nothing, unless [`World::keep`] was called.
    pub async fn shutdown(mut self) {
        self.clean = true;
        let children = std::mem::take(&mut *lock(&self.children));
        // Killing waits for each process's end.
        let _ = tokio::task::spawn_blocking(move || drop(children)).await;
    }

    fn authority(&self) -> Result<Option<String>> {
        match std::fs::read_to_string(self.layout.certificate()) {
            Ok(text) => Ok(identity::authority(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: a drop may happen inside another runtime.
            runtime.shutdown_background();
        }
        lock(&self.children).clear();
        if !self.clean || std::thread::panicking() {
            self.keep();
        }
        if !self.folder.is_kept() {
            self.folder.remove();
        }
    }
}

/// A process of the test's own. Dropped, it is killed (SIGKILL).
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it and those of its name before it wrote.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Fails with the end of the log when the process has ended.
    ///
    /// # Errors
    /// When it has.
    pub fn alive(&mut self) -> Result<()> {
        self.child.alive()
    }

    /// Freezes it (SIGSTOP).
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.child.pause()
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.child.resume()
    }

    /// SIGTERM, and after `patience` SIGKILL.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn stop(self, patience: Duration) -> Result<ExitStatus> {
        self.child.stop(patience).await
    }

    /// SIGKILL.
    pub fn kill(self) {
        drop(self);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_can_be_shared_by_all_tests_of_a_program() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<World>();
        fn sent<T: Send>(_: T) {}
        sent(World::start(Options::default()));
    }
}
