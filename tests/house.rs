//! The line in the house: below it nothing does I/O, knows an async runtime or a cluster client, or
//! reads a clock; and lower rooms know nothing of higher ones.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// From the top of the house down. A room may use those that stand after it.
const ROOMS: [&str; 9] = [
    "cli",
    "controller",
    "alerts",
    "metrics",
    "telemetry",
    "traffic",
    "release",
    "analysis",
    "api",
];

/// The first room below the line.
const LINE: &str = "traffic";

const FORBIDDEN: [&str; 15] = [
    "tokio",
    "reqwest",
    "hyper",
    "axum::",
    "futures::",
    "kube::Client",
    "kube::Api",
    "kube::runtime",
    "kube::api",
    "Utc::now",
    "SystemTime",
    "Instant",
    "std::fs",
    "std::net",
    "std::env",
];

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The code of a room, without comments.
fn lines(room: &str) -> Vec<(String, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
    let mut found = Vec::new();
    files(&root, &mut found);
    assert!(!found.is_empty(), "room {room} is empty");
    found
        .iter()
        .flat_map(|path| {
            let name = path
                .strip_prefix(env!("CARGO_MANIFEST_DIR"))
                .unwrap()
                .display()
                .to_string();
            let text = fs::read_to_string(path).unwrap();
            let code = text
                .lines()
                .map(|line| line.split("//").next().unwrap_or("").to_owned());
            code.enumerate()
                .map(|(n, line)| (name.clone(), n + 1, line))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn below_the_line_there_is_no_io_and_no_clock() {
    let line = ROOMS.iter().position(|room| *room == LINE).unwrap();
    let mut wrong = Vec::new();
    for room in &ROOMS[line..] {
        for (file, number, code) in lines(room) {
            for word in FORBIDDEN.iter().filter(|word| code.contains(**word)) {
                wrong.push(format!("{file}:{number}: {word}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "below the line of the house:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn lower_rooms_know_nothing_of_higher_ones() {
    let mut wrong = Vec::new();
    for (index, room) in ROOMS.iter().enumerate() {
        for (file, number, code) in lines(room) {
            for higher in &ROOMS[..index] {
                let seen = code.contains(&format!("crate::{higher}::"))
                    || code.contains(&format!("crate::{{{higher}"));
                if seen {
                    wrong.push(format!("{file}:{number}: {room} uses {higher}"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "rooms that look up:\n{}",
        wrong.join("\n")
    );
}

/// A test program with a `main` of its own that Cargo builds with its usual harness runs nothing, and passes.
#[test]
fn tests_with_a_main_of_their_own_are_run_by_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let main = fs::read_to_string(path.join("main.rs")).unwrap_or_default();
        if main.contains("\nfn main()") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let entry = format!("[[test]]\nname = \"{name}\"\nharness = false\n");
            assert!(manifest.contains(&entry), "Cargo.toml lacks {entry}");
            seen += 1;
        }
    }
    assert!(seen > 0, "there is no such test");
}
