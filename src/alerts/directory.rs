//! Where AlertProviders and Secrets are looked up, by name, at each attempt; nothing is kept.

use super::redacted::Redacted;
use crate::api::{AlertProvider, AlertProviderSpec};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::core::Request;
use kube::core::params::GetParams;
use kube::{Api, Client, Resource};
use std::collections::BTreeMap;

/// A Secret's data.
pub type SecretData = BTreeMap<String, Redacted<Vec<u8>>>;

/// Why an object could not be read, in words that hold nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupError(String);

impl LookupError {
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// Reads by name; none for what is not there.
pub trait Directory: Send + Sync + 'static {
    fn provider<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<AlertProviderSpec>, LookupError>>;

    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<SecretData>, LookupError>>;
}

/// The cluster. Needs `get` on AlertProviders and on the Secrets that they name, no `list` and no `watch`.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Directory for Cluster {
    fn provider<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<AlertProviderSpec>, LookupError>> {
        Box::pin(async move {
            let api = Api::<AlertProvider>::namespaced(self.client.clone(), namespace);
            let found = api.get_opt(name).await.map_err(|error| in_words(&error))?;
            Ok(found.map(|provider| provider.spec))
        })
    }

    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<SecretData>, LookupError>> {
        Box::pin(async move {
            // As text, and parsed here: the client's typed call logs the whole answer when it
            // cannot be parsed, and its error shows a part of it.
            let request = Request::new(Secret::url_path(&(), Some(namespace)))
                .get(name, &GetParams::default())
                .map_err(|_| LookupError::new("its name is no name of an object"))?;
            let text = match self.client.request_text(request).await {
                Ok(text) => text,
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
                Err(error) => return Err(in_words(&error)),
            };
            let secret: Secret = serde_json::from_str(&text)
                .map_err(|_| LookupError::new("the API server's answer cannot be read"))?;
            let data = secret.data.unwrap_or_default().into_iter();
            Ok(Some(
                data.map(|(key, value)| (key, Redacted::new(value.0)))
                    .collect(),
            ))
        })
    }
}

fn in_words(error: &kube::Error) -> LookupError {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            LookupError::new("the operator's ServiceAccount may not read it")
        }
        kube::Error::Api(status) => {
            LookupError::new(format!("the API server answered {}", status.code))
        }
        _ => LookupError::new("the API server cannot be reached"),
    }
}
