//! Who receives alerts.

use crate::wire::Process;
use futures::future::BoxFuture;
use serde_json::Value;
use serin::alerts::{Answer, CallError, Egress, Letter, Refusal, Target, Wire};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// All alerts that have arrived, in order: id, event, revision.
#[derive(Debug, Clone, Default)]
pub struct Receiver(Arc<Mutex<Vec<(String, String, String)>>>);

impl Receiver {
    pub fn received(&self) -> Vec<(String, String, String)> {
        self.0.lock().unwrap().clone()
    }

    /// Event and revision of every alert, each once, with how often it came.
    pub fn told(&self) -> BTreeMap<(String, String), usize> {
        let mut told = BTreeMap::new();
        for (_, event, revision) in self.received() {
            *told.entry((event, revision)).or_default() += 1;
        }
        told
    }

    /// How often each alert came.
    pub fn by_id(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for (id, ..) in self.received() {
            *times.entry(id).or_default() += 1;
        }
        times
    }

    pub fn line(&self, process: Process) -> ReceiverLine {
        ReceiverLine {
            receiver: self.clone(),
            process,
            egress: Egress::only_listed(vec!["hooks.example.com".parse().unwrap()]),
        }
    }
}

/// One process's way to the receiver.
pub struct ReceiverLine {
    receiver: Receiver,
    process: Process,
    egress: Egress,
}

impl Wire for ReceiverLine {
    fn admit(&self, url: &str) -> Result<Target, Refusal> {
        self.egress.admit(url)
    }

    fn post(&self, letter: Letter) -> BoxFuture<'_, Result<Answer, CallError>> {
        Box::pin(async move {
            self.process.alive().await;
            sleep(Duration::from_millis(20)).await;
            self.process.alive().await;
            let body: Value = serde_json::from_slice(&letter.body).unwrap();
            let word = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
            let alert = (word("id"), word("event"), word("revision"));
            self.receiver.0.lock().unwrap().push(alert);
            sleep(Duration::from_millis(20)).await;
            self.process.alive().await;
            Ok(Answer {
                status: reqwest::StatusCode::OK,
                retry_after: None,
            })
        })
    }
}
