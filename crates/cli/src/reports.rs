//! `postern reports`: what others report about mail in our name, and about TLS on the way to us.
//!
//! The reports are written by strangers; `postern-relay reports`, which has the parsers and their bounds, reads them.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::policy::relay_program;
use crate::trace::harmless;

/// `postern reports`
#[derive(Args)]
pub(crate) struct Request {
    /// Messages, mboxes or reports alone (XML, JSON, or either in gzip); without one, standard input is read.
    files: Vec<PathBuf>,
}

pub(crate) fn run(request: &Request) -> Result<()> {
    if request.files.is_empty() {
        return show(Stdio::inherit(), "standard input");
    }
    for file in &request.files {
        let input = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        if request.files.len() > 1 {
            println!("{}:", harmless(&file.display().to_string()));
        }
        show(input.into(), &file.display().to_string())?;
    }
    Ok(())
}

fn show(input: Stdio, name: &str) -> Result<()> {
    let program = relay_program();
    let output = Command::new(&program)
        .arg("reports")
        .stdin(input)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}; install it beside `postern`", program.display()))?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("{}", harmless(line));
    }
    if !output.status.success() {
        bail!("{name} could not be summed up");
    }
    Ok(())
}
