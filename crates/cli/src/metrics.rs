//! `postern metrics`: the node's figures as `OpenMetrics` text, for whoever scrapes them; no port is opened.

use std::path::Path;

use anyhow::Result;
use postern_control::{Reply, Request};

use crate::control::{Control, another};

pub(crate) fn show(socket: &Path) -> Result<()> {
    let Reply::Metrics { text } = Control::connect(socket)?.ask(&Request::Metrics)? else {
        return Err(another());
    };
    print!("{text}");
    Ok(())
}
