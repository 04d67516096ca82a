//! Chance, the loop that spends it, and what is done to inputs.

use serde_json::{Map, Value, json};
use std::time::{Duration, Instant, SystemTime};

/// SplitMix64: small, fast, and the same everywhere for ever.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A case may take this long on a busy machine; a good one takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says which case it was when one fails.
struct Case<'a> {
    target: &'a str,
    seed: u64,
    iteration: u64,
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self {
                target,
                seed,
                iteration,
            } = self;
            eprintln!(
                "case {iteration} of {target} failed; again: SERIN_SEED={seed:#x} cargo test --test fuzz {target}"
            );
        }
    }
}

/// Runs a target until its time is up. Each case is made from its own seed alone.
pub fn fuzz(target: &str, mut case: impl FnMut(&mut Rng)) {
    let mut run = |seed, iteration| {
        let guard = Case {
            target,
            seed,
            iteration,
        };
        let begun = Instant::now();
        case(&mut Rng::new(seed));
        let took = begun.elapsed();
        assert!(took < PATIENCE, "the case took {took:?}");
        drop(guard);
    };
    if let Some(seed) = variable("SERIN_SEED") {
        return run(seed, 0);
    }
    // An everyday run is the same each time, so that it never fails for a change that is not to blame.
    let asked = variable("SERIN_FUZZ_SECONDS");
    let base = variable("SERIN_FUZZ_FROM").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        asked.map_or(0x5e_11_11, |_| now.unwrap().as_nanos() as u64)
    });
    let end = Duration::from_millis(asked.map_or(1_000, |seconds| seconds * 1_000));
    let mut seeds = Rng::new(base);
    let begun = Instant::now();
    let mut iteration = 0;
    while begun.elapsed() < end {
        run(seeds.word(), iteration);
        iteration += 1;
    }
    let rate = iteration as f64 / begun.elapsed().as_secs_f64();
    println!("{target}: {iteration} cases, {rate:.0} a second, from {base:#x}");
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")))
}

pub const WORDS: [&str; 69] = [
    "",
    " ",
    "\0",
    "\u{1b}[31m",
    "\n",
    "\"",
    "\\",
    "{{",
    "}}",
    "{{ name }}",
    "{{ window }}",
    "é",
    "名前",
    "🐤",
    "\u{202e}abc",
    "e\u{301}",
    "\u{feff}",
    "a/b",
    "../..",
    "~1",
    "-",
    ".",
    "@",
    ":",
    "[",
    "v1",
    "v2",
    "shop",
    "web",
    "serin-web-0",
    "serin-web-0.1",
    "serin-web-99999999999999999999",
    "serin-",
    "main",
    "x-canary",
    "X-Canary",
    "true",
    "Service",
    "HTTPRoute",
    "GRPCRoute",
    "Gateway",
    "Exact",
    "RegularExpression",
    "ReplacePrefixMatch",
    "True",
    "False",
    "Accepted",
    "ResolvedRefs",
    "PartiallyInvalid",
    "errorRate",
    "queue",
    "0s",
    "1ms",
    "10s",
    "3650d",
    "9999999d",
    "9223372036854775807ms",
    "1%",
    "100%",
    "-1",
    "0.000000001",
    "999999999999999999",
    "NaN",
    "+Inf",
    "1e309",
    "2026-01-01T00:00:05Z",
    "+262142-12-31T23:59:59.999999999Z",
    "-262143-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z",
];

/// A word that has been trouble somewhere.
pub fn word(rng: &mut Rng) -> String {
    match rng.below(20) {
        0 => rng.pick(&["a", "é", "🐤", "\"", "\u{1}"]).repeat(253),
        1 => "x".repeat(1 << rng.below(13)),
        2 => format!("{}{}", rng.pick(&WORDS), rng.pick(&WORDS)),
        3 => rng.word().to_string(),
        _ => (*rng.pick(&WORDS)).to_owned(),
    }
}

fn number(rng: &mut Rng) -> Value {
    let ends = [
        0,
        1,
        2,
        49,
        50,
        99,
        100,
        101,
        255,
        256,
        65_535,
        65_536,
        999_999,
        1_000_000,
        1_000_001,
        i64::from(i32::MAX),
        i64::from(u32::MAX),
        1 << 32,
        (1 << 53) - 1,
        1 << 53,
        i64::MAX,
        i64::MIN,
        -1,
        -100,
    ];
    match rng.below(8) {
        0 => json!(u64::MAX),
        1 => json!(*rng.pick(&[0.5, -0.0, 1e-300, 1e300, f64::MAX, f64::MIN, 0.1, 1e16])),
        2 => json!(rng.word() >> rng.below(64)),
        _ => json!(rng.pick(&ends)),
    }
}

