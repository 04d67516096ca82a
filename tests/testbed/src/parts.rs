//! The command line of each part of the world.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Options;
use crate::children::Recipe;
use crate::ground::Slot;
use crate::identity;

/// A process of the world that a test can stop, pause and start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
    /// Traefik, the Gateway's data plane.
    Gateway,
    Prometheus,
}

impl Component {
    pub const ALL: [Component; 5] = [
        Component::Etcd,
        Component::ApiServer,
        Component::ControllerManager,
        Component::Gateway,
        Component::Prometheus,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Component::Etcd => "etcd",
            Component::ApiServer => "kube-apiserver",
            Component::ControllerManager => "kube-controller-manager",
            Component::Gateway => "traefik",
            Component::Prometheus => "prometheus",
        }
    }
}

/// Only those that matter to a release.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,endpointslice-controller,\
    garbage-collector-controller,namespace-controller,serviceaccount-controller,\
    horizontal-pod-autoscaler-controller,clusterrole-aggregation-controller,job-controller";

/// Traefik's default buckets start at 100 ms, too coarse for any latency question.
const BUCKETS: &str = "0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5";

const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// Where things are in this world.
#[derive(Debug)]
pub(crate) struct Layout {
    pub dir: PathBuf,
    pub kubeconfig: PathBuf,
    pub etcd: u16,
    pub etcd_peer: u16,
    pub api: u16,
    pub gateway: u16,
    pub gateway_admin: u16,
    pub prometheus: u16,
    pub service_range: String,
    pub token: String,
}

