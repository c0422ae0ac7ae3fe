//! `postern node render`: the imported site as this node's files in /run/postern, and networkd's where it looks
//! for them. A failure leaves what was there before.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use postern_site::Site;

use crate::files;
use crate::import::Layout;

pub(crate) fn run(root: &Path) -> Result<()> {
    let directory = Layout::new(root).site();
    let file = directory.join("site.toml");
    let text =
        files::read_text(&file).context("this node has no site: `postern node import` takes one in")?;
    let node = files::read_text(&directory.join("node"))?;
    let site = Site::parse(&file.display().to_string(), &text)
        .map_err(|faults| anyhow!("this version does not accept the site that was imported\n\n{faults}"))?;
    let rendered = site.render(node.trim())?;

    let (run, systemd) = (root.join("run/postern"), root.join("run/systemd"));
    let mut list: Vec<(PathBuf, u32, Vec<u8>)> = Vec::new();
    for file in rendered {
        // networkd and udev read their own directories only.
        if file.path.starts_with("network/") || file.path.starts_with("networkd.conf.d/") {
            list.push((
                systemd.join(&file.path),
                file.mode,
                file.contents.clone().into_bytes(),
            ));
        }
        list.push((run.join(&file.path), file.mode, file.contents.into_bytes()));
    }
    for (path, _, _) in &list {
        if let Some(parent) = path.parent() {
            files::directory_if_missing(parent)?;
        }
    }
    files::write_all(&list)?;
    remove_stale(&systemd.join("network"), &list)?;
    remove_options(&run.join("options"), &list)?;
    println!(
        "{} files for {} are in {}",
        list.len(),
        node.trim(),
        run.display()
    );
    Ok(())
}

/// Removes the files of links that the site no longer has; only names that rendering uses.
fn remove_stale(network: &Path, written: &[(PathBuf, u32, Vec<u8>)]) -> Result<()> {
    for zone in ["outside", "dmz", "internal"] {
        for kind in ["link", "network"] {
            let path = network.join(format!("10-{zone}.{kind}"));
            if path.exists() && !written.iter().any(|(kept, _, _)| *kept == path) {
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Removes what says that an option is on which the site no longer has.
fn remove_options(options: &Path, written: &[(PathBuf, u32, Vec<u8>)]) -> Result<()> {
    let path = options.join("submissions");
    if path.exists() && !written.iter().any(|(kept, _, _)| *kept == path) {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
