//! Whole releases on a real control plane: a real API server, a real Gateway data plane, a real
//! Prometheus, real HTTP traffic, and the real operator with the rights that it is shipped with.
//!
//! Those that take minutes are ignored unless they are asked for: `cargo test --test e2e -- --ignored`.
//!
//! One world serves all tests. Those that disturb it (kill the operator, stop Prometheus) run after
//! the others, one at a time.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod audit;
mod chart;
mod cost;
mod data;
mod examples;
mod failover;
mod killed;
mod line;
mod many;
mod midway;
mod operator;
mod poisoned;
mod refused;
mod release;
mod restore;
mod secrets;
mod shop;
mod testers;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use operator::Operator;

use std::pin::Pin;
use std::sync::Arc;
use testbed::{Options, Receiver, World};

/// What every test has at hand.
pub struct Stage {
    pub world: World,
    pub operator: Operator,
    pub receiver: Receiver,
}

type Run = fn(Arc<Stage>) -> Pin<Box<dyn Future<Output = Result<()>>>>;

/// A list of tests: `(name, function)`.
#[macro_export]
macro_rules! tests {
    ($($name:path),* $(,)?) => {
        vec![$((stringify!($name), (|stage| Box::pin(async move { $name(&stage).await })) as $crate::Run)),*]
    };
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Two cores carry three releases with their traffic at once, and no more.
    arguments.test_threads.get_or_insert(3);
    let peaceful = [
        // The longest first.
        data::peaceful(),
        release::tests(),
        restore::tests(),
        testers::tests(),
        midway::tests(),
        refused::tests(),
        examples::tests(),
        chart::tests(),
    ]
    .concat();
    let disturbing = [
        cost::tests(),
        data::tests(),
        killed::tests(),
        chart::disturbing(),
        many::tests(),
        secrets::tests(),
        failover::tests(),
    ]
    .concat();
    let long = [poisoned::tests(), failover::long()].concat();
    if arguments.list {
        let all = [peaceful, disturbing, long].concat();
        let trials = all
            .into_iter()
            .map(|(name, _)| Trial::test(name, || Ok(())))
            .collect();
        libtest_mimic::run(&arguments, trials).exit();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let wanted = |name: &str| match &arguments.filter {
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    };
    let asked = |tests: &[(&str, Run)]| tests.iter().any(|(name, _)| wanted(name));
    let usual = !arguments.ignored && (asked(&peaceful) || asked(&disturbing));
    let unusual = (arguments.ignored || arguments.include_ignored) && asked(&long);
    if !(usual || unusual) {
        libtest_mimic::run(&arguments, Vec::new()).exit();
    }
    let stage = match runtime.block_on(set_up()) {
        Ok(stage) => Arc::new(stage),
        Err(err) => {
            eprintln!("error: {err:#}");
            std::process::exit(101);
        }
    };
    let handle = runtime.handle().clone();
    let trials = |tests: Vec<(&'static str, Run)>, ignored: bool| {
        let trial = |(name, run): (&'static str, Run)| {
            let (stage, handle) = (stage.clone(), handle.clone());
            Trial::test(name, move || {
                let result = handle.block_on(run(stage));
                result.map_err(|err| Failed::from(format!("{err:#}")))
            })
            .with_ignored_flag(ignored)
        };
        tests.into_iter().map(trial).collect::<Vec<_>>()
    };
    let first = libtest_mimic::run(&arguments, trials(peaceful, false));
    arguments.test_threads = Some(1);
    let mut disturbing = trials(disturbing, false);
    disturbing.extend(trials(long, true));
    let second = libtest_mimic::run(&arguments, disturbing);
    let failed = first.has_failed() || second.has_failed();
    if failed {
        stage.world.keep();
    }
    stage.operator.kill();
    match Arc::try_unwrap(stage) {
        Ok(stage) => runtime.block_on(stage.world.shutdown()),
        Err(_) => eprintln!("a test still holds the world"),
    }
    std::process::exit(if failed { 101 } else { 0 });
}

async fn set_up() -> Result<Stage> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World::start(Options {
        audit: true,
        ..Options::default()
    })
    .await
    .context("cannot start the world")?;
    let receiver = Receiver::start().await?;
    let operator = Operator::install(&world, &receiver.address()).await?;
    Ok(Stage {
        world,
        operator,
        receiver,
    })
}