impl Layout {
    pub(crate) fn new(dir: &Path, slot: &mut Slot) -> Result<Layout> {
        Ok(Layout {
            dir: dir.to_owned(),
            kubeconfig: dir.join("kubeconfig"),
            etcd: slot.port()?,
            etcd_peer: slot.port()?,
            api: slot.port()?,
            gateway: slot.port()?,
            gateway_admin: slot.port()?,
            prometheus: slot.port()?,
            service_range: slot.service_range(),
            token: identity::random_token()?,
        })
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.join("certs/apiserver.crt")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Writes what the parts read when they start.
    pub(crate) fn write_files(&self, options: &Options) -> Result<()> {
        identity::write_signing_keys(
            &self.dir.join("service-accounts.key"),
            &self.dir.join("service-accounts.pub"),
        )?;
        std::fs::write(
            self.dir.join("tokens.csv"),
            format!("{},admin,admin,\"system:masters\"\n", self.token),
        )?;
        std::fs::write(self.dir.join("audit-policy.yaml"), AUDIT_POLICY)?;
        let interval = options.scrape_interval.as_millis();
        let config = format!(
            "global:
  scrape_interval: {interval}ms
  scrape_timeout: {interval}ms
  evaluation_interval: {interval}ms
scrape_configs:
- job_name: traefik
  static_configs:
  - targets: ['127.0.0.1:{}']
",
            self.gateway_admin
        );
        std::fs::write(self.dir.join("prometheus.yaml"), config)?;
        Ok(())
    }

    pub(crate) fn recipe(
        &self,
        component: Component,
        programs: &Programs,
        options: &Options,
    ) -> Recipe {
        let (program, args) = match component {
            Component::Etcd => (&programs.control_plane, self.etcd()),
            Component::ApiServer => (&programs.control_plane, self.api_server(options)),
            Component::ControllerManager => (&programs.control_plane, self.controller_manager()),
            Component::Gateway => (&programs.traefik, self.traefik(options)),
            Component::Prometheus => (&programs.prometheus, self.prometheus()),
        };
        let envs = match component {
            Component::Gateway => vec![("KUBECONFIG".to_owned(), self.file("kubeconfig"))],
            Component::Etcd
            | Component::ApiServer
            | Component::ControllerManager
            | Component::Prometheus => vec![],
        };
        Recipe {
            name: component.name().to_owned(),
            program: program.clone(),
            args,
            envs,
            // What a part writes without being asked must not litter the caller's folder.
            dir: Some(self.dir.clone()),
            log: self.dir.join(format!("{}.log", component.name())),
        }
    }

    fn etcd(&self) -> Vec<String> {
        let (client, peer) = (
            format!("http://127.0.0.1:{}", self.etcd),
            format!("http://127.0.0.1:{}", self.etcd_peer),
        );
        vec![
            "etcd".into(),
            "--name=testbed".into(),
            format!("--data-dir={}", self.file("etcd")),
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=testbed={peer}"),
        ]
    }

    fn api_server(&self, options: &Options) -> Vec<String> {
        let mut args = vec![
            "kube-apiserver".into(),
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--secure-port={}", self.api),
            format!("--cert-dir={}", self.file("certs")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!(
                "--service-account-key-file={}",
                self.file("service-accounts.pub")
            ),
            format!(
                "--service-account-signing-key-file={}",
                self.file("service-accounts.key")
            ),
            format!("--token-auth-file={}", self.file("tokens.csv")),
            "--authorization-mode=RBAC".into(),
            "--endpoint-reconciler-type=none".into(),
            "--disable-admission-plugins=ServiceAccount".into(),
            format!("--service-cluster-ip-range={}", self.service_range),
        ];
        if options.audit {
            args.push(format!(
                "--audit-policy-file={}",
                self.file("audit-policy.yaml")
            ));
            args.push(format!("--audit-log-path={}", self.audit_log().display()));
            args.push("--audit-log-maxsize=2000".into());
        }
        args
    }

    fn controller_manager(&self) -> Vec<String> {
        vec![
            "kube-controller-manager".into(),
            format!("--kubeconfig={}", self.file("kubeconfig")),
            "--leader-elect=false".into(),
            "--use-service-account-credentials=true".into(),
            "--secure-port=0".into(),
            "--kube-api-qps=500".into(),
            "--kube-api-burst=1000".into(),
            format!("--controllers={CONTROLLERS}"),
        ]
    }

    fn traefik(&self, options: &Options) -> Vec<String> {
        vec![
            format!(
                "--entryPoints.{}.address=127.0.0.1:{}",
                crate::LISTENER,
                self.gateway
            ),
            format!(
                "--entryPoints.traefik.address=127.0.0.1:{}",
                self.gateway_admin
            ),
            "--providers.kubernetesgateway=true".into(),
            "--providers.kubernetesgateway.nativeLBByDefault=true".into(),
            "--providers.kubernetesgateway.statusaddress.ip=127.0.0.1".into(),
            format!(
                "--providers.providersThrottleDuration={}ms",
                options.throttle.as_millis()
            ),
            "--metrics.prometheus=true".into(),
            "--metrics.prometheus.addRoutersLabels=true".into(),
            format!("--metrics.prometheus.buckets={BUCKETS}"),
            "--ping=true".into(),
            "--log.level=INFO".into(),
            "--global.checkNewVersion=false".into(),
            "--global.sendAnonymousUsage=false".into(),
        ]
    }

    fn prometheus(&self) -> Vec<String> {
        vec![
            format!("--config.file={}", self.file("prometheus.yaml")),
            format!("--storage.tsdb.path={}", self.file("prometheus")),
            "--storage.tsdb.retention.time=2h".into(),
            format!("--web.listen-address=127.0.0.1:{}", self.prometheus),
            "--log.level=warn".into(),
        ]
    }
}

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    pub guard: PathBuf,
    pub control_plane: PathBuf,
    pub prometheus: PathBuf,
    pub traefik: PathBuf,
    pub kubectl: PathBuf,
    pub gateway_api: PathBuf,
}

impl Programs {
    pub(crate) async fn find() -> Result<Programs> {
        use crate::binaries::binary;
        // One after the other: each build uses every core there is.
        Ok(Programs {
            guard: binary("guard").await?,
            traefik: binary("traefik").await?,
            kubectl: binary("kubectl").await?,
            gateway_api: binary("gateway-api").await?,
            control_plane: binary("control-plane").await?,
            prometheus: binary("prometheus").await?,
        })
    }
}
