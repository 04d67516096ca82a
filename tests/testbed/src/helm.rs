//! The real `helm`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::World;
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

    /// A verb of helm that needs a cluster: `install`, `upgrade`.
    ///
    /// # Errors
    /// What helm says.
    pub async fn on(
        &self,
        world: &World,
        verb: &[&str],
        options: &[&str],
        values: &Value,
    ) -> Result<String> {
        let kubeconfig = world.kubeconfig().display().to_string();
        let options = [options, &["--kubeconfig", &kubeconfig]].concat();
        self.run(verb, &options, values).await
    }

    /// `helm uninstall`.
    ///
    /// # Errors
    /// What helm says.
    pub async fn uninstall(&self, world: &World, release: &str, namespace: &str) -> Result<String> {
        let mut command = Command::new(&self.program);
        command
            .args(["uninstall", release, "--namespace", namespace, "--wait"])
            .arg("--kubeconfig")
            .arg(world.kubeconfig());
        finish(command).await
    }

    async fn run(&self, verb: &[&str], options: &[&str], values: &Value) -> Result<String> {
        let folder = tempfile::tempdir().context("a folder for the values")?;
        let file = folder.path().join("values.json");
        std::fs::write(&file, values.to_string())?;
        let mut command = Command::new(&self.program);
        command
            .args(verb)
            .arg(&self.chart)
            .args(options)
            .arg("--values")
            .arg(&file);
        finish(command).await
    }
}

/// Runs helm to its end. Nothing of the user's own counts: no plugin, no registry, no cluster.
async fn finish(mut command: Command) -> Result<String> {
    let home = tempfile::tempdir().context("a home for helm")?;
    let output = command
        .env_clear()
        .env("HOME", home.path())
        .env("KUBECONFIG", home.path().join("none"))
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout).context("helm's output is not UTF-8")
}
