//! Asks a Prometheus, or any server with its query API.

use super::answer::{self, Answer, Body};
use crate::api::Time;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use std::time::Duration;
use thiserror::Error;

/// The largest answer that is read, in bytes.
pub const LARGEST_ANSWER: usize = 4 << 20;

/// How much of what a server says is repeated, in characters.
const LONGEST_QUOTE: usize = 300;

/// Why there is no answer. Never holds the credentials of the server's URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    #[error("Prometheus at {server} cannot be reached: {cause}")]
    Unreachable { server: String, cause: String },
    #[error("Prometheus at {server} did not answer within {}ms", .after.as_millis())]
    Timeout { server: String, after: Duration },
    #[error("Prometheus at {server} answers with HTTP status {status}{}", quoted(.said))]
    Status {
        server: String,
        status: u16,
        said: String,
    },
    #[error(
        "Prometheus at {server} redirects (HTTP status {status}), which is not followed; give its own address"
    )]
    Redirect { server: String, status: u16 },
    #[error("Prometheus refuses the query ({kind}): {message}")]
    Refused { kind: String, message: String },
    #[error("Prometheus at {server} answers more than {LARGEST_ANSWER} bytes; aggregate the query")]
    TooLarge { server: String },
    #[error("Prometheus at {server} answers something that cannot be read: {why}")]
    Malformed { server: String, why: String },
}

impl QueryError {
    /// One word for events, conditions and metric labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::Timeout { .. } => "Timeout",
            Self::Status { .. } => "HttpStatus",
            Self::Redirect { .. } => "Redirect",
            Self::Refused { .. } => "QueryRefused",
            Self::TooLarge { .. } => "AnswerTooLarge",
            Self::Malformed { .. } => "AnswerMalformed",
        }
    }
}

fn quoted(said: &str) -> String {
    match said {
        "" => String::new(),
        said => format!(": {said}"),
    }
}

/// Why an address is not one of a Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlError {
    #[error(
        "the address of Prometheus is no URL ({0}); write it such as http://prometheus.monitoring:9090"
    )]
    Malformed(String),
    #[error("the address of Prometheus must begin with http:// or https://, not {0}:")]
    Scheme(String),
    #[error(
        "the address of Prometheus must end with its path; query parameters and fragments have no place in it"
    )]
    Extra,
    #[error("no client for Prometheus can be made: {0}")]
    Client(String),
}

/// A Prometheus, by its address.
#[derive(Clone)]
pub struct Prometheus {
    client: Client,
    endpoint: Url,
    credentials: Option<(String, String)>,
    server: String,
    timeout: Duration,
}

impl Prometheus {
    /// A client of the server at `base_url`, such as `http://prometheus.monitoring:9090` or
    /// `https://user:password@mimir.example.com/prometheus`. `timeout` bounds a query from its first
    /// byte to the answer's last. Proxies of the environment are not used, and redirects are not followed.
    ///
    /// # Errors
    /// When the address is none of an HTTP server, or no provider of TLS was installed.
    pub fn new(base_url: &str, timeout: Duration) -> Result<Self, UrlError> {
        let mut endpoint = Url::parse(base_url).map_err(|e| UrlError::Malformed(e.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(UrlError::Scheme(endpoint.scheme().into()));
        }
        if endpoint.query().is_some() || endpoint.fragment().is_some() {
            return Err(UrlError::Extra);
        }
        let credentials = credentials(&endpoint)?;
        let cannot = |()| UrlError::Malformed("it cannot have a user".into());
        endpoint.set_username("").map_err(cannot)?;
        endpoint.set_password(None).map_err(cannot)?;
        let server = endpoint.as_str().trim_end_matches('/').to_owned();
        endpoint
            .path_segments_mut()
            .map_err(|()| UrlError::Malformed("it has no path".into()))?
            .pop_if_empty()
            .extend(["api", "v1", "query"]);
        // The client would panic without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(UrlError::Client("no TLS provider is installed".into()));
        }
        let client = Client::builder()
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .timeout(timeout)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("serin/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| UrlError::Client(e.without_url().to_string()))?;
        Ok(Self {
            client,
            endpoint,
            credentials,
            server,
            timeout,
        })
    }

    /// The server's address, without credentials.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Evaluates a query at a moment, or at the server's own now.
    ///
    /// # Errors
    /// When the server cannot be reached in time, does not answer, refuses, or answers what cannot be read.
    pub async fn query(&self, promql: &str, at: Option<Time>) -> Result<Answer, QueryError> {
        let response = self
            .request(promql, at)
            .send()
            .await
            .map_err(|e| self.failed(e))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(QueryError::Redirect {
                server: self.server.clone(),
                status: status.as_u16(),
            });
        }
        let body = self.body(response).await?;
        match answer::parse(&body) {
            Ok(Body::Refusal { kind, message }) => Err(QueryError::Refused {
                kind: quote(&kind),
                message: quote(&message),
            }),
            Ok(Body::Answer(answer)) if status.is_success() => Ok(answer),
            Err(why) if status.is_success() => Err(QueryError::Malformed {
                server: self.server.clone(),
                why: quote(&why),
            }),
            Ok(Body::Answer(_)) | Err(_) => Err(self.status(status, &body)),
        }
    }

    /// The query goes into the body, where its length has no limit.
    fn request(&self, promql: &str, at: Option<Time>) -> reqwest::RequestBuilder {
        let mut form = self.endpoint.clone();
        {
            let mut pairs = form.query_pairs_mut();
            pairs.append_pair("query", promql);
            pairs.append_pair("timeout", &format!("{}ms", self.timeout.as_millis()));
            if let Some(at) = at {
                let millis = at.timestamp_millis();
                let time = format!(
                    "{}.{:03}",
                    millis.div_euclid(1_000),
                    millis.rem_euclid(1_000)
                );
                pairs.append_pair("time", &time);
            }
        }
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = self
            .client
            .post(self.endpoint.clone())
            .header(CONTENT_TYPE, form_type)
            .body(form.query().unwrap_or_default().to_owned());
        match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, QueryError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failed(e))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(QueryError::TooLarge {
                    server: self.server.clone(),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn failed(&self, error: reqwest::Error) -> QueryError {
        let server = self.server.clone();
        if error.is_timeout() {
            return QueryError::Timeout {
                server,
                after: self.timeout,
            };
        }
        // The outer errors only say that sending failed; the innermost says why.
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        QueryError::Unreachable {
            server,
            cause: quote(&cause.to_string()),
        }
    }

    fn status(&self, status: StatusCode, body: &[u8]) -> QueryError {
        QueryError::Status {
            server: self.server.clone(),
            status: status.as_u16(),
            said: quote(&String::from_utf8_lossy(body)),
        }
    }
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prometheus")
            .field("server", &self.server)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// User and password of a URL.
fn credentials(url: &Url) -> Result<Option<(String, String)>, UrlError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decode = |text: &str| {
        percent_decoded(text)
            .ok_or_else(|| UrlError::Malformed("its user or password is not UTF-8".into()))
    };
    Ok(Some((
        decode(url.username())?,
        decode(url.password().unwrap_or_default())?,
    )))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let coded = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(coded.unwrap_or(*first));
        rest = if coded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).ok()
}

/// What a server said, on one line of bounded length.
fn quote(text: &str) -> String {
    let line: String = text
        .chars()
        .take(LONGEST_QUOTE)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    line.trim().to_owned()
}
