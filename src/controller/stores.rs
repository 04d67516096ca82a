//! What is watched, kept as caches, and which Canaries a change touches.

use crate::api::{Backend, Canary, GATEWAY_GROUP, RouteKind};
use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt, TryStreamExt, future};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;
use tracing::{info, warn};

/// Caches of all that is watched beside the Canaries.
#[derive(Clone)]
pub struct Stores {
    routes: Store<DynamicObject>,
    gateways: Store<DynamicObject>,
    classes: Store<DynamicObject>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    endpoints: Endpoints,
    filled: watch::Receiver<bool>,
}

/// Something that has changed.
#[derive(Debug)]
enum Touched {
    Route { namespace: String, name: String },
    Gateway { namespace: String, name: String },
    Class,
    Service { namespace: String, name: String },
}

/// The watches that fill the caches. They run only while [`Watches::touched`] is polled.
pub struct Watches {
    stores: Stores,
    touched: SelectAll<BoxStream<'static, Touched>>,
}

/// The API resource of a route kind.
pub fn route_resource(kind: RouteKind) -> ApiResource {
    match kind {
        RouteKind::HTTPRoute => gateway_resource("HTTPRoute", "httproutes"),
    }
}

fn gateway_resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GATEWAY_GROUP, "v1", kind), plural)
}

impl Stores {
    pub fn watch(client: &Client) -> (Self, Watches) {
        let dynamic =
            |resource: &ApiResource| Api::<DynamicObject>::all_with(client.clone(), resource);
        let (route, gateway, class) = (
            route_resource(RouteKind::HTTPRoute),
            gateway_resource("Gateway", "gateways"),
            gateway_resource("GatewayClass", "gatewayclasses"),
        );
        let (routes, route_stream) = cached(dynamic(&route), route, |r| {
            Some(Touched::Route {
                namespace: r.namespace()?,
                name: r.name_any(),
            })
        });
        let (gateways, gateway_stream) = cached(dynamic(&gateway), gateway, |g| {
            Some(Touched::Gateway {
                namespace: g.namespace()?,
                name: g.name_any(),
            })
        });
        let (classes, class_stream) = cached(dynamic(&class), class, |_| Some(Touched::Class));
        let (services, service_stream) = cached(Api::<Service>::all(client.clone()), (), |s| {
            Some(Touched::Service {
                namespace: s.namespace()?,
                name: s.name_any(),
            })
        });
        let endpoints = Endpoints::default();
        let (slices, slice_stream) = cached_with(
            Api::<EndpointSlice>::all(client.clone()),
            (),
            {
                let endpoints = endpoints.clone();
                move |event| endpoints.follow(event)
            },
            |slice| {
                Some(Touched::Service {
                    namespace: slice.namespace()?,
                    name: owner(slice)?.to_owned(),
                })
            },
        );
        let (tell, filled) = watch::channel(false);
        let stores = Self {
            routes,
            gateways,
            classes,
            services,
            slices,
            endpoints,
            filled,
        };
        tokio::spawn(stores.clone().tell_when_filled(tell));
        let touched = futures::stream::select_all([
            route_stream,
            gateway_stream,
            class_stream,
            service_stream,
            slice_stream,
        ]);
        (stores.clone(), Watches { stores, touched })
    }

    /// Waits for all caches, for everyone: a store wakes only the last of several that wait for it.
    async fn tell_when_filled(self, tell: watch::Sender<bool>) {
        let filled = future::try_join5(
            self.routes.wait_until_ready(),
            self.gateways.wait_until_ready(),
            self.classes.wait_until_ready(),
            self.services.wait_until_ready(),
            self.slices.wait_until_ready(),
        );
        if filled.await.is_ok() {
            info!("all watches are complete");
            tell.send_replace(true);
        }
    }

    /// Returns when every cache has been filled once.
    pub async fn filled(&self) {
        // The sender is dropped only when the whole controller ends, and then nobody waits here.
        let _ = self.filled.clone().wait_for(|filled| *filled).await;
    }

    pub fn route(&self, kind: RouteKind, namespace: &str, name: &str) -> Option<Value> {
        let reference = ObjectRef::new_with(name, route_resource(kind)).within(namespace);
        json(&*self.routes.get(&reference)?)
    }

    /// The controller that a Gateway's class belongs to.
    pub fn controller_of(&self, namespace: &str, gateway: &str) -> Option<String> {
        let resource = gateway_resource("Gateway", "gateways");
        let gateway = self
            .gateways
            .get(&ObjectRef::new_with(gateway, resource).within(namespace))?;
        let class = gateway.data["spec"]["gatewayClassName"].as_str()?;
        let resource = gateway_resource("GatewayClass", "gatewayclasses");
        let class = self.classes.get(&ObjectRef::new_with(class, resource))?;
        class.data["spec"]["controllerName"]
            .as_str()
            .map(str::to_owned)
    }

