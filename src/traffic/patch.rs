//! From what lists should be to narrow operations on what they are.

use super::view;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, TestOperation};
use serde_json::Value;

/// An element that a list should have: one that it has already, at `from`, or a new one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot {
    pub from: Option<usize>,
    pub value: Value,
}

impl Slot {
    pub fn kept(from: usize, value: Value) -> Self {
        Self {
            from: Some(from),
            value,
        }
    }
}

/// A patch in the making. Operations on rules that stay must come before [`Draft::added`], so that
/// places are those of the route as it was read.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    route: &'a Value,
    tests: Vec<PatchOperation>,
    edits: Vec<PatchOperation>,
}

impl<'a> Draft<'a> {
    pub fn new(route: &'a Value) -> Self {
        Self {
            route,
            tests: Vec::new(),
            edits: Vec::new(),
        }
    }

    /// The references of a rule should be these. Those that stay keep their order, new ones are last.
    pub fn refs(&mut self, rule: usize, slots: &[Slot]) {
        let value = &view::rules(self.route)[rule];
        let old = view::refs(value);
        let at = |place: &str| {
            vec![
                s("spec"),
                s("rules"),
                rule.to_string(),
                s("backendRefs"),
                s(place),
            ]
        };
        let before = self.edits.len();
        for (from, wanted) in slots
            .iter()
            .filter_map(|slot| Some((slot.from?, &slot.value)))
        {
            let path = at(&from.to_string());
            if self.members(&path, &old[from], wanted) {
                self.test(&path, "name", &old[from]);
            }
        }
        let gone = (0..old.len()).filter(|from| slots.iter().all(|slot| slot.from != Some(*from)));
        for from in gone.rev() {
            let path = at(&from.to_string());
            self.test(&path, "name", &old[from]);
            self.edits.push(remove(&path));
        }
        for slot in slots.iter().filter(|slot| slot.from.is_none()) {
            self.edits.push(add(&at("-"), &slot.value));
        }
        if self.edits.len() > before {
            self.test(&at("-")[..3], "name", value);
        }
    }

    /// The rules at `old`, which were added by us, should be these: the ones that stay are changed in
    /// place, what is too many is removed from the end, new ones are appended.
    pub fn added(&mut self, old: &[usize], slots: &[Slot]) {
        let rules = view::rules(self.route);
        let at = |place: &str| vec![s("spec"), s("rules"), s(place)];
        for (from, wanted) in slots
            .iter()
            .filter_map(|slot| Some((slot.from?, &slot.value)))
        {
            let path = at(&from.to_string());
            if self.members(&path, &rules[from], wanted) {
                self.test_rule(&path, &rules[from]);
            }
        }
        let stays = |from: &usize| slots.iter().any(|slot| slot.from == Some(*from));
        let mut gone: Vec<usize> = old.iter().copied().filter(|from| !stays(from)).collect();
        gone.sort_unstable();
        for from in gone.into_iter().rev() {
            let path = at(&from.to_string());
            self.test_rule(&path, &rules[from]);
            self.edits.push(remove(&path));
        }
        for slot in slots.iter().filter(|slot| slot.from.is_none()) {
            self.edits.push(add(&at("-"), &slot.value));
        }
    }

    /// The patch and the route after it; none when nothing changes. It applies only to the object and
    /// the generation that it was made from.
    #[allow(
        clippy::expect_used,
        reason = "every path and every tested value was read from the route that is patched; `tests/fuzz` tries to refute it"
    )]
    pub fn finish(self) -> Option<(Patch, Value)> {
        if self.edits.is_empty() {
            return None;
        }
        let locks = ["generation", "uid"].into_iter().filter_map(|field| {
            let value = view::metadata(self.route, field)?.clone();
            let path = PointerBuf::from_tokens(["metadata", field]);
            Some(PatchOperation::Test(TestOperation { path, value }))
        });
        let patch = Patch(locks.chain(self.tests).chain(self.edits).collect());
        let mut result = self.route.clone();
        json_patch::patch(&mut result, &patch)
            .expect("every path and every tested value was read from this very route");
        Some((patch, result))
    }

    /// Changes the members of an object that differ; true if there are any.
    fn members(&mut self, path: &[String], old: &Value, wanted: &Value) -> bool {
        let before = self.edits.len();
        let (Some(old), Some(wanted)) = (old.as_object(), wanted.as_object()) else {
            return false;
        };
        for (member, value) in wanted {
            if old.get(member) != Some(value) {
                self.edits.push(add(&join(path, member), value));
            }
        }
        for member in old.keys().filter(|member| !wanted.contains_key(*member)) {
            self.edits.push(remove(&join(path, member)));
        }
        self.edits.len() > before
    }

    /// An added rule is known by its name, or else by its only backend.
    fn test_rule(&mut self, path: &[String], rule: &Value) {
        match (view::name(rule), view::refs(rule)) {
            (None, [reference, ..]) => {
                let path: Vec<String> = path
                    .iter()
                    .cloned()
                    .chain([s("backendRefs"), s("0")])
                    .collect();
                self.test(&path, "name", reference);
            }
            _ => self.test(path, "name", rule),
        }
    }

    fn test(&mut self, path: &[String], member: &str, holder: &Value) {
        if let Some(value) = holder.get(member) {
            self.tests.push(PatchOperation::Test(TestOperation {
                path: pointer(&join(path, member)),
                value: value.clone(),
            }));
        }
    }
}

fn s(text: &str) -> String {
    text.to_owned()
}

fn join(path: &[String], member: &str) -> Vec<String> {
    path.iter().cloned().chain([s(member)]).collect()
}

fn pointer(path: &[String]) -> PointerBuf {
    PointerBuf::from_tokens(path)
}

fn add(path: &[String], value: &Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: pointer(path),
        value: value.clone(),
    })
}

fn remove(path: &[String]) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation {
        path: pointer(path),
    })
}
