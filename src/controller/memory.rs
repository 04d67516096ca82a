//! What the operator knows that the caches do not know yet: its own last writes, and samples
//! that wait to be written. All of it can be lost without harm.

use super::refusals::Refusals;
use crate::api::{Canary, CanaryStatus, Time};
use kube::ResourceExt;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The Canary as our last write of it came back, or as it was read after a conflict.
    pub written: Option<Arc<Canary>>,
    /// When its status was last written.
    pub written_at: Option<Time>,
    /// The newest status, and the resource version of the object that it goes with.
    pub newest: Option<(String, CanaryStatus)>,
    /// Routes as our last patches of them came back, by title.
    pub routes: HashMap<String, Value>,
    /// Routes that could not be written.
    pub refusals: Refusals,
    /// What keeps alerts from being delivered, as it was told.
    pub troubles: Vec<String>,
    /// Reconciles that have failed in a row.
    pub failures: u32,
    /// Whether the Canary was read from the API server in this term; a cache may be behind what the leader before has written.
    pub caught_up: bool,
}

/// One memory for each Canary, by UID. A new term begins with none.
#[derive(Debug, Default)]
pub struct Memories(Mutex<OfTerm>);

#[derive(Debug, Default)]
struct OfTerm {
    term: u64,
    memories: HashMap<String, Memory>,
}

impl Memories {
    fn lock(&self) -> MutexGuard<'_, OfTerm> {
        // A panic while the lock was held leaves a map that is whole: each change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn of(&self, uid: &str, term: u64) -> Memory {
        let mut known = self.lock();
        if known.term < term {
            known.memories.clear();
            known.term = term;
        }
        known.memories.get(uid).cloned().unwrap_or_default()
    }

    /// What a term that is over has left is not kept.
    pub fn keep(&self, uid: &str, term: u64, memory: Memory) {
        let mut known = self.lock();
        if known.term == term {
            known.memories.insert(uid.to_owned(), memory);
        }
    }

    /// Drops all: they are of no use to a replica that does not lead.
    pub fn drop_all(&self) {
        self.lock().memories.clear();
    }

    /// Counts a failure and says how many there were in a row.
    pub fn failed(&self, uid: &str) -> u32 {
        let mut known = self.lock();
        let memory = known.memories.entry(uid.to_owned()).or_default();
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    }

    /// Forgets those that are gone, once they are many.
    pub fn tidy(&self, count: usize, alive: impl Fn(&str) -> bool) {
        let mut known = self.lock();
        if known.memories.len() > count + 64 {
            known.memories.retain(|uid, _| alive(uid));
        }
    }
}

impl Memory {
    /// The newer of an object as it was read and our own last write of it.
    pub fn newer<'a>(&'a self, read: &'a Canary) -> &'a Canary {
        match self.written.as_deref() {
            Some(written)
                if version(written.resource_version().as_deref())
                    > version(read.resource_version().as_deref()) =>
            {
                written
            }
            _ => read,
        }
    }

    /// The newer of the cached object and our own last write of it, with the newest status.
    pub fn freshest(&self, cached: Arc<Canary>) -> (Arc<Canary>, CanaryStatus) {
        let canary = match &self.written {
            Some(written)
                if version(written.resource_version().as_deref())
                    > version(cached.resource_version().as_deref()) =>
            {
                written.clone()
            }
            _ => cached,
        };
        let status = match (&self.newest, canary.resource_version()) {
            (Some((known, status)), Some(here)) if *known == here => status.clone(),
            _ => canary.status.clone().unwrap_or_default(),
        };
        (canary, status)
    }

    /// The newer of a cached route and our own last write of it.
    pub fn fresher_route(&self, title: &str, cached: Option<Value>) -> Option<Value> {
        let known = self.routes.get(title);
        match (known, cached) {
            (Some(known), Some(cached))
                if known["metadata"]["uid"] == cached["metadata"]["uid"]
                    && route_version(known) > route_version(&cached) =>
            {
                Some(known.clone())
            }
            (_, cached) => cached,
        }
    }
}

/// Resource versions of one kind of objects grow (as the API has promised since Kubernetes 1.35).
fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn route_version(route: &Value) -> u64 {
    version(route["metadata"]["resourceVersion"].as_str())
}
