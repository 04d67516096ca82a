//! The real `helm`, for what it can do without a cluster.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use crate::binaries::binary;

/// A chart, and the program that renders it. The world does not need it: it is built
/// (some minutes) when it is first asked for.
#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
    chart: PathBuf,
}

impl Helm {
    /// Helm for the chart in this folder.
    ///
    /// # Errors
    /// When it can neither be found nor built.
    pub async fn of(chart: &Path) -> Result<Helm> {
        Ok(Helm {
            program: binary("helm").await?,
            chart: chart.to_owned(),
        })
    }

    /// `helm template`: what `helm install RELEASE -n NAMESPACE` would apply.
    ///
    /// # Errors
    /// What helm says of the values or the templates.
    pub async fn template(&self, release: &str, namespace: &str, values: &Value) -> Result<String> {
        self.run(&["template", release], &["--namespace", namespace], values)
            .await
    }

    /// The rendered NOTES.txt: what `helm install` would say at its end.
    ///
    /// # Errors
    /// What helm says of the values or the templates.
    pub async fn notes(&self, release: &str, namespace: &str, values: &Value) -> Result<String> {
        let options = ["--namespace", namespace, "--dry-run=client"];
        let text = self.run(&["install", release], &options, values).await?;
        let (_, notes) = text
            .split_once("\nNOTES:\n")
            .context("helm printed no notes")?;
        Ok(notes.to_owned())
    }

    /// `helm lint --strict`: warnings are errors.
    ///
    /// # Errors
    /// What the linter found.
    pub async fn lint(&self, values: &Value) -> Result<String> {
        self.run(&["lint"], &["--strict"], values).await
    }

    async fn run(&self, verb: &[&str], options: &[&str], values: &Value) -> Result<String> {
        // Nothing of the user's own helm counts: no plugin, no registry, no cluster.
        let home = tempfile::tempdir().context("a folder for helm")?;
        let file = home.path().join("values.json");
        std::fs::write(&file, values.to_string())?;
        let output = Command::new(&self.program)
            .args(verb)
            .arg(&self.chart)
            .args(options)
            .arg("--values")
            .arg(&file)
            .env_clear()
            .env("HOME", home.path())
            .env("KUBECONFIG", home.path().join("none"))
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("run {}", self.program.display()))?;
        if !output.status.success() {
            bail!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        String::from_utf8(output.stdout).context("helm's output is not UTF-8")
    }
}

/// The objects of a YAML text.
///
/// # Errors
/// When it is not YAML.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    let documents = serde_yaml::Deserializer::from_str(yaml)
        .map(Value::deserialize)
        .collect::<Result<Vec<_>, _>>()
        .context("read the manifest")?;
    Ok(documents
        .into_iter()
        .filter(|value| !value.is_null())
        .collect())
}
