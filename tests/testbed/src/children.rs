//! The processes of a world, none of which outlives the test that started it.
//!
//! On a normal end and on a panic the [`Child`] is dropped, which kills it. When
//! the test itself is killed (SIGKILL, Ctrl-C) nothing of ours runs any more, so
//! the kernel does it: every child is started through `guard` (see
//! `go/guard/main.go`), which asks for a death signal. That signal comes when the
//! *thread* that started the child ends, so one thread starts them all and lasts
//! as long as the process.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How to start a process; kept so that it can be started again.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub envs: Vec<(String, String)>,
    /// Where it works; where the caller does with `None`.
    pub dir: Option<PathBuf>,
    pub log: PathBuf,
}

pub(crate) struct Child {
    name: String,
    log: PathBuf,
    process: std::process::Child,
}

impl Child {
    pub(crate) fn start(guard: &Path, recipe: &Recipe) -> Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&recipe.log)?;
        let mut command = Command::new(guard);
        command
            .arg(std::process::id().to_string())
            .arg(&recipe.program)
            .args(&recipe.args);
        // Nothing of the caller's cluster or proxy settings may leak in.
        for name in [
            "KUBECONFIG",
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
        ] {
            command.env_remove(name);
        }
        for name in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "http_proxy",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(name);
        }
        command.envs(recipe.envs.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &recipe.dir {
            command.current_dir(dir);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // A group of its own: the terminal's Ctrl-C is for us, who then end the world in order.
        command.process_group(0);
        let process = spawn(command).with_context(|| format!("start {}", recipe.name))?;
        Ok(Child {
            name: recipe.name.clone(),
            log: recipe.log.clone(),
            process,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Fails with the end of the log when the process has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("{} ended ({status}); {}", self.name, tail(&self.log));
        }
        Ok(())
    }

    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and after `patience` SIGKILL.
    pub(crate) async fn stop(mut self, patience: Duration) -> Result<ExitStatus> {
        // A paused process would not see the first.
        self.resume()?;
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > patience {
                self.process.kill()?;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The last lines of a log, and where the whole is.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    format!(
        "the end of {}:\n{}",
        log.display(),
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    )
}

type Started = std::io::Result<std::process::Child>;

/// Starts a process from the one thread that lasts.
fn spawn(command: Command) -> Result<std::process::Child> {
    static SPAWNER: OnceLock<mpsc::Sender<(Command, mpsc::Sender<Started>)>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<(Command, mpsc::Sender<Started>)>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, started) = mpsc::channel();
    spawner
        .send((command, answer))
        .ok()
        .context("the thread that starts processes has ended")?;
    Ok(started
        .recv()
        .context("the thread that starts processes has ended")??)
}
