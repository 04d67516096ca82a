//! Watch Serin release a good version and take back a bad one, on a real Kubernetes control plane with
//! a real Gateway data plane, a real Prometheus and real HTTP traffic, all on this machine's loopback.
//!
//! ```text
//! cargo run --example playground
//! ```

mod tour;
mod view;

use anyhow::{Context, Result};
use clap::Parser;
use std::io::IsTerminal;
use std::process::{Child, Command, ExitCode, Stdio};
use testbed::{Options, Receiver, World};

fn main() -> ExitCode {
    // The operator runs in a process of its own, as it would in a cluster: this program, called again.
    let mut arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "operator") {
        arguments.remove(1);
        return match serin::cli::run(serin::cli::Cli::parse_from(arguments)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(err) => {
                eprintln!("serin: {err:#}");
                ExitCode::FAILURE
            }
        };
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(err) => {
            eprintln!("playground: cannot start the runtime: {err}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(play()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("playground: {err:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World::start(Options::default())
        .await
        .context("cannot start the world")?;
    let result = tokio::select! {
        result = visit(&world) => result,
        _ = tokio::signal::ctrl_c() => {
            println!();
            Ok(())
        }
    };
    if result.is_err() {
        world.keep();
    }
    world.shutdown().await;
    result
}

async fn visit(world: &World) -> Result<()> {
    let receiver = Receiver::start().await?;
    let _operator = start_operator(world, &receiver).await?;
    tour::open_shop(world, &receiver).await?;
    let _traffic = tour::take(world, &receiver).await?;
    if std::io::stdin().is_terminal() {
        view::try_it(world.kubeconfig(), world.dir());
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// The operator, with the rights that it is shipped with.
async fn start_operator(world: &World, receiver: &Receiver) -> Result<Operator> {
    for (name, text) in serin::cli::crds::definitions()? {
        world
            .apply(&text)
            .await
            .with_context(|| format!("crds/{name}"))?;
    }
    // All but the Deployment: the process below stands for its pods.
    let manifest = include_str!("../../deploy/install.yaml");
    let rights: Vec<&str> = manifest
        .split("\n---\n")
        .filter(|doc| !doc.contains("kind: Deployment"))
        .collect();
    world.apply(&rights.join("\n---\n")).await?;
    let kubeconfig = world.kubeconfig_for("serin-system", "serin").await?;
    let log = std::fs::File::create(world.dir().join("serin.log"))?;
    let child = Command::new(std::env::current_exe()?)
        .args([
            "operator",
            "run",
            "--log-format=pretty",
            "--settle=600ms",
            "--listen=127.0.0.1:0",
        ])
        .arg(format!("--prometheus-url={}", world.prometheus_url()))
        .arg(format!("--allow-egress={}", receiver.address()))
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the operator")?;
    view::progress(
        "serin",
        "the operator runs with the rights of deploy/install.yaml",
    );
    Ok(Operator(child))
}

struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
