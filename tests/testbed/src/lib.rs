//! A real small Kubernetes on loopback, for tests and for the playground: etcd,
//! kube-apiserver and kube-controller-manager, the Gateway API's CRDs, Traefik as
//! the data plane, Prometheus that scrapes it every second, and a node whose pods
//! are served inside this process. No containers, no root.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use serin_testbed::{Options, World, deployment, load::Load, route};
//!
//! let world = World::start(Options::default()).await?;
//! world.namespace("shop").await?;
//! world.apply(&deployment("shop", "api", "v1", 2)).await?;
//! world.apply(&route("shop", "api", "api.test", &[("api", 1)])).await?;
//! let load = Load::new("api.test", 200).start(world.gateway_addr());
//! // ...
//! assert_eq!(load.stop().await.failed(), 0);
//! world.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! The first start builds the control plane and Prometheus with Go (some minutes)
//! and fetches the rest with pip; the user's cache directory keeps all of it, and
//! later starts take seconds. See [`binary`].
//!
//! # What a pod does
//!
//! Any image is the sample pod: an HTTP server on the container's TCP ports (8080
//! if it names none) that answers every request with 200, `x-version: TAG` and
//! `x-pod: NAME`. The version is the image's whole tag; of an image without one, the
//! label `version`, else the variable `VERSION`, else `latest`.
//!
//! Behaviour comes from the first container's environment (so `kubectl set env`
//! causes it) or from parts of the image's tag, each after a `-` (so `kubectl set
//! image` does): `shop/api:v2-error20-latency50ms`. A variable stands above the
//! tag; parts of a tag that mean nothing here (`v2-rc1`) are only part of the name; a
//! variable that cannot be read is a CreateContainerConfigError that says so.
//!
//! | variable | part of a tag | the pod |
//! |---|---|---|
//! | `ERROR_RATE=20%` or `0.2` | `error20`, `error0.5` (percent) | answers that part of the requests with 500 |
//! | `LATENCY=50ms` | `latency50ms` | answers after this time |
//! | `LATENCY=50ms..400ms` | `latency50ms..400ms` | answers after a lognormal time with this median and 99th percentile |
//! | `HANG=5%` or `0.05` | `hang` (all), `hang5` | never answers that part of the requests |
//! | `START_AFTER=2s` | `start2s` | is in ContainerCreating for so long |
//! | `READY_AFTER=5s`, `never` | `ready5s`, `notready` | is Ready so long after its start |
//! | `CRASH=true`, `CRASH=3s` | `crash`, `crash3s` | ends with code 1 at its start, or so long after each, then CrashLoopBackOff (1 s, doubled up to 10 s) |
//! | `PULL=never` | `nopull` | gets ErrImagePull, then ImagePullBackOff |
//! | `DRAIN=3s` (1 s) | `drain3s` | goes on serving for so long once it is told to terminate, with `Connection: close`, then finishes what is begun and exits |
//! | `TERMINATION=rude` | `rude` | is gone the moment it is told to terminate: its connections are reset |
//! | `EXIT_AFTER=1s` (1 s) | – | of a Job: ends with code 0 so long after its start |
//!
//! Times are `250ms`, `1.5s` or `2m`; rates are exact over every 20 requests of a
//! pod, at places that differ from pod to pod. A crash, or a deletion with grace
//! period 0, resets the pod's connections. The grace period bounds `DRAIN`.
//!
//! A pod shows an address of `10.244.0.0/16`, which nobody can dial: go through its
//! Service, whose cluster IP is a loopback address. Not there: logs, exec, port
//! forwarding, init containers, probes, and anything a scheduler weighs.

mod binaries;
mod children;
mod cluster;
mod ground;
mod helm;
mod identity;
pub mod load;
mod node;
mod parts;
mod proxy;
mod receiver;
mod samples;
mod terminal;
mod world;

/// The name of the only node.
pub const NODE: &str = "testbed";

pub use binaries::{GATEWAY_API, KUBERNETES, binary};
pub use cluster::{FIELD_MANAGER, documents, wait};
pub use helm::Helm;
pub use parts::Component;
pub use receiver::Receiver;
pub use samples::{
    GATEWAY, GATEWAY_CLASS, GATEWAY_CONTROLLER, GATEWAY_NAMESPACE, LISTENER, PORT, deployment,
    route, service,
};
pub use world::{Options, Process, World};
