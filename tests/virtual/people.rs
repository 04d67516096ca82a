//! What people and other managers do.

use crate::NAMESPACE;
use crate::plane::Health;
use crate::setup::{backend, revision, slice};
use crate::store::{Part, Writer, metadata};
use crate::world::World;
use serde_json::{Value, json};

impl World {
    /// Changes an object as `kubectl edit` would; nothing happens where it is not there.
    pub fn edit(&self, plural: &'static str, name: &str, change: impl FnOnce(&mut Value)) -> bool {
        let mut store = self.api.store();
        let Some(mut object) = store.get(plural, NAMESPACE, name).cloned() else {
            return false;
        };
        change(&mut object);
        store
            .replace(plural, NAMESPACE, name, Part::Main, object, Writer::Person)
            .is_ok()
    }

    fn edit_canary(&self, change: impl FnOnce(&mut Value)) -> bool {
        self.edit("canaries", &self.setup.canary, change)
    }

    pub fn release(&self, version: &str) -> bool {
        self.edit_canary(|canary| canary["spec"]["target"]["backend"] = backend(version))
    }

    pub fn plan(&self, steps: Value) -> bool {
        self.edit_canary(|canary| canary["spec"]["steps"] = steps)
    }

    pub fn pause(&self, paused: bool) -> bool {
        self.edit_canary(|canary| canary["spec"]["paused"] = json!(paused))
    }

    /// Annotates: `say("approve", "v2", "/3")`.
    pub fn say(&self, verb: &str, version: &str, suffix: &str) -> bool {
        let value = format!("{}{suffix}", revision(version));
        self.edit_canary(|canary| {
            let meta = metadata(canary);
            let annotations = meta.entry("annotations").or_insert_with(|| json!({}));
            annotations[format!("serin.dev/{verb}")] = json!(value);
        })
    }

    pub fn delete_canary(&self) -> bool {
        let mut store = self.api.store();
        let name = &self.setup.canary;
        store
            .delete("canaries", NAMESPACE, name, Writer::Person)
            .is_ok()
    }

    pub fn create_canary(&self, target: &str) -> bool {
        let object = self.setup.canary_object(target);
        let mut store = self.api.store();
        store
            .create("canaries", NAMESPACE, object, Writer::Person)
            .is_ok()
    }

    /// Another manager changes a route.
    pub fn drift(&self, route: &str, change: impl FnOnce(&mut Value)) -> bool {
        self.edit("httproutes", route, |route| change(&mut route["spec"]))
    }

    pub fn health(&self, version: &str, health: Health) {
        self.plane().health.insert(version.to_owned(), health);
        let name = format!("{version}-1");
        let ready = slice(version, !health.down)["endpoints"].clone();
        self.edit("endpointslices", &name, |slice| slice["endpoints"] = ready);
    }

    pub fn errors(&self, version: &str, errors: f64) {
        let health = Health {
            errors,
            ..Health::default()
        };
        self.health(version, health);
    }

    /// What serves in a route's main rule, with more weight than 0.
    pub fn serves(&self, route: &str) -> Vec<(String, i64)> {
        let route = self.route(route);
        let rules = route["spec"]["rules"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let main = rules.iter().find(|rule| rule["name"] == "main");
        let refs = main.and_then(|rule| rule["backendRefs"].as_array().cloned());
        refs.unwrap_or_default()
            .iter()
            .map(|r| {
                let name = r["name"].as_str().unwrap_or_default().to_owned();
                (name, r["weight"].as_i64().unwrap_or(1))
            })
            .filter(|(name, weight)| name.starts_with('v') && *weight > 0)
            .collect()
    }
}