    /// The ports of a Service; none when it is not there.
    pub fn service_ports(&self, namespace: &str, name: &str) -> Option<Vec<i32>> {
        let service = self.services.get(&ObjectRef::new(name).within(namespace))?;
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        Some(ports.into_iter().flatten().map(|port| port.port).collect())
    }

    /// Whether any endpoint of a Service is ready.
    pub fn has_ready_endpoint(&self, namespace: &str, service: &str) -> bool {
        self.endpoints.any_ready(namespace, service)
    }
}

impl Watches {
    /// The Canaries that changes touch.
    pub fn touched(
        self,
        canaries: Store<Canary>,
    ) -> impl Stream<Item = ObjectRef<Canary>> + Send + 'static {
        let stores = self.stores;
        self.touched.flat_map(move |touched| {
            let hit: Vec<_> = canaries
                .state()
                .iter()
                .filter(|canary| touches(&touched, canary, &stores))
                .map(|canary| ObjectRef::from_obj(&**canary))
                .collect();
            futures::stream::iter(hit)
        })
    }
}

fn touches(touched: &Touched, canary: &Canary, stores: &Stores) -> bool {
    // Asked for every Canary at every change, so nothing is copied.
    let here = canary.metadata.namespace.as_deref().unwrap_or_default();
    let status = canary.status.as_ref();
    match touched {
        Touched::Route { namespace, name } => {
            let known = status
                .into_iter()
                .flat_map(|s| &s.routes)
                .any(|r| r.name == *name);
            *namespace == here && (known || canary.spec.routes.iter().any(|r| r.name == *name))
        }
        Touched::Gateway { namespace, name } => canary.spec.routes.iter().any(|r| {
            let route = stores.route(r.kind, here, &r.name);
            route.is_some_and(|route| {
                crate::traffic::parents(&route)
                    .iter()
                    .any(|p| p.gateway() == Some((namespace, name)))
            })
        }),
        Touched::Class => true,
        Touched::Service { namespace, name } => {
            let release = status
                .and_then(|s| s.release.as_ref())
                .map(|r| &r.candidate);
            let backends = canary.spec.target.backend.iter().chain(release);
            backends.into_iter().any(|backend: &Backend| {
                backend.name == *name && backend.namespace.as_deref().unwrap_or(here) == namespace
            })
        }
    }
}

/// The slices of each Service that have a ready endpoint: a look at one Canary must not look at all slices.
#[derive(Debug, Clone, Default)]
struct Endpoints(Arc<RwLock<Ready>>);

/// By namespace and name of the Service.
#[derive(Debug, Default)]
struct Ready {
    slices: HashMap<String, HashMap<String, HashSet<String>>>,
    /// The Service of each slice above, by namespace and name of the slice.
    owners: HashMap<(String, String), String>,
    /// What a new list has brought so far.
    listed: Vec<EndpointSlice>,
}

impl Endpoints {
    fn any_ready(&self, namespace: &str, service: &str) -> bool {
        let ready = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let services = ready.slices.get(namespace);
        services.is_some_and(|services| services.contains_key(service))
    }

    fn follow(&self, event: &watcher::Event<EndpointSlice>) {
        let mut ready = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            watcher::Event::Apply(slice) => ready.put(slice),
            watcher::Event::Delete(slice) => ready.remove(slice),
            watcher::Event::Init => ready.listed.clear(),
            watcher::Event::InitApply(slice) => ready.listed.push(slice.clone()),
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut ready.listed);
                *ready = Ready::default();
                listed.iter().for_each(|slice| ready.put(slice));
            }
        }
    }
}

impl Ready {
    fn put(&mut self, slice: &EndpointSlice) {
        self.remove(slice);
        let Some((service, (namespace, name))) = owner(slice).zip(key(slice)) else {
            return;
        };
        // An unset condition is to be taken for ready (EndpointConditions in the API reference).
        let ready = slice.endpoints.iter().any(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.is_none_or(|c| c.ready.unwrap_or(true))
        });
        if ready {
            let services = self.slices.entry(namespace.clone()).or_default();
            let slices = services.entry(service.to_owned()).or_default();
            slices.insert(name.clone());
            self.owners.insert((namespace, name), service.to_owned());
        }
    }

    fn remove(&mut self, slice: &EndpointSlice) {
        let Some(key) = key(slice) else { return };
        let Some(service) = self.owners.remove(&key) else {
            return;
        };
        let (namespace, name) = key;
        let Some(services) = self.slices.get_mut(&namespace) else {
            return;
        };
        if let Some(slices) = services.get_mut(&service) {
            slices.remove(&name);
            if slices.is_empty() {
                services.remove(&service);
            }
        }
        if services.is_empty() {
            self.slices.remove(&namespace);
        }
    }
}

