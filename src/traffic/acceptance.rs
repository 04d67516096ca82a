//! What a route's parents say of its present generation.

use super::view;
use crate::api::GATEWAY_GROUP;
use serde_json::Value;
use std::fmt;

/// What a route's parents say of its present generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// Every parent takes it, with all its backends.
    Accepted,
    /// A parent has not answered yet.
    Pending { parent: String, message: String },
    /// A parent does not take it, or not all of it.
    Refused {
        parent: String,
        /// The condition that says so.
        condition: String,
        reason: String,
        message: String,
    },
}

/// A parent that a route names, with the API's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parent {
    pub group: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub section_name: Option<String>,
    pub port: Option<u64>,
}

impl Parent {
    fn read(reference: &Value, namespace: &str) -> Self {
        let or = |field, default| view::text(reference, field).unwrap_or(default).to_owned();
        Self {
            group: or("group", GATEWAY_GROUP),
            kind: or("kind", "Gateway"),
            namespace: or("namespace", namespace),
            name: or("name", ""),
            section_name: view::text(reference, "sectionName").map(str::to_owned),
            port: reference.get("port").and_then(Value::as_u64),
        }
    }
}

impl Parent {
    /// Namespace and name of the Gateway that this parent is, if it is one.
    #[must_use]
    pub fn gateway(&self) -> Option<(&str, &str)> {
        (self.group == GATEWAY_GROUP && self.kind == "Gateway")
            .then_some((&self.namespace, &self.name))
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)?;
        if let Some(section) = &self.section_name {
            write!(f, " section {section}")?;
        }
        match self.port {
            Some(port) => write!(f, " port {port}"),
            None => Ok(()),
        }
    }
}

/// The parents that a route names, in order.
#[must_use]
pub fn parents(route: &Value) -> Vec<Parent> {
    let namespace = namespace(route);
    let spec = route.get("spec");
    spec.map_or(&[][..], |spec| view::list(spec, "parentRefs"))
        .iter()
        .map(|reference| Parent::read(reference, namespace))
        .collect()
}

/// Names of the controllers that have written a status for the route, each once.
#[must_use]
pub fn controllers(route: &Value) -> Vec<String> {
    let mut names: Vec<String> = entries(route)
        .iter()
        .filter_map(|entry| view::text(entry, "controllerName"))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a route's parents say of its present generation.
///
/// Every parent needs an entry with `Accepted` and `ResolvedRefs` True at this generation. Of several
/// controllers that answer for one parent, all that have seen this generation must agree; those that
/// have not do not count once another has. `PartiallyInvalid` refuses: the plane serves something
/// else than what is written. Conditions beyond these three are ignored.
#[must_use]
pub fn acceptance(route: &Value) -> Acceptance {
    let generation = view::metadata(route, "generation")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let namespace = namespace(route);
    let said: Vec<(Parent, Answer)> = entries(route)
        .iter()
        .map(|entry| {
            let reference = entry.get("parentRef").unwrap_or(&Value::Null);
            let parent = Parent::read(reference, namespace);
            let answer = answer(entry, &parent, generation);
            (parent, answer)
        })
        .collect();
    let mut named = parents(route);
    if named.is_empty() {
        // Gateways that take every route stand in the status only.
        named = said.iter().map(|(parent, _)| parent.clone()).collect();
    }
    if named.is_empty() {
        return Acceptance::Pending {
            parent: String::new(),
            message:
                "the route names no parent, so no data plane serves it; add one to spec.parentRefs"
                    .into(),
        };
    }
    let answers: Vec<Acceptance> = named
        .iter()
        .map(|parent| {
            let of_parent = said.iter().filter(|(other, _)| other == parent);
            joint(parent, of_parent.map(|(_, answer)| answer))
        })
        .collect();
    let first = |wanted: fn(&Acceptance) -> bool| answers.iter().find(|answer| wanted(answer));
    first(|answer| matches!(answer, Acceptance::Refused { .. }))
        .or_else(|| first(|answer| matches!(answer, Acceptance::Pending { .. })))
        .cloned()
        .unwrap_or(Acceptance::Accepted)
}

/// What one controller says, and whether it has seen the present generation at all.
struct Answer {
    current: bool,
    says: Acceptance,
}

/// What the controllers of one parent say together.
fn joint<'a>(parent: &Parent, answers: impl Iterator<Item = &'a Answer>) -> Acceptance {
    let (current, stale): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.current);
    let says = |answer: &&Answer| answer.says.clone();
    let refused = |says: &Acceptance| matches!(says, Acceptance::Refused { .. });
    let pending = |says: &Acceptance| matches!(says, Acceptance::Pending { .. });
    let mut current = current.iter().map(says).collect::<Vec<_>>();
    // The gravest word is the last.
    current.sort_by_key(|says| (refused(says), pending(says)));
    current
        .pop()
        .or_else(|| stale.first().map(says))
        .unwrap_or_else(|| Acceptance::Pending {
            parent: parent.to_string(),
            message: format!("no controller has answered for {parent}"),
        })
}

