//! `postern-relay <process>`: picks the process to be.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use postern_relay::config::Config;

/// The mail daemon of a Postern node.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    process: Process,
}

#[derive(Subcommand)]
enum Process {
    /// Take mail from clients of one instance
    Smtpd {
        /// Which [instance.NAME] to be
        #[arg(long)]
        instance: String,
        #[command(flatten)]
        file: File,
    },
    /// Verify recipients at the internal node for smtpd
    Proxy {
        #[command(flatten)]
        file: File,
    },
    /// Look at the structure and the attachments of messages for smtpd
    Scan {
        #[command(flatten)]
        file: File,
    },
    /// Keep the spool and deliver from it
    Queue {
        #[command(flatten)]
        file: File,
    },
    /// Start all processes of one configuration as an ordinary user, for evaluation
    Run {
        #[command(flatten)]
        file: File,
    },
    /// Weigh what was recorded once more: events on standard input, a line for each verdict that the
    /// configuration would change on standard output
    Replay {
        #[command(flatten)]
        file: File,
    },
    /// Sum up DMARC and TLS reports: a message, an mbox or a report on standard input
    Reports,
    /// Say whether the configuration is right
    CheckConfig {
        #[command(flatten)]
        file: File,
    },
}

#[derive(clap::Args)]
struct File {
    /// The configuration
    #[arg(long = "config", default_value = "/run/postern/relay.toml")]
    path: PathBuf,
}

fn main() -> ExitCode {
    match start(Arguments::parse().process) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postern-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(process: Process) -> anyhow::Result<()> {
    // First of all: take what the service manager passed, close everything else.
    let passed = postern_sandbox::listen_fds()?;
    match process {
        Process::Smtpd { instance, file } => postern_relay::smtpd::main(load(&file)?, &instance, passed),
        Process::Proxy { file } => postern_relay::proxy::main(&load(&file)?, passed),
        Process::Scan { file } => postern_relay::scan::main(&load(&file)?, passed),
        Process::Queue { file } => postern_relay::queue::main(load(&file)?, passed),
        Process::Run { file } => postern_relay::run::main(&load(&file)?, &file.path),
        Process::Replay { file } => {
            postern_relay::replay::replay(&load(&file)?, std::io::stdin().lock(), std::io::stdout().lock())
        }
        Process::Reports => {
            postern_relay::reports::reader::read(std::io::stdin().lock(), &mut std::io::stdout().lock())
        }
        Process::CheckConfig { file } => {
            load(&file)?;
            println!("{}: in order", file.path.display());
            Ok(())
        }
    }
}

fn load(file: &File) -> anyhow::Result<Config> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Ok(Config::load(&file.path, credentials)?)
}
