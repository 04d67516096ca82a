//! `serin crds`: the custom resource definitions, as they are in `crds/`.

use crate::api::{AlertProvider, Canary};
use anyhow::Context;
use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CrdsArgs {
    /// Write one file for each kind into this folder instead of printing.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// The definitions of all our kinds, with the names of their files.
///
/// # Errors
/// When a definition cannot be put as YAML.
pub fn definitions() -> anyhow::Result<Vec<(String, String)>> {
    [Canary::crd(), AlertProvider::crd()]
        .iter()
        .map(|crd: &CustomResourceDefinition| {
            let name = format!("{}.yaml", crd.spec.names.plural);
            let text =
                serde_norway::to_string(crd).with_context(|| format!("cannot write {name}"))?;
            Ok((name, text))
        })
        .collect()
}

pub fn run(args: &CrdsArgs) -> anyhow::Result<()> {
    for (name, text) in definitions()? {
        match &args.dir {
            Some(dir) => {
                let path = dir.join(name);
                std::fs::write(&path, text)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => println!("---\n{}", text.trim_end()),
        }
    }
    Ok(())
}
