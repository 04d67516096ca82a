//! The objects of the virtual cluster, as an API server keeps them: one growing version for all, a
//! bounded history for watches, generations, finalizers, and a look at every write as it happens.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// Plural, namespace (empty for none) and name.
pub type Key = (&'static str, String, String);

pub type Objects = BTreeMap<Key, Value>;

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    Operator,
    /// The data plane's own controller.
    Plane,
    /// People, and every other manager.
    Person,
}

/// What is wrong with a request, as the `Status` object that answers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    /// The field that is to blame.
    pub field: Option<String>,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            field: None,
        }
    }

    pub fn field(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            field: Some(field.to_owned()),
            ..Self::new(422, "Invalid", format!("{field}: {message}"))
        }
    }

    pub fn status(&self) -> Value {
        let causes = self
            .field
            .iter()
            .map(|field| json!({"reason": "FieldValueInvalid", "field": field, "message": self.message}))
            .collect::<Vec<_>>();
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
            "details": {"causes": causes},
        })
    }
}

/// One entry of the history.
#[derive(Debug, Clone)]
pub struct Change {
    pub version: u64,
    pub plural: &'static str,
    pub kind: &'static str,
    pub object: Arc<Value>,
    pub at: Instant,
}

/// A write, as the one who looks on sees it.
pub struct Write<'a> {
    pub plural: &'static str,
    pub name: &'a str,
    pub writer: Writer,
    pub before: Option<&'a Value>,
    /// None when the object is gone.
    pub after: Option<&'a Value>,
    /// All objects as they are before the write.
    pub objects: &'a Objects,
}

type Observer = Box<dyn FnMut(&Write<'_>) + Send>;

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Main,
    Status,
}

/// As many changes are kept for watches to replay.
const HISTORY: usize = 2_000;

pub struct Store {
    pub objects: Objects,
    version: u64,
    uids: u64,
    history: VecDeque<Change>,
    /// Watches from before this version are told that it has expired.
    pub oldest: u64,
    observer: Option<Observer>,
    news: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            objects: Objects::new(),
            version: 100,
            uids: 0,
            history: VecDeque::new(),
            oldest: 0,
            observer: None,
            news: watch::Sender::new(100),
        }
    }
}

