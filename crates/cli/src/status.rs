//! `postern status`: asks the queue process over its control socket.

use std::path::Path;

use anyhow::Result;
use postern_control::{Reply, Request};

use crate::control::{Control, another};

pub(crate) fn show(socket: &Path, json: bool) -> Result<()> {
    let mut control = Control::connect(socket)?;
    if json {
        println!("{}", control.ask_line(&Request::Status)?.trim_end());
        return Ok(());
    }
    let Reply::Status {
        node,
        role,
        version,
        queue,
    } = control.ask(&Request::Status)?
    else {
        return Err(another());
    };
    println!("node     {node} ({role}, postern {version})");
    println!(
        "queue    {} messages, {} recipients due",
        queue.messages, queue.recipients_due
    );
    println!("oldest   {} s", queue.oldest_age_seconds);
    println!("spool    {} octets", queue.spool_octets);
    Ok(())
}
