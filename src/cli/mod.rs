//! The command line: one file a subcommand.

pub mod crds;
mod run;

use clap::{Parser, Subcommand};

pub use run::RunArgs;

/// Progressive delivery for the Kubernetes Gateway API.
#[derive(Debug, Parser)]
#[command(name = "serin", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator.
    Run(Box<RunArgs>),
    /// Print the custom resource definitions as YAML.
    Crds(crds::CrdsArgs),
}

/// Does what the arguments say.
///
/// # Errors
/// Whatever kept the command from being carried out, as a sentence for the terminal.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Crds(args) => crds::run(&args),
    }
}