fn anything(rng: &mut Rng) -> Value {
    match rng.below(8) {
        0 => Value::Null,
        1 => json!(rng.chance(50)),
        2 | 3 => number(rng),
        4 | 5 => json!(word(rng)),
        6 => json!([]),
        _ => json!({}),
    }
}

/// Another value of the same type, most of the time.
fn other(rng: &mut Rng, old: &Value) -> Value {
    if rng.chance(10) {
        return anything(rng);
    }
    match old {
        Value::Null => anything(rng),
        Value::Bool(old) => json!(!old),
        Value::Number(_) => number(rng),
        Value::String(_) => json!(word(rng)),
        Value::Array(list) => {
            let mut list = list.clone();
            match rng.below(5) {
                0 => list.clear(),
                1 => list.reverse(),
                2 if !list.is_empty() => {
                    list.remove(rng.below(list.len()));
                }
                3 if !list.is_empty() => {
                    let again = rng.pick(&list).clone();
                    let at = rng.below(list.len());
                    for _ in 0..1 << rng.below(6) {
                        list.insert(at, again.clone());
                    }
                }
                _ => list.push(anything(rng)),
            }
            Value::Array(list)
        }
        Value::Object(map) => Value::Object(member(rng, map.clone())),
    }
}

fn member(rng: &mut Rng, mut map: Map<String, Value>) -> Map<String, Value> {
    let keys: Vec<String> = map.keys().cloned().collect();
    match rng.below(4) {
        0 | 1 if !keys.is_empty() => {
            map.remove(rng.pick(&keys));
        }
        2 if !keys.is_empty() => {
            let value = map.remove(rng.pick(&keys)).unwrap_or_default();
            map.insert(rng.pick(&keys).clone(), value);
        }
        _ => {
            map.insert(word(rng), anything(rng));
        }
    }
    map
}

/// Changes one node of a tree; `graft` is what may stand in its place.
pub fn tree(rng: &mut Rng, value: &mut Value, graft: &Value) {
    let count = nodes(value);
    let at = rng.below(count);
    let graft = match rng.chance(10) {
        true => {
            let from = rng.below(nodes(graft));
            node(&mut graft.clone(), from).cloned()
        }
        false => None,
    };
    if let Some(found) = node(value, at) {
        *found = graft.unwrap_or_else(|| other(rng, found));
    }
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(nodes).sum(),
        Value::Object(map) => map.values().map(nodes).sum(),
        _ => 0,
    }
}

/// The nth node, in the order in which they are written.
fn node(value: &mut Value, at: usize) -> Option<&mut Value> {
    let mut stack = vec![value];
    let mut left = at;
    while let Some(value) = stack.pop() {
        if left == 0 {
            return Some(value);
        }
        left -= 1;
        match value {
            Value::Array(list) => stack.extend(list.iter_mut()),
            Value::Object(map) => stack.extend(map.values_mut()),
            _ => {}
        }
    }
    None
}

/// Changes a tree a few times. A change after which `reads` fails is most often taken back, so that
/// what is behind the reader is reached too.
pub fn trees(rng: &mut Rng, value: &mut Value, graft: &Value, reads: impl Fn(&Value) -> bool) {
    for _ in 0..=rng.below(8) {
        let mut next = value.clone();
        tree(rng, &mut next, graft);
        if reads(&next) || rng.chance(2) {
            *value = next;
        }
    }
}

/// Changes a few bytes.
pub fn bytes(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(6) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.word() as u8),
            2 => {
                let new = word(rng);
                bytes.splice(at..at, new.bytes());
            }
            3 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            4 if at < bytes.len() => {
                bytes.remove(at);
            }
            5 => {
                let end = bytes.len().min(at + rng.below(32));
                let part = bytes[at..end].to_vec();
                let to = rng.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            _ => {}
        }
        bytes.truncate(1 << 16);
    }
}

/// Changes a text, in bytes and by words; what is no UTF-8 is mended.
pub fn text(rng: &mut Rng, text: &str) -> String {
    let mut raw = text.as_bytes().to_vec();
    bytes(rng, &mut raw);
    String::from_utf8_lossy(&raw).into_owned()
}
