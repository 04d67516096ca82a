//! The HTTP face of the store: what a request asks for, and the answer to it.

use crate::store::{Part, Refusal, Store, Writer, not_found};
use crate::watch::{Watching, stream};
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

const KINDS: [(&str, &str, &str); 9] = [
    ("canaries", "serin.dev/v1alpha1", "Canary"),
    ("alertproviders", "serin.dev/v1alpha1", "AlertProvider"),
    ("httproutes", "gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateways", "gateway.networking.k8s.io/v1", "Gateway"),
    (
        "gatewayclasses",
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
    ),
    ("services", "v1", "Service"),
    ("secrets", "v1", "Secret"),
    ("endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
    ("events", "events.k8s.io/v1", "Event"),
];

/// The API server.
#[derive(Clone, Default)]
pub struct Api {
    store: Arc<Mutex<Store>>,
    pub watching: Arc<Mutex<Watching>>,
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub plural: &'static str,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub status: bool,
    pub query: HashMap<String, String>,
    pub content_type: String,
    pub body: Bytes,
}

impl Asked {
    pub async fn read<B>(request: Request<B>) -> Option<Self>
    where
        B: axum::body::HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(Body::new(body), usize::MAX)
            .await
            .ok()?;
        let parts: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
        let rest = match parts.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let (plural, ..) = KINDS.iter().find(|(plural, ..)| *plural == rest[0])?;
        let pairs = head.uri.query().unwrap_or_default().split('&');
        Some(Self {
            method: head.method,
            plural,
            namespace: namespace.map(str::to_owned),
            name: rest.get(1).map(|name| (*name).to_owned()),
            status: rest.get(2) == Some(&"status"),
            query: pairs
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            content_type: head
                .headers
                .get("content-type")
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            body,
        })
    }

    pub fn is_watch(&self) -> bool {
        self.query.get("watch").is_some_and(|watch| watch == "true")
    }

    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = if self.is_watch() {
            "WATCH"
        } else {
            self.method.as_str()
        };
        let name = self.name.as_deref().unwrap_or("*");
        let status = if self.status { "/status" } else { "" };
        write!(f, "{verb} {}/{name}{status}", self.plural)
    }
}

impl Api {
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn answer(&self, asked: &Asked, writer: Writer) -> Response<Body> {
        if asked.is_watch() {
            return self.watch(asked);
        }
        match self.perform(asked, writer) {
            Ok((code, value)) => respond(code, &value),
            Err(refusal) => respond(refusal.code, &refusal.status()),
        }
    }

    fn watch(&self, asked: &Asked) -> Response<Body> {
        let version = asked.query.get("resourceVersion");
        let version = version.and_then(|v| v.parse().ok()).unwrap_or(0);
        // One that has expired is told so by the stream's first event, as by the API server's watch cache.
        let seconds = asked.query.get("timeoutSeconds");
        let seconds = seconds.and_then(|s| s.parse().ok()).unwrap_or(290);
        Response::new(Body::from_stream(stream(
            self.clone(),
            asked.plural,
            version,
            seconds,
        )))
    }

    fn perform(&self, asked: &Asked, writer: Writer) -> Result<(u16, Value), Refusal> {
        let Asked {
            plural,
            namespace,
            name,
            ..
        } = asked;
        let mut store = self.store();
        let home = namespace.clone().unwrap_or_default();
        let part = if asked.status {
            Part::Status
        } else {
            Part::Main
        };
        match (asked.method.as_str(), name) {
            ("GET", None) => Ok((200, list(&store, plural, namespace.as_deref()))),
            ("GET", Some(name)) => {
                let found = store.get(plural, &home, name).cloned();
                Ok((200, found.ok_or_else(|| not_found(plural, name))?))
            }
            ("POST", None) => Ok((201, store.create(plural, &home, asked.json(), writer)?)),
            ("PUT", Some(name)) => Ok((
                200,
                store.replace(plural, &home, name, part, asked.json(), writer)?,
            )),
            ("PATCH", Some(name)) => {
                let found = store.get(plural, &home, name).cloned();
                let found = found.ok_or_else(|| not_found(plural, name))?;
                let patched = patched(&found, asked)?;
                Ok((
                    200,
                    store.replace(plural, &home, name, part, patched, writer)?,
                ))
            }
            ("DELETE", Some(name)) => Ok((200, store.delete(plural, &home, name, writer)?)),
            (verb, _) => Err(Refusal::new(405, "MethodNotAllowed", verb)),
        }
    }
}

fn patched(found: &Value, asked: &Asked) -> Result<Value, Refusal> {
    let mut after = found.clone();
    match asked.content_type.as_str() {
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_slice(&asked.body)
                .map_err(|err| Refusal::new(400, "BadRequest", err.to_string()))?;
            // A `test` that fails answers 422, as the API server's library does.
            json_patch::patch(&mut after, &patch)
                .map_err(|err| Refusal::new(422, "Invalid", err.to_string()))?;
        }
        "application/merge-patch+json" => json_patch::merge(&mut after, &asked.json()),
        other => return Err(Refusal::new(415, "UnsupportedMediaType", other)),
    }
    Ok(after)
}

fn list(store: &Store, plural: &'static str, namespace: Option<&str>) -> Value {
    let (_, version, kind) = KINDS.iter().find(|(p, ..)| *p == plural).unwrap();
    json!({
        "apiVersion": version, "kind": format!("{kind}List"),
        "metadata": {"resourceVersion": store.version().to_string()},
        "items": store.list(plural, namespace),
    })
}

pub fn respond(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = axum::http::StatusCode::from_u16(code).unwrap();
    response
        .headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    response
}
