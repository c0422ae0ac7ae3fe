//! From a checked site to the files of one node, the same bytes each time. Every file says what made it.

mod client;
mod dovecot;
mod networkd;
mod nft;
mod relay;
mod smarthost;
mod source_pool;
mod suricata;
mod unbound;

use std::fmt::Write as _;

use crate::model::{Role, Site, UnknownNode};

/// One file of a node, to be written below `/run/postern`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// Relative to `/run/postern`.
    pub path: String,
    /// Permission bits. No rendered file holds a secret.
    pub mode: u32,
    /// The whole file.
    pub contents: String,
}

impl RenderedFile {
    fn new(path: impl Into<String>, contents: String) -> Self {
        Self {
            path: path.into(),
            mode: 0o644,
            contents,
        }
    }
}

impl Site {
    /// All files of the node called `name`, in the order of their paths.
    pub fn render(&self, name: &str) -> Result<Vec<RenderedFile>, UnknownNode> {
        let node = self.node(name)?;
        let mut files = vec![
            RenderedFile::new("relay.toml", relay::render(self, node)),
            RenderedFile::new("site.nft", nft::render(self, node)),
            RenderedFile::new("unbound.conf", unbound::render(self, node)),
            RenderedFile::new("resolv.conf", RESOLV_CONF.to_owned()),
        ];
        files.extend(networkd::render(self, node));
        match node.role() {
            Role::Gateway => {
                files.push(RenderedFile::new("suricata-site.yaml", suricata::render(self)));
                if self.options.submissions {
                    // The socket's unit looks for it.
                    files.push(RenderedFile::new(
                        "options/submissions",
                        header(self, node.name()),
                    ));
                }
            }
            Role::Internal => files.push(RenderedFile::new("dovecot.conf", dovecot::render(self, node))),
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

const RESOLV_CONF: &str =
    "# Rendered by postern from site.toml.\nnameserver 127.0.0.1\noptions edns0 trust-ad\n";

/// The first lines of every rendered file; `#` begins a comment in all of these formats.
fn header(site: &Site, node: &str) -> String {
    format!(
        "# Rendered by postern from site.toml (site {}, node {node}). Changes here are lost at the next boot.\n",
        site.name()
    )
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A TOML list of strings.
pub(crate) fn quoted_list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}
