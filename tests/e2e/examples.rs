//! What the examples and the docs show can be applied as it stands, by kubectl as people have it.

use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![examples_are_taken_by_kubectl]
}

fn manifests(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(manifests(&path)?);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
    Ok(found)
}

async fn examples_are_taken_by_kubectl(stage: &Stage) -> Result<()> {
    let shop = Shop::open_with(stage, "shop", &[], |_| {}).await?;
    let files = manifests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"))?;
    anyhow::ensure!(files.len() >= 3, "only {files:?}");
    for file in files {
        let path = file.display().to_string();
        shop.kubectl(&["apply", "--dry-run=server", "-f", &path])
            .await
            .with_context(|| path.clone())?;
    }
    shop.close().await
}
