//! The references of one managed rule: who is who, and what each should be.
//!
//! The candidate's reference stands in the rule only while it has weight, or for ever where it stood
//! there already at weight 0; that one is used in place and never removed.

use super::patch::Slot;
use super::{Frame, view};
use crate::api::{RuleRecord, Wanted};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A weight that the Gateway API would not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge(pub i64);

/// The references of a managed rule, told apart.
#[derive(Debug)]
pub(super) struct Arms<'a> {
    frame: &'a Frame<'a>,
    record: &'a RuleRecord,
    refs: &'a [Value],
    /// The stable backend's reference; where it is gone, the candidate's, which took its place.
    slot: usize,
    /// Whether the slot does hold the stable backend.
    intact: bool,
    canary: Option<usize>,
    /// Further references to the candidate, which nobody but a foreign hand can have added.
    spare: Vec<usize>,
    /// Whether the candidate stood in the rule when it was found.
    stood: bool,
}

impl<'a> Arms<'a> {
    /// None when the rule holds neither of the two backends.
    pub fn read(rule: &'a Value, frame: &'a Frame<'a>, record: &'a RuleRecord) -> Option<Self> {
        let refs = view::refs(rule);
        let mut candidates = view::places(refs, frame.candidate, frame.namespace).into_iter();
        let stable = view::places(refs, frame.stable, frame.namespace)
            .first()
            .copied();
        Some(Self {
            frame,
            record,
            refs,
            slot: stable.or_else(|| candidates.next())?,
            intact: stable.is_some(),
            canary: candidates.next(),
            spare: candidates.collect(),
            stood: stood(frame, record),
        })
    }

    /// What the references should be, in order.
    ///
    /// Foreign references keep what other people wrote, in the scale that is wanted. Where a weight
    /// that was written during the split has no whole counterpart in the scale of the rule as it was
    /// found, all weights stay in the split's scale: the shares are the same.
    pub fn wanted(&self, wanted: &Wanted) -> Result<Vec<Slot>, TooLarge> {
        let percent = match wanted {
            Wanted::Split { weight, .. } => i64::from((*weight).min(100)),
            Wanted::Stable | Wanted::Candidate => 0,
        };
        let foreign = self.foreign();
        let odd = |(at, _): &(usize, _)| view::weight(&self.refs[*at]) % self.factor() != 0;
        let scaled = self.scaled();
        let scale = percent > 0 || (scaled && foreign.iter().any(odd));

        let mut slots = match wanted {
            Wanted::Stable | Wanted::Split { .. } => self.shared(percent, scale),
            Wanted::Candidate => self.promoted(scale),
        };
        slots.extend(foreign.into_iter().map(|(at, found)| {
            let mut value = self.refs[at].clone();
            let weight = view::weight(&value);
            if scale && !scaled && self.factor() > 1 {
                weigh(&mut value, Some(weight * self.factor()));
            } else if scaled && !scale {
                let found = found.filter(|n| n.unwrap_or(1) * self.factor() == weight);
                weigh(&mut value, found.unwrap_or(Some(weight / self.factor())));
            }
            Slot::kept(at, value)
        }));
        slots.sort_by_key(|slot| slot.from.unwrap_or(usize::MAX));
        let weights = slots
            .iter()
            .filter_map(|slot| slot.value.get("weight")?.as_i64());
        match weights.max().filter(|weight| *weight > view::MAX_WEIGHT) {
            Some(weight) => Err(TooLarge(weight)),
            None => Ok(slots),
        }
    }

    /// Stable in its slot, and the candidate with its percent.
    fn shared(&self, percent: i64, scale: bool) -> Vec<Slot> {
        let mut slot = self.refs[self.slot].clone();
        if !self.intact {
            spell(&mut slot, self.frame, true, &self.record.spelled);
        }
        let all = self.stable_weight() * self.factor();
        let canary = all * percent / 100;
        let rest = if percent > 0 {
            Some(all - canary)
        } else {
            self.part(scale)
        };
        weigh(&mut slot, rest);
        let mut slots = vec![Slot::kept(self.slot, slot)];
        // One that only stood by is kept at weight 0, and put back where it took stable's slot.
        let stands = self.stood && (self.canary.is_some() || !self.intact);
        if percent > 0 || stands {
            let mut value = self.canary_ref();
            weigh(&mut value, Some(canary));
            slots.push(Slot {
                from: self.canary,
                value,
            });
        }
        slots
    }

    /// The candidate in stable's slot. Where it stood in the rule already the two swap their weights,
    /// so that no reference of the route's owner is taken away.
    fn promoted(&self, scale: bool) -> Vec<Slot> {
        let mut slot = self.refs[self.slot].clone();
        if let Some(at) = self.canary.filter(|_| self.stood && self.intact) {
            let mut canary = self.refs[at].clone();
            weigh(&mut slot, Some(0));
            weigh(&mut canary, self.part(scale));
            return vec![Slot::kept(self.slot, slot), Slot::kept(at, canary)];
        }
        if self.intact {
            spell(&mut slot, self.frame, false, &self.record.spelled);
        }
        weigh(&mut slot, self.part(scale));
        vec![Slot::kept(self.slot, slot)]
    }

