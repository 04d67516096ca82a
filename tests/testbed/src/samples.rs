//! Manifests that the world and its tests share.

/// The GatewayClass of the testbed's Traefik.
pub const GATEWAY_CLASS: &str = "traefik";
/// The controllerName of that class.
pub const GATEWAY_CONTROLLER: &str = "traefik.io/gateway-controller";
/// The Gateway that every world has.
pub const GATEWAY: &str = "gateway";
/// The namespace of that Gateway.
pub const GATEWAY_NAMESPACE: &str = "gateway-system";
/// Its listener, which takes routes from all namespaces.
pub const LISTENER: &str = "web";
/// The port of the pods and Services of [`deployment`]. (Not below 1024: a user may not bind those.)
pub const PORT: u16 = 8080;

pub(crate) fn gateway(port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: {GATEWAY_CLASS}
spec:
  controllerName: {GATEWAY_CONTROLLER}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: {GATEWAY}
  namespace: {GATEWAY_NAMESPACE}
spec:
  gatewayClassName: {GATEWAY_CLASS}
  listeners:
  - name: {LISTENER}
    protocol: HTTP
    port: {port}
    allowedRoutes:
      namespaces:
        from: All
"
    )
}

/// A Deployment and its Service, both called `name`, of the testbed's sample pod
/// with image `shop/NAME:VERSION`. The Service listens on [`PORT`].
///
/// `version` may carry behaviours, such as `v2-error20` (see the crate's documentation).
pub fn deployment(namespace: &str, name: &str, version: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {name}}}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      containers:
      - name: app
        image: shop/{name}:{version}
        ports:
        - containerPort: {PORT}
---
{}",
        service(namespace, name)
    )
}

/// A Service for the pods labelled `app: NAME`.
pub fn service(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
spec:
  selector: {{app: {name}}}
  ports:
  - name: http
    port: {PORT}
    targetPort: {PORT}
"
    )
}

/// An HTTPRoute on the world's Gateway for one hostname, with these backends and weights.
pub fn route(namespace: &str, name: &str, hostname: &str, backends: &[(&str, u32)]) -> String {
    let backends: String = backends
        .iter()
        .map(|(name, weight)| format!("    - {{name: {name}, port: {PORT}, weight: {weight}}}\n"))
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}
  namespace: {namespace}
spec:
  parentRefs:
  - name: {GATEWAY}
    namespace: {GATEWAY_NAMESPACE}
  hostnames: [\"{hostname}\"]
  rules:
  - backendRefs:
{backends}"
    )
}
