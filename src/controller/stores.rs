//! What is watched, kept as caches, and which Canaries a change touches.

use crate::api::{Backend, Canary, GATEWAY_GROUP, RouteKind};
use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
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
        let (slices, slice_stream) =
            cached(Api::<EndpointSlice>::all(client.clone()), (), |slice| {
                Some(Touched::Service {
                    namespace: slice.namespace()?,
                    name: owner(slice)?.to_owned(),
                })
            });
        let (tell, filled) = watch::channel(false);
        let stores = Self {
            routes,
            gateways,
            classes,
            services,
            slices,
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
        self.slices.state().iter().any(|slice| {
            slice.namespace().as_deref() == Some(namespace)
                && owner(slice) == Some(service)
                && slice.endpoints.iter().any(|endpoint| {
                    // An unset condition is to be taken for ready (EndpointConditions in the API reference).
                    endpoint
                        .conditions
                        .as_ref()
                        .is_none_or(|c| c.ready.unwrap_or(true))
                })
        })
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
    let here = canary.namespace().unwrap_or_default();
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
            let route = stores.route(r.kind, &here, &r.name);
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
                backend.name == *name && backend.namespace.as_deref().unwrap_or(&here) == namespace
            })
        }
    }
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
    let plural = K::plural(&kind).into_owned();
    let writer = reflector::store::Writer::new(kind);
    let store = writer.as_reader();
    let touched = Arc::new(touched);
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
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