impl Store {
    pub fn observe(&mut self, observer: impl FnMut(&Write<'_>) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Forgets the history, so that every watch has expired.
    pub fn expire(&mut self) {
        self.history.clear();
        self.version += 1;
        self.oldest = self.version;
        self.news.send_replace(self.version);
    }

    /// The first change of a kind after a version.
    pub fn after(&self, plural: &str, version: u64) -> Option<&Change> {
        let from = self.history.partition_point(|c| c.version <= version);
        self.history.range(from..).find(|c| c.plural == plural)
    }

    pub fn get(&self, plural: &'static str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects
            .get(&(plural, namespace.to_owned(), name.to_owned()))
    }

    pub fn list(&self, plural: &'static str, namespace: Option<&str>) -> Vec<&Value> {
        of_kind(&self.objects, plural)
            .filter(|(ns, _)| namespace.is_none_or(|n| n == *ns))
            .map(|(_, object)| object)
            .collect()
    }

    pub fn create(
        &mut self,
        plural: &'static str,
        namespace: &str,
        mut object: Value,
        writer: Writer,
    ) -> Result<Value, Refusal> {
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if self.get(plural, namespace, &name).is_some() {
            return Err(Refusal::new(409, "AlreadyExists", format!("{name} exists")));
        }
        self.uids += 1;
        let meta = metadata(&mut object);
        if !namespace.is_empty() {
            meta.insert("namespace".into(), json!(namespace));
        }
        meta.insert("uid".into(), json!(format!("uid-{}", self.uids)));
        meta.insert("generation".into(), json!(1));
        meta.insert("creationTimestamp".into(), json!("2026-01-01T00:00:00Z"));
        meta.remove("resourceVersion");
        if has_status(plural)
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
        crate::schema::check(plural, &object)?;
        Ok(self.put(plural, namespace, &name, Some(object), writer))
    }

    /// Replaces the main part or the status of an object.
    pub fn replace(
        &mut self,
        plural: &'static str,
        namespace: &str,
        name: &str,
        part: Part,
        wanted: Value,
        writer: Writer,
    ) -> Result<Value, Refusal> {
        let Some(before) = self.get(plural, namespace, name).cloned() else {
            return Err(not_found(plural, name));
        };
        for field in ["resourceVersion", "uid"] {
            let said = &wanted["metadata"][field];
            if said.as_str().is_some_and(|said| !said.is_empty())
                && *said != before["metadata"][field]
            {
                let message = "the object has been modified; please apply your changes to the latest version and try again";
                return Err(Refusal::new(409, "Conflict", message));
            }
        }
        let mut after = match part {
            Part::Status => {
                let mut after = before.clone();
                set(&mut after, "status", wanted.get("status").cloned());
                after
            }
            Part::Main => {
                let mut after = wanted;
                if has_status(plural) {
                    set(&mut after, "status", before.get("status").cloned());
                }
                for fixed in [
                    "uid",
                    "generation",
                    "creationTimestamp",
                    "deletionTimestamp",
                    "namespace",
                    "name",
                ] {
                    let value = before["metadata"].get(fixed).cloned();
                    let meta = metadata(&mut after);
                    match value {
                        Some(value) => meta.insert(fixed.into(), value),
                        None => meta.remove(fixed),
                    };
                }
                after
            }
        };
        metadata(&mut after).insert(
            "resourceVersion".into(),
            before["metadata"]["resourceVersion"].clone(),
        );
        crate::schema::check(plural, &after)?;
        if after["spec"] != before["spec"] {
            bump(&mut after);
        }
        if after == before {
            return Ok(before);
        }
        let deleting = after["metadata"].get("deletionTimestamp").is_some();
        if deleting && finalizers(&after).is_empty() {
            return Ok(self.put(plural, namespace, name, None, writer));
        }
        Ok(self.put(plural, namespace, name, Some(after), writer))
    }

    /// Deletes at once, or marks what a finalizer holds.
    pub fn delete(
        &mut self,
        plural: &'static str,
        namespace: &str,
        name: &str,
        writer: Writer,
    ) -> Result<Value, Refusal> {
        let Some(mut object) = self.get(plural, namespace, name).cloned() else {
            return Err(not_found(plural, name));
        };
        if finalizers(&object).is_empty() {
            return Ok(self.put(plural, namespace, name, None, writer));
        }
        if object["metadata"].get("deletionTimestamp").is_some() {
            return Ok(object);
        }
        metadata(&mut object).insert("deletionTimestamp".into(), json!("2026-01-01T00:00:00Z"));
        bump(&mut object);
        Ok(self.put(plural, namespace, name, Some(object), writer))
    }

    fn put(
        &mut self,
        plural: &'static str,
        namespace: &str,
        name: &str,
        after: Option<Value>,
        writer: Writer,
    ) -> Value {
        self.version += 1;
        let key = (plural, namespace.to_owned(), name.to_owned());
        let before = self.objects.get(&key).cloned();
        let stamp = |mut object: Value, version: u64| {
            metadata(&mut object).insert("resourceVersion".into(), json!(version.to_string()));
            object
        };
        let after = after.map(|object| stamp(object, self.version));
        if let Some(mut observer) = self.observer.take() {
            observer(&Write {
                plural,
                name,
                writer,
                before: before.as_ref(),
                after: after.as_ref(),
                objects: &self.objects,
            });
            self.observer = Some(observer);
        }
        let (kind, object) = match (&before, after) {
            (None, Some(object)) => ("ADDED", object),
            (Some(_), Some(object)) => ("MODIFIED", object),
            (_, None) => ("DELETED", stamp(before.unwrap_or_default(), self.version)),
        };
        if kind == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object.clone());
        }
        // Nobody watches events, so they need no history.
        if plural != "events" {
            self.history.push_back(Change {
                version: self.version,
                plural,
                kind,
                object: Arc::new(object.clone()),
                at: Instant::now(),
            });
            if self.history.len() > HISTORY
                && let Some(gone) = self.history.pop_front()
            {
                self.oldest = gone.version;
            }
            self.news.send_replace(self.version);
        }
        object
    }
}

/// All objects of a kind, each with its namespace.
pub fn of_kind<'a>(
    objects: &'a Objects,
    plural: &'static str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    objects
        .range((plural, String::new(), String::new())..)
        .take_while(move |((p, ..), _)| *p == plural)
        .map(|((_, namespace, _), object)| (namespace.as_str(), object))
}

pub fn not_found(plural: &str, name: &str) -> Refusal {
    Refusal::new(404, "NotFound", format!("{plural} {name:?} not found"))
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

pub fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(0)
}

fn has_status(plural: &str) -> bool {
    matches!(
        plural,
        "canaries" | "httproutes" | "gateways" | "gatewayclasses"
    )
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(object) = object.as_object_mut() {
        match value {
            Some(value) => object.insert(field.into(), value),
            None => object.remove(field),
        };
    }
}

fn bump(object: &mut Value) {
    let next = generation(object) + 1;
    metadata(object).insert("generation".into(), json!(next));
}

pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().unwrap()
}