fn key(slice: &EndpointSlice) -> Option<(String, String)> {
    slice
        .metadata
        .namespace
        .clone()
        .zip(slice.metadata.name.clone())
}

fn owner(slice: &EndpointSlice) -> Option<&str> {
    slice
        .labels()
        .get("kubernetes.io/service-name")
        .map(String::as_str)
}

fn json(object: &DynamicObject) -> Option<Value> {
    serde_json::to_value(object).ok()
}

/// A cache and the stream that fills it.
fn cached<K>(
    api: Api<K>,
    kind: K::DynamicType,
    touched: impl Fn(&K) -> Option<Touched> + Send + Sync + 'static,
) -> (Store<K>, BoxStream<'static, Touched>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Clone + Eq + Hash + Debug + Send + Sync,
{
    cached_with(api, kind, |_| {}, touched)
}

/// The same, with someone who follows all that happens, before the cache knows it.
fn cached_with<K>(
    api: Api<K>,
    kind: K::DynamicType,
    mut follow: impl FnMut(&watcher::Event<K>) + Send + 'static,
    touched: impl Fn(&K) -> Option<Touched> + Send + Sync + 'static,
) -> (Store<K>, BoxStream<'static, Touched>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Clone + Eq + Hash + Debug + Send + Sync,
{
    let plural = K::plural(&kind).into_owned();
    let writer = reflector::store::Writer::new(kind);
    let store = writer.as_reader();
    let touched = Arc::new(touched);
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect_ok(move |event| follow(event))
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .filter_map(move |change| {
            let found = match change {
                Ok(object) => touched(&object),
                Err(err) => {
                    warn!(kind = plural, error = %err, "a watch was interrupted");
                    None
                }
            };
            future::ready(found)
        })
        .boxed();
    (store, stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    fn slice(name: &str, service: &str, ready: &[Option<bool>]) -> EndpointSlice {
        let mut slice = EndpointSlice::default();
        slice.metadata.namespace = Some("shop".into());
        slice.metadata.name = Some(name.into());
        let label = "kubernetes.io/service-name".to_owned();
        slice.labels_mut().insert(label, service.into());
        slice.endpoints = ready.iter().map(|ready| endpoint(*ready)).collect();
        slice
    }

    fn endpoint(ready: Option<bool>) -> Endpoint {
        Endpoint {
            conditions: Some(EndpointConditions {
                ready,
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        }
    }

    #[test]
    fn a_service_is_ready_while_a_slice_of_it_is() {
        let endpoints = Endpoints::default();
        let ready = |service: &str| endpoints.any_ready("shop", service);
        endpoints.follow(&Apply(slice("a-1", "a", &[Some(false)])));
        assert!(!ready("a"));
        endpoints.follow(&Apply(slice("a-1", "a", &[Some(false), Some(true)])));
        endpoints.follow(&Apply(slice("a-2", "a", &[None])));
        assert!(ready("a") && !ready("b") && !endpoints.any_ready("other", "a"));
        endpoints.follow(&Apply(slice("a-1", "a", &[])));
        assert!(ready("a"), "the other slice has one");
        endpoints.follow(&Apply(slice("a-2", "b", &[None])));
        assert!(
            !ready("a") && ready("b"),
            "it belongs to another Service now"
        );
        endpoints.follow(&Delete(slice("a-2", "b", &[None])));
        assert!(!ready("b"));
        assert!(
            endpoints.0.read().unwrap().slices.is_empty(),
            "nothing is left behind"
        );
    }

    #[test]
    fn a_new_list_takes_the_place_of_all_once_it_is_complete() {
        let endpoints = Endpoints::default();
        endpoints.follow(&Apply(slice("a-1", "a", &[None])));
        endpoints.follow(&Init);
        endpoints.follow(&InitApply(slice("b-1", "b", &[None])));
        assert!(endpoints.any_ready("shop", "a") && !endpoints.any_ready("shop", "b"));
        endpoints.follow(&InitDone);
        assert!(!endpoints.any_ready("shop", "a") && endpoints.any_ready("shop", "b"));
    }

    /// Ten thousand slices cost a question nothing; each look at a Canary asks one.
    #[test]
    fn a_question_does_not_look_at_all_slices() {
        let endpoints = Endpoints::default();
        for n in 0..10_000 {
            endpoints.follow(&Apply(slice(&format!("s-{n}"), &format!("s-{n}"), &[None])));
        }
        let begun = std::time::Instant::now();
        for n in 0..10_000 {
            assert!(endpoints.any_ready("shop", &format!("s-{n}")));
        }
        let each = begun.elapsed() / 10_000;
        assert!(each < std::time::Duration::from_micros(200), "{each:?}");
    }
}
