//! The wire between one process of the operator and the API server: where it is killed, and where
//! answers go wrong.

use crate::api::{Api, Asked, respond};
use crate::store::{Refusal, Writer};
use axum::body::Body;
use axum::http::Response;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies; the request was performed, or never arrived.
    Kill { performed: bool },
    /// The API server answers this code instead.
    Code(u16),
    /// No answer for ten seconds; the request was performed, or not.
    Timeout { performed: bool },
    /// The connection cannot be made.
    Refused,
}

/// Chooses a fault for the nth request (from 1) of all processes.
pub type Plan = Box<dyn FnMut(u64, &Asked) -> Option<Fault> + Send>;

/// Changes a request on its way, as a bug in the operator would; `None` swallows it, and the operator hears
/// that all went well.
pub type Bug = Box<dyn FnMut(&Api, Asked) -> Option<Asked> + Send>;

/// All processes of the operator, one after the other.
#[derive(Clone, Default)]
pub struct Line(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    calls: u64,
    writes: u64,
    plan: Option<Plan>,
    bug: Option<Bug>,
    log: Vec<String>,
    faults: u64,
    kills: u64,
}

impl Line {
    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.0.lock().unwrap()
    }

    /// Requests so far, from all processes.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    pub fn faults(&self) -> u64 {
        self.lock().faults
    }

    pub fn kills(&self) -> u64 {
        self.lock().kills
    }

    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    pub fn plan(&self, plan: impl FnMut(u64, &Asked) -> Option<Fault> + Send + 'static) {
        self.lock().plan = Some(Box::new(plan));
    }

    pub fn no_faults(&self) {
        self.lock().plan = None;
    }

    pub fn bug(&self, bug: impl FnMut(&Api, Asked) -> Option<Asked> + Send + 'static) {
        self.lock().bug = Some(Box::new(bug));
    }
}

/// One process of the operator, as far as the world can tell.
#[derive(Clone)]
pub struct Process {
    api: Api,
    line: Line,
    dead: Arc<(AtomicBool, Notify)>,
    on_fault: Arc<dyn Fn() + Send + Sync>,
}

/// How long a request takes each way.
const TRAVEL: Duration = Duration::from_millis(3);

impl Process {
    pub fn new(api: Api, line: Line, on_fault: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            api,
            line,
            dead: Arc::default(),
            on_fault,
        }
    }

    pub fn client(&self) -> kube::Client {
        let process = self.clone();
        let service = tower::service_fn(move |request: axum::http::Request<kube::client::Body>| {
            let process = process.clone();
            async move { process.call(request).await }
        });
        kube::Client::new(service, "default")
    }

    pub fn die(&self) {
        if !self.dead.0.swap(true, Ordering::SeqCst) {
            self.line.lock().kills += 1;
            (self.on_fault)();
            self.dead.1.notify_one();
        }
    }

    pub async fn death(&self) {
        self.dead.1.notified().await;
    }

    /// Waits for ever once the process is dead: nothing of it moves any more.
    pub async fn alive(&self) {
        if self.dead.0.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
    }

    async fn call(
        &self,
        request: axum::http::Request<kube::client::Body>,
    ) -> Result<Response<Body>, tower::BoxError> {
        self.alive().await;
        let Some(mut asked) = Asked::read(request).await else {
            return Ok(respond(
                404,
                &Refusal::new(404, "NotFound", "no such path").status(),
            ));
        };
        sleep(TRAVEL).await;
        self.alive().await;
        let fault = {
            let mut shared = self.line.lock();
            shared.calls += 1;
            shared.writes += u64::from(asked.is_write());
            let n = shared.calls;
            let fault = shared.plan.as_mut().and_then(|plan| plan(n, &asked));
            shared.faults += u64::from(fault.is_some());
            let mark = fault.map_or_else(String::new, |fault| format!(" {fault:?}"));
            shared.log.push(format!("{n} {asked}{mark}"));
            if let Some(bug) = &mut shared.bug {
                let answer = asked.clone();
                match bug(&self.api, asked) {
                    Some(changed) => asked = changed,
                    None => return Ok(self.pretend(&answer)),
                }
            }
            fault
        };
        if fault.is_some() {
            (self.on_fault)();
        }
        let answer = || self.api.answer(&asked, Writer::Operator);
        match fault {
            None => {
                let response = answer();
                sleep(TRAVEL).await;
                self.alive().await;
                Ok(response)
            }
            Some(Fault::Kill { performed }) => {
                if performed {
                    drop(answer());
                }
                self.die();
                pending().await
            }
            Some(Fault::Code(code)) => Ok(failure(code)),
            Some(Fault::Timeout { performed }) => {
                if performed {
                    drop(answer());
                }
                sleep(Duration::from_secs(10)).await;
                self.alive().await;
                Err("the read timed out".into())
            }
            Some(Fault::Refused) => Err("connection refused".into()),
        }
    }

    /// An answer as if a request had been performed.
    fn pretend(&self, asked: &Asked) -> Response<Body> {
        let store = self.api.store();
        let home = asked.namespace.clone().unwrap_or_default();
        let name = asked.name.clone().unwrap_or_default();
        let found = store.get(asked.plural, &home, &name).cloned();
        respond(200, &found.unwrap_or_else(|| asked.json()))
    }
}

fn failure(code: u16) -> Response<Body> {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let mut response = respond(code, &Refusal::new(code, reason, "by the test").status());
    if code == 429 {
        let headers = response.headers_mut();
        headers.insert("retry-after", "1".parse().unwrap());
    }
    response
}
