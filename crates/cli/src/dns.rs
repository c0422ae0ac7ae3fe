//! `postern dns check`: asks the gateway's queue whether the site's domains publish what its mail is judged by.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use postern_control::{Reply, Request};

use crate::control::{Control, another};

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Whether SPF permits our addresses, our DKIM keys are published, and DMARC is there; an error if not.
    Check {
        /// The queue's control socket.
        #[arg(long, default_value = "/run/postern/control.sock")]
        socket: PathBuf,
        /// One line of JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: &Command) -> Result<()> {
    let Command::Check { socket, json } = command;
    let mut control = Control::connect(socket)?;
    if *json {
        println!("{}", control.ask_line(&Request::DnsCheck)?.trim_end());
        return Ok(());
    }
    let Reply::DnsCheck { domains, findings } = control.ask(&Request::DnsCheck)? else {
        return Err(another());
    };
    for finding in &findings {
        println!(
            "{}: {}\n    mend: {}",
            finding.record, finding.problem, finding.remedy
        );
    }
    match findings.len() {
        0 => println!("{domains} domains: SPF, DKIM and DMARC are published as our mail needs it"),
        count => bail!("{count} records are to be mended; until then others may reject our mail"),
    }
    Ok(())
}
