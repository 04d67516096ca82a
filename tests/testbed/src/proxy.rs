//! The service proxy: what kube-proxy does, for Services whose cluster IPs are on
//! loopback. It listens on each cluster IP and port, and joins a connection to a
//! ready endpoint, one after the other.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::cluster;
use crate::ground::Addresses;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Serves every Service there is, until it is dropped.
pub(crate) async fn run(client: Client, addresses: Addresses) {
    let (services, services_writer) = reflector::store();
    let (slices, slices_writer) = reflector::store();
    let config = watcher::Config::default;
    let services_seen = watcher(Api::<Service>::all(client.clone()), config())
        .backoff(cluster::backoff())
        .reflect(services_writer)
        .map(|_| ());
    let slices_seen = watcher(Api::<EndpointSlice>::all(client), config())
        .backoff(cluster::backoff())
        .reflect(slices_writer)
        .map(|_| ());
    let mut seen = Box::pin(stream::select(services_seen, slices_seen));
    let mut proxy = Proxy {
        addresses,
        services,
        slices,
        listeners: HashMap::new(),
    };
    while seen.next().await.is_some() {
        proxy.sync();
    }
}

struct Proxy {
    addresses: Addresses,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    listeners: HashMap<SocketAddr, Listener>,
}

struct Listener {
    endpoints: Arc<Endpoints>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Endpoints {
    all: RwLock<Vec<SocketAddr>>,
    turn: AtomicUsize,
}

impl Proxy {
    /// Makes the listeners what the API says. Worlds are small: all of it, each time.
    fn sync(&mut self) {
        let mut slices: HashMap<(String, String), Vec<Arc<EndpointSlice>>> = HashMap::new();
        for slice in self.slices.state() {
            let service = slice
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(SERVICE_NAME))
                .cloned();
            let key = (
                slice.metadata.namespace.clone().unwrap_or_default(),
                service.unwrap_or_default(),
            );
            slices.entry(key).or_default().push(slice);
        }
        let mut wanted: HashMap<SocketAddr, Vec<SocketAddr>> = HashMap::new();
        for service in self.services.state() {
            let key = (
                service.metadata.namespace.clone().unwrap_or_default(),
                service.metadata.name.clone().unwrap_or_default(),
            );
            let Some(spec) = &service.spec else { continue };
            let Some(ip) = spec
                .cluster_ip
                .as_deref()
                .and_then(|ip| ip.parse::<IpAddr>().ok())
            else {
                continue;
            };
            if !self.addresses.is_service(ip) {
                continue;
            }
            let of_service = slices.get(&key).map(Vec::as_slice).unwrap_or_default();
            for port in spec
                .ports
                .iter()
                .flatten()
                .filter(|port| is_tcp(port.protocol.as_deref()))
            {
                let Ok(number) = u16::try_from(port.port) else {
                    continue;
                };
                wanted.insert((ip, number).into(), self.endpoints(of_service, port));
            }
        }
        self.listeners
            .retain(|address, _| wanted.contains_key(address));
        for (address, endpoints) in wanted {
            let listener = self.listeners.entry(address).or_insert_with(|| {
                let endpoints = Arc::<Endpoints>::default();
                Listener {
                    endpoints: endpoints.clone(),
                    task: tokio::spawn(listen(address, endpoints)),
                }
            });
            *listener
                .endpoints
                .all
                .write()
                .unwrap_or_else(PoisonError::into_inner) = endpoints;
        }
    }

    /// The ready endpoints of a Service's port; where there is none, those that
    /// still serve while they terminate, as kube-proxy does it (KEP-1669).
    fn endpoints(&self, slices: &[Arc<EndpointSlice>], port: &ServicePort) -> Vec<SocketAddr> {
        let (mut ready, mut serving) = (vec![], vec![]);
        for slice in slices {
            // A Service's only port may have no name, which a slice writes as "".
            let name = port.name.as_deref().unwrap_or_default();
            let number = slice.ports.iter().flatten().find(|candidate| {
                candidate.name.as_deref().unwrap_or_default() == name
                    && is_tcp(candidate.protocol.as_deref())
            });
            let Some(number) = number.and_then(|port| u16::try_from(port.port?).ok()) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let ip = endpoint
                    .addresses
                    .first()
                    .and_then(|ip| ip.parse::<Ipv4Addr>().ok());
                // An address that is no pod's of ours is dialled as it is.
                let Some(ip) = ip.map(|ip| self.addresses.of_pod(ip).unwrap_or(ip)) else {
                    continue;
                };
                let Some(conditions) = &endpoint.conditions else {
                    continue;
                };
                if conditions.ready.unwrap_or(true) {
                    ready.push((ip, number).into());
                } else if conditions.serving.unwrap_or(false)
                    && conditions.terminating.unwrap_or(false)
                {
                    serving.push((ip, number).into());
                }
            }
        }
        if ready.is_empty() { serving } else { ready }
    }
}

impl Endpoints {
    fn next(&self) -> Option<SocketAddr> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        all.get(turn.checked_rem(all.len())?).copied()
    }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

async fn listen(address: SocketAddr, endpoints: Arc<Endpoints>) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            // The Service of this address before may still be closing.
            Err(error) => {
                tracing::debug!(%address, %error, "the service proxy cannot listen");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    };
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(join(client, endpoints.next()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Joins the two connections until one ends; an abrupt end is passed on as one.
async fn join(mut client: TcpStream, endpoint: Option<SocketAddr>) {
    let server = match endpoint {
        Some(endpoint) => TcpStream::connect(endpoint).await.ok(),
        None => None,
    };
    let Some(mut server) = server else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    if tokio::io::copy_bidirectional(&mut client, &mut server)
        .await
        .is_err()
    {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}
