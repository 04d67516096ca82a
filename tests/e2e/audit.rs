//! What the operators have asked of the API server, by its own audit log.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde_json::Value;
use testbed::World;

const OPERATOR: &str = "system:serviceaccount:serin-system:serin";

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who asked, of several operators.
    pub identity: String,
    pub verb: String,
    /// With its subresource: `canaries/status`.
    pub resource: String,
    pub code: u64,
    pub answered: DateTime<Utc>,
}

impl Entry {
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete")
    }

    pub fn passed(&self) -> bool {
        (200..300).contains(&self.code)
    }

    pub fn is_lease(&self) -> bool {
        self.resource == "leases"
    }

    fn read(line: &str) -> Option<Self> {
        let entry: Value = serde_json::from_str(line).ok()?;
        if entry["user"]["username"] != OPERATOR || entry["stage"] != "ResponseComplete" {
            return None;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let agent = text(&entry["userAgent"]);
        let identity = agent.split_once('(').map_or("", |(_, rest)| rest);
        let object = &entry["objectRef"];
        let part = object["subresource"].as_str();
        Some(Self {
            identity: identity.trim_end_matches(')').to_owned(),
            verb: text(&entry["verb"]),
            resource: text(&object["resource"]) + &part.map_or(String::new(), |p| format!("/{p}")),
            code: entry["responseStatus"]["code"].as_u64().unwrap_or(0),
            answered: entry["stageTimestamp"].as_str()?.parse().ok()?,
        })
    }
}

/// A place in the log: its end.
pub fn mark(world: &World) -> Result<usize> {
    let path = world.audit_log().context("the world keeps no audit log")?;
    Ok(usize::try_from(std::fs::metadata(path)?.len())?)
}

/// The operators' requests since a place, in the order of their answers.
pub fn since(world: &World, mark: usize) -> Result<Vec<Entry>> {
    let path = world.audit_log().context("the world keeps no audit log")?;
    let bytes = std::fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes[mark.min(bytes.len())..]);
    let mut entries: Vec<_> = text.lines().filter_map(Entry::read).collect();
    entries.sort_by_key(|entry| entry.answered);
    Ok(entries)
}
