//! What a route sends requests to, and the revision that its five fields make.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// A backend as a route names it. Two backends are the same when all five fields are.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// API group of the backend; empty for a Service.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the backend, Service by default.
    #[serde(default = "service")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the backend.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the backend; the Canary's own by default. A route may refer to another only
    /// where a ReferenceGrant there allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Port of the Service (not of the pod), 1 to 65535.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
}

fn service() -> String {
    "Service".into()
}

impl Backend {
    /// The backend with its namespace filled in, so that it can be compared with others.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace.get_or_insert_with(|| namespace.to_owned());
        self
    }

    /// A name for exactly these five fields: the backend's own name and eight hex digits of their hash.
    #[must_use]
    pub fn revision(&self) -> String {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        let port = self.port.to_string();
        let fields = [&*self.group, &*self.kind, namespace, &*self.name, &*port];
        // A slash cannot stand in any of the fields, so the joined text is unambiguous.
        let digest = Sha256::digest(fields.join("/"));
        let hex: String = digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name: String = self.name.chars().take(48).collect();
        format!("{name}-{hex}")
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != "Service" {
            write!(f, "{} ", self.kind)?;
        }
        write!(f, "{}:{}", self.name, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(port: u16) -> Backend {
        Backend {
            group: String::new(),
            kind: "Service".into(),
            name: "api".into(),
            namespace: None,
            port,
        }
    }

    #[test]
    fn a_revision_tells_all_five_fields_apart() {
        let base = api(80).within("shop");
        let mut seen = vec![base.revision()];
        let others = [
            api(81).within("shop"),
            api(80).within("other"),
            Backend {
                group: "example.com".into(),
                ..base.clone()
            },
            Backend {
                kind: "ServiceImport".into(),
                ..base.clone()
            },
            Backend {
                name: "api-2".into(),
                ..base.clone()
            },
        ];
        seen.extend(others.iter().map(Backend::revision));
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn a_revision_is_the_same_for_ever() {
        assert_eq!(
            api(80).within("shop").revision(),
            api(80).within("shop").revision()
        );
        assert!(api(80).within("shop").revision().starts_with("api-"));
    }
}