    /// The whole of stable's part: as it was found, or in the split's scale.
    fn part(&self, scale: bool) -> Option<i64> {
        if scale {
            return Some(self.stable_weight() * self.factor());
        }
        self.found(&self.frame.stable.revision(), 0).flatten()
    }

    fn factor(&self) -> i64 {
        i64::from(self.record.factor.max(1))
    }

    /// The candidate's reference: the one that stood in the rule already, or a copy of stable's, with
    /// its filters and whatever else it has.
    pub fn canary_ref(&self) -> Value {
        if let Some(at) = self.canary.filter(|_| self.stood) {
            return self.refs[at].clone();
        }
        let mut value = self.refs[self.slot].clone();
        let mut spelled = self.record.spelled.clone();
        // What the API server would fill in is written out, or the next look would see a difference.
        spelled.extend(["group".to_owned(), "kind".to_owned()]);
        spell(&mut value, self.frame, false, &spelled);
        value
    }

    /// Whether the weights are in the scale of a split. The sum of our two says so; where somebody
    /// changed them the foreign ones do.
    fn scaled(&self) -> bool {
        let factor = self.factor();
        let whole = self.stable_weight();
        let canary = self.canary.map_or(0, |at| view::weight(&self.refs[at]));
        let sum = view::weight(&self.refs[self.slot]) + canary;
        if factor == 1 {
            return false;
        }
        if sum == whole * factor {
            return true;
        }
        if sum == whole && canary == 0 {
            return false;
        }
        let mut votes = 0;
        for (at, found) in self.foreign() {
            let Some(found) = found.map(|found| found.unwrap_or(1)).filter(|n| *n > 0) else {
                continue;
            };
            let weight = view::weight(&self.refs[at]);
            votes += i32::from(weight == found * factor) - i32::from(weight == found);
        }
        votes > 0 || votes == 0 && canary > 0
    }

    /// Places of all other references, each with its weight as it was found, if it is one of those.
    fn foreign(&self) -> Vec<(usize, Option<Option<i64>>)> {
        let ours =
            |at: &usize| *at == self.slot || Some(*at) == self.canary || self.spare.contains(at);
        // A second reference to stable was added by a foreign hand; the first is in the slot.
        let mut seen = BTreeMap::from([(self.frame.stable.revision(), 1)]);
        (0..self.refs.len())
            .filter(|at| !ours(at))
            .map(|at| {
                let key = view::key(&self.refs[at], self.frame.namespace);
                let nth = seen.entry(key.clone()).or_insert(0);
                *nth += 1;
                (at, self.found(&key, *nth - 1))
            })
            .collect()
    }

    /// The weight that the nth reference to a backend had when the rule was found.
    fn found(&self, key: &str, nth: usize) -> Option<Option<i64>> {
        let backends = self.record.backends.iter().zip(&self.record.weights);
        backends
            .filter(|(backend, _)| *backend == key)
            .nth(nth)
            .map(|(_, weight)| weight.map(i64::from))
    }

    fn stable_weight(&self) -> i64 {
        let found = self.found(&self.frame.stable.revision(), 0);
        found.flatten().unwrap_or(1)
    }
}

/// Whether the candidate stood in the rule when it was found.
pub(super) fn stood(frame: &Frame<'_>, record: &RuleRecord) -> bool {
    record.backends.contains(&frame.candidate.revision())
}

/// The optional fields of a reference that it spells out.
pub(super) fn spelled(reference: &Value) -> Vec<String> {
    ["group", "kind", "namespace"]
        .into_iter()
        .filter(|field| reference.get(field).is_some())
        .map(str::to_owned)
        .collect()
}

/// Puts one of the two backends into a reference. What has its default value is written only where it
/// is to be spelled out.
fn spell(reference: &mut Value, frame: &Frame<'_>, stable: bool, spelled: &[String]) {
    let backend = if stable {
        frame.stable
    } else {
        frame.candidate
    };
    let Some(object) = reference.as_object_mut() else {
        return;
    };
    let namespace = backend.namespace.as_deref().unwrap_or(frame.namespace);
    let optional = [
        ("group", backend.group.as_str(), ""),
        ("kind", &backend.kind, "Service"),
        ("namespace", namespace, frame.namespace),
    ];
    for (field, value, default) in optional {
        if value != default || spelled.iter().any(|spelled| spelled == field) {
            object.insert(field.into(), json!(value));
        } else {
            object.remove(field);
        }
    }
    object.insert("name".into(), json!(backend.name));
    object.insert("port".into(), json!(backend.port));
}

/// Writes a weight; none leaves it to the API's default.
pub(super) fn weigh(reference: &mut Value, weight: Option<i64>) {
    let Some(object) = reference.as_object_mut() else {
        return;
    };
    match weight {
        Some(weight) => object.insert("weight".into(), json!(weight)),
        None => object.remove("weight"),
    };
}
