//! Files that the program writes are what it would write now.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use std::fs;
use std::path::Path;

#[test]
fn crds_are_those_of_the_types() {
    let expected = serin::cli::crds::definitions().unwrap();
    // The chart has its own: helm packs nothing from outside of a chart's folder.
    for folder in ["crds", "charts/serin/files/crds"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for (name, text) in &expected {
            let found = fs::read_to_string(dir.join(name)).unwrap_or_default();
            assert_eq!(
                &found, text,
                "{folder}/{name} is old; write it anew with: cargo run -- crds --dir {folder}"
            );
        }
        let files = fs::read_dir(&dir).unwrap().count();
        assert_eq!(
            files,
            expected.len(),
            "{folder}/ holds a file that nothing writes"
        );
    }
}
