//! From an AlertProvider, its Secrets and an alert to a request.

use super::call::{Letter, Wire};
use super::directory::{Directory, LookupError, SecretData};
use super::guard::Refusal;
use super::payload::{Origin, delivery_id, payload};
use super::redacted::Redacted;
use crate::api::{Alert, SecretKey, Webhook};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use std::collections::BTreeMap;

/// Longest header value, in bytes.
const HEADER_BYTES: usize = 8 << 10;

/// Headers that are ours, or the connection's.
const RESERVED: [&str; 15] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Why no request can be made. The sentences name objects and keys, never what is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    #[error("there is no AlertProvider {0}")]
    NoProvider(String),
    #[error("AlertProvider {provider} cannot be read: {error}")]
    ProviderUnread {
        provider: String,
        error: LookupError,
    },
    #[error("AlertProvider {0} has no spec.webhook")]
    NoWebhook(String),
    #[error("there is no Secret {0}")]
    NoSecret(String),
    #[error("Secret {secret} cannot be read: {error}")]
    SecretUnread { secret: String, error: LookupError },
    #[error("Secret {secret} has no key {key}")]
    NoKey { secret: String, key: String },
    #[error("the URL in key {key} of Secret {secret} is not called: {refusal}")]
    Url {
        secret: String,
        key: String,
        refusal: Refusal,
    },
    #[error("key {key} of Secret {secret} cannot be the value of header {header}: {why}")]
    Header {
        header: String,
        secret: String,
        key: String,
        why: &'static str,
    },
    #[error(
        "AlertProvider {provider} sets header {header}, which is the operator's own or the connection's"
    )]
    Reserved { provider: String, header: String },
    #[error("the alert's id cannot stand in a header")]
    Id,
}

impl LetterError {
    /// A stable word for metrics and events.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoProvider(_) => "ProviderMissing",
            Self::ProviderUnread { .. } => "ProviderUnread",
            Self::NoWebhook(_) | Self::Reserved { .. } => "ProviderInvalid",
            Self::NoSecret(_) | Self::NoKey { .. } => "SecretMissing",
            Self::SecretUnread { .. } => "SecretUnread",
            Self::Header { .. } => "SecretInvalid",
            Self::Url { refusal, .. } => refusal.reason(),
            Self::Id => "AlertInvalid",
        }
    }
}

/// Looks everything up, afresh, and writes the request.
///
/// # Errors
/// Says what is missing or cannot be used, and in which object it stands.
pub async fn letter(
    directory: &dyn Directory,
    wire: &dyn Wire,
    origin: &Origin,
    alert: &Alert,
) -> Result<Letter, LetterError> {
    let name = &alert.provider;
    let provider = directory
        .provider(&origin.namespace, name)
        .await
        .map_err(|error| LetterError::ProviderUnread {
            provider: name.clone(),
            error,
        })?
        .ok_or_else(|| LetterError::NoProvider(name.clone()))?;
    let Webhook {
        url_from,
        headers: wanted,
    } = provider
        .webhook
        .ok_or_else(|| LetterError::NoWebhook(name.clone()))?;

    let mut secrets = Secrets {
        directory,
        namespace: &origin.namespace,
        read: BTreeMap::new(),
    };
    let url = secrets.value(&url_from).await?;
    let target = std::str::from_utf8(url.expose())
        .map_err(|_| Refusal::NotAUrl)
        .and_then(|url| wire.admit(url))
        .map_err(|refusal| LetterError::Url {
            secret: url_from.name.clone(),
            key: url_from.key.clone(),
            refusal,
        })?;

    let mut headers = HeaderMap::new();
    for header in &wanted {
        let (name, value) = secrets.header(&alert.provider, header).await?;
        headers.insert(name, value);
    }
    let id = HeaderValue::from_str(&delivery_id(origin, alert)).map_err(|_| LetterError::Id)?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("serin/", env!("CARGO_PKG_VERSION"))),
    );
    headers.insert(HeaderName::from_static("idempotency-key"), id);
    Ok(Letter {
        target,
        headers,
        body: payload(origin, alert),
    })
}

/// The Secrets of one attempt, each read once.
struct Secrets<'a> {
    directory: &'a dyn Directory,
    namespace: &'a str,
    read: BTreeMap<String, SecretData>,
}

impl Secrets<'_> {
    async fn value(&mut self, at: &SecretKey) -> Result<Redacted<Vec<u8>>, LetterError> {
        if !self.read.contains_key(&at.name) {
            let data = self
                .directory
                .secret(self.namespace, &at.name)
                .await
                .map_err(|error| LetterError::SecretUnread {
                    secret: at.name.clone(),
                    error,
                })?
                .ok_or_else(|| LetterError::NoSecret(at.name.clone()))?;
            self.read.insert(at.name.clone(), data);
        }
        self.read
            .get(&at.name)
            .and_then(|data| data.get(&at.key))
            .cloned()
            .ok_or_else(|| LetterError::NoKey {
                secret: at.name.clone(),
                key: at.key.clone(),
            })
    }

    async fn header(
        &mut self,
        provider: &str,
        header: &crate::api::SecretHeader,
    ) -> Result<(HeaderName, HeaderValue), LetterError> {
        let reserved = || LetterError::Reserved {
            provider: provider.to_owned(),
            header: header.name.clone(),
        };
        // The CRD admits names of headers only, so this is one for objects from before it did.
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| reserved())?;
        if RESERVED.contains(&name.as_str()) {
            return Err(reserved());
        }
        let at = &header.value_from;
        let bad = |why| LetterError::Header {
            header: header.name.clone(),
            secret: at.name.clone(),
            key: at.key.clone(),
            why,
        };
        let value = self.value(at).await?;
        // A line end at the end is `kubectl create secret --from-file`'s, not the writer's.
        let bytes = value.expose().trim_ascii();
        if bytes.len() > HEADER_BYTES {
            return Err(bad("it is longer than 8 KiB"));
        }
        let mut value = HeaderValue::from_bytes(bytes)
            .map_err(|_| bad("it has a control character or a line end in it"))?;
        value.set_sensitive(true);
        Ok((name, value))
    }
}