fn answer(entry: &Value, parent: &Parent, generation: i64) -> Answer {
    let ours = ["Accepted", "ResolvedRefs", "PartiallyInvalid"];
    let current = view::list(entry, "conditions").iter().any(|condition| {
        let kind = view::text(condition, "type").unwrap_or_default();
        ours.contains(&kind) && seen(condition) >= generation
    });
    let says = says(entry, parent, generation);
    Answer { current, says }
}

/// The generation that a condition is about.
fn seen(condition: &Value) -> i64 {
    condition
        .get("observedGeneration")
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// What one controller says for one parent.
fn says(entry: &Value, parent: &Parent, generation: i64) -> Acceptance {
    let controller = view::text(entry, "controllerName").unwrap_or("the controller");
    let conditions = view::list(entry, "conditions");
    let condition = |kind| {
        conditions
            .iter()
            .find(|condition| view::text(condition, "type") == Some(kind))
    };
    let pending = |message| Acceptance::Pending {
        parent: parent.to_string(),
        message,
    };
    let refused = |kind: &str, condition: &Value| {
        let text = |field| view::text(condition, field).unwrap_or_default().to_owned();
        Acceptance::Refused {
            parent: parent.to_string(),
            condition: kind.to_owned(),
            reason: text("reason"),
            message: text("message"),
        }
    };
    // With "Fall Back" Accepted stays at the last good generation, so this one has to come first.
    let partial = condition("PartiallyInvalid")
        .filter(|found| view::text(found, "status") == Some("True") && seen(found) >= generation);
    if let Some(found) = partial {
        return refused("PartiallyInvalid", found);
    }
    let current = |kind| condition(kind).filter(|found| seen(found) >= generation);
    for kind in ["Accepted", "ResolvedRefs"] {
        let says_no = |found: &&Value| view::text(found, "status") == Some("False");
        if let Some(found) = current(kind).filter(says_no) {
            return refused(kind, found);
        }
    }
    for kind in ["Accepted", "ResolvedRefs"] {
        let Some(found) = condition(kind) else {
            return pending(format!("{controller} has not written {kind} for {parent}"));
        };
        let observed = seen(found);
        if observed < generation {
            return pending(format!(
                "{controller} has seen generation {observed} of {generation} for {parent}"
            ));
        }
        if view::text(found, "status") != Some("True") {
            let reason = view::text(found, "reason").unwrap_or("no reason given");
            return pending(format!(
                "{controller} has not decided {kind} for {parent} yet ({reason})"
            ));
        }
    }
    Acceptance::Accepted
}

fn entries(route: &Value) -> &[Value] {
    route
        .get("status")
        .map_or(&[], |status| view::list(status, "parents"))
}

fn namespace(route: &Value) -> &str {
    view::metadata(route, "namespace")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
