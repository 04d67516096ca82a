//! How the parts come up, and how it is known that they have.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::{World, lock};
use crate::children::{Child, tail};
use crate::load::get;
use crate::parts::Component;
use crate::{GATEWAY, GATEWAY_NAMESPACE, cluster, identity, node, proxy, samples, terminal};

/// How long a part may take to be ready, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    pub(super) async fn bring_up(&mut self, begun: Instant) -> Result<()> {
        let said = |quiet: bool, what: &str| {
            if !quiet {
                terminal::say(&format!(
                    "testbed: {what} ({:.1} s)",
                    begun.elapsed().as_secs_f64()
                ));
            }
        };
        let quiet = self.options.quiet;
        self.layout.write_files(&self.options)?;
        for component in [Component::Etcd, Component::ApiServer, Component::Prometheus] {
            self.launch(component)?;
        }
        self.write_kubeconfig().await?;
        self.ready(Component::ApiServer).await?;
        said(quiet, "etcd and kube-apiserver answer");

        let client = self.admin();
        self.launch(Component::ControllerManager)?;
        let gateway = async {
            cluster::apply_crds(&client, &self.programs.gateway_api).await?;
            self.launch(Component::Gateway)?;
            cluster::make_namespace(&client, GATEWAY_NAMESPACE).await?;
            cluster::apply(&client, &samples::gateway(self.layout.gateway)).await?;
            said(quiet, "the Gateway API is there");
            self.until(Component::Gateway, "the Gateway to be programmed", || {
                gateway_programmed(&client)
            })
            .await
        };
        let node = async {
            node::register(&client).await?;
            let runtime = self.runtime.as_ref().context("the world is ending")?;
            let _inside = runtime.enter();
            // A client of that runtime, so that its connections live there.
            let client = self.admin();
            runtime.spawn(node::run(client.clone(), self.slot.addresses()));
            runtime.spawn(proxy::run(client, self.slot.addresses()));
            Ok(())
        };
        let controllers = async {
            self.ready(Component::ControllerManager).await?;
            said(quiet, "kube-controller-manager works");
            Ok(())
        };
        tokio::try_join!(
            gateway,
            node,
            controllers,
            self.ready(Component::Prometheus)
        )?;
        said(quiet, "Traefik and Prometheus answer: the world is up");
        Ok(())
    }

    pub(super) fn launch(&self, component: Component) -> Result<()> {
        let mut children = lock(&self.children);
        ensure!(
            !children.contains_key(&component),
            "{} runs already",
            component.name()
        );
        let recipe = self.layout.recipe(component, &self.programs, &self.options);
        children.insert(component, Child::start(&self.programs.guard, &recipe)?);
        Ok(())
    }

    pub(super) async fn ready(&self, component: Component) -> Result<()> {
        let what = format!("{} to answer", component.name());
        self.until(component, &what, || async {
            match component {
                Component::Etcd => Ok(tokio::net::TcpStream::connect((
                    Ipv4Addr::LOCALHOST,
                    self.layout.etcd,
                ))
                .await
                .is_ok()),
                Component::ApiServer => {
                    let request = hyper::Request::get("/readyz").body(vec![])?;
                    Ok(self.admin().request_text(request).await? == "ok")
                }
                // It serves nothing, so it is known by a thing that it makes.
                Component::ControllerManager => {
                    let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), "default");
                    Ok(accounts.get_opt("default").await?.is_some())
                }
                Component::Gateway => answers(self.layout.gateway_admin, "/ping").await,
                Component::Prometheus => answers(self.layout.prometheus, "/-/ready").await,
            }
        })
        .await
    }

    /// Waits for a yes, as long as the part lives.
    async fn until<F>(
        &self,
        component: Component,
        what: &str,
        asked: impl FnMut() -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<bool>>,
    {
        let dies = async {
            loop {
                match lock(&self.children).get_mut(&component) {
                    Some(child) => child.alive()?,
                    None => bail!("{} was stopped", component.name()),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let log = self.layout.dir.join(format!("{}.log", component.name()));
        tokio::select! {
            answer = cluster::wait(what, PATIENCE, asked) => answer.with_context(|| tail(&log)),
            death = dies => death,
        }
    }

    /// The API server makes its certificate, and a CA for it, while it starts.
    async fn write_kubeconfig(&mut self) -> Result<()> {
        let made = || async { Ok(self.authority()?.is_some()) };
        self.until(Component::ApiServer, "kube-apiserver's certificate", made)
            .await?;
        let authority = self
            .authority()?
            .context("the API server's certificate is gone")?;
        let text = identity::kubeconfig(
            &self.api_url(),
            &authority,
            "admin",
            &self.layout.token,
            "default",
        );
        std::fs::write(&self.layout.kubeconfig, text)?;
        let kubeconfig = Kubeconfig::read_from(&self.layout.kubeconfig)?;
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.proxy_url = None;
        // Whatever is wrong with it is said here.
        Client::try_from(config.clone())?;
        self.config = Some(config);
        Ok(())
    }
}

async fn answers(port: u16, path: &str) -> Result<bool> {
    Ok(
        get((Ipv4Addr::LOCALHOST, port).into(), "localhost", path, &[])
            .await?
            .status
            == 200,
    )
}

async fn gateway_programmed(client: &Client) -> Result<bool> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "gateway.networking.k8s.io",
        "v1",
        "Gateway",
    ));
    let gateways: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), GATEWAY_NAMESPACE, &kind);
    let gateway = gateways.get(GATEWAY).await?;
    let conditions = gateway.data["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    Ok(conditions
        .iter()
        .any(|condition| condition["type"] == "Programmed" && condition["status"] == "True"))
}
