//! What the operator knows that the caches do not know yet: its own last writes, and samples
//! that wait to be written. All of it can be lost without harm.

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
    /// Reconciles that have failed in a row.
    pub failures: u32,
}

/// One memory for each Canary, by UID.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<String, Memory>>);

impl Memories {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        // A panic while the lock was held leaves a map that is whole: each change is one insertion.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn of(&self, uid: &str) -> Memory {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    pub fn keep(&self, uid: &str, memory: Memory) {
        self.lock().insert(uid.to_owned(), memory);
    }

    /// Counts a failure and says how many there were in a row.
    pub fn failed(&self, uid: &str) -> u32 {
        let mut memories = self.lock();
        let memory = memories.entry(uid.to_owned()).or_default();
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    }

    /// Forgets those that are gone, once they are many.
    pub fn tidy(&self, count: usize, alive: impl Fn(&str) -> bool) {
        let mut memories = self.lock();
        if memories.len() > count + 64 {
            memories.retain(|uid, _| alive(uid));
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
