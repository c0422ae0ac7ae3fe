//! `[policy.content]`: which attachments are taken, and bounds on how a message is built. Read here, rendered here: nothing else
//! of the site depends on it.

use std::fmt::Write as _;

use crate::diagnostic::Fault;
use crate::model::At;
use crate::reader::Reader;
use crate::render::quoted_list;

/// What the site says of content.
#[derive(Debug)]
pub(crate) struct Content {
    /// Programs are taken, where their names allow it.
    executables: bool,
    /// Endings of names; none means the relay's own list.
    denied_endings: Option<Vec<String>>,
    max_parts: u64,
    max_depth: u64,
    max_files: u64,
    max_nesting: u64,
    /// Octets.
    max_unpacked: u64,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            executables: false,
            denied_endings: None,
            max_parts: 1000,
            max_depth: 20,
            max_files: 10_000,
            max_nesting: 5,
            max_unpacked: 256 << 20,
        }
    }
}

/// A key that may be left out: `None` only where it is there and faulty.
fn or<T>(table: &Reader<'_, '_>, key: &str, read: Option<At<T>>, default: T) -> Option<T>
where
    T: Clone,
{
    match read {
        Some(read) => Some((*read).clone()),
        None if table.key_span(key).is_some() => None,
        None => Some(default),
    }
}

pub(crate) fn read(table: &mut Reader<'_, '_>) -> Option<Content> {
    let default = Content::default();
    let executables = table.text("executables", executables);
    let executables = or(table, "executables", executables, default.executables);
    let endings = table.list("denied-endings", ending);
    let endings = endings.map(|list| {
        At::new(
            Some(list.iter().map(|one| (**one).clone()).collect()),
            list.span(),
        )
    });
    let endings = or(table, "denied-endings", endings, default.denied_endings);
    let parts = table.integer("max-parts", 1..100_001);
    let parts = or(table, "max-parts", parts, default.max_parts);
    let depth = table.integer("max-depth", 1..101);
    let depth = or(table, "max-depth", depth, default.max_depth);
    let files = table.integer("max-archive-files", 1..1_000_001);
    let files = or(table, "max-archive-files", files, default.max_files);
    let nesting = table.integer("max-archive-nesting", 0..21);
    let nesting = or(table, "max-archive-nesting", nesting, default.max_nesting);
    let unpacked = table.text("max-unpacked-size", unpacked_size);
    let unpacked = or(table, "max-unpacked-size", unpacked, default.max_unpacked);
    Some(Content {
        executables: executables?,
        denied_endings: endings?,
        max_parts: parts?,
        max_depth: depth?,
        max_files: files?,
        max_nesting: nesting?,
        max_unpacked: unpacked?,
    })
}

fn executables(text: &str) -> Result<bool, Fault> {
    match text {
        "refuse" => Ok(false),
        "accept" => Ok(true),
        _ => Err(Fault::new(
            format!("executables cannot be `{text}`"),
            "use \"refuse\" (programs are told by their content) or \"accept\" (only denied-endings decides)",
        )),
    }
}

fn ending(text: &str) -> Result<String, Fault> {
    let good = !text.is_empty() && text.len() <= 40 && !text.contains('.') && *text == text.to_lowercase();
    if good && !text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("`{text}` cannot be the ending of a name here"),
        "write it in lower case and without the dot, such as \"exe\"",
    ))
}

fn unpacked_size(text: &str) -> Result<u64, Fault> {
    let number = |unit: &str, shift: u32| {
        let number = text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?;
        number.checked_mul(1 << shift)
    };
    match number("MiB", 20).or_else(|| number("GiB", 30)) {
        Some(octets) if (1 << 20..=4 << 30).contains(&octets) => Ok(octets),
        _ => Err(Fault::new(
            format!("`{text}` is not a size that content may unpack to"),
            "write a size from \"1MiB\" to \"4GiB\", such as \"256MiB\"",
        )),
    }
}

impl Content {
    /// The table `[content]` of `relay.toml`.
    pub(crate) fn render(&self) -> String {
        let mut out = format!(
            "
[content]
timeout = 20
workers = 2
max-depth = {depth}
max-parts = {parts}
max-unpacked-size = {unpacked}
max-entries = {files}
max-nesting = {nesting}
executables = \"{executables}\"
",
            depth = self.max_depth,
            parts = self.max_parts,
            unpacked = self.max_unpacked,
            files = self.max_files,
            nesting = self.max_nesting,
            executables = if self.executables { "accept" } else { "refuse" },
        );
        if let Some(endings) = &self.denied_endings {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "denied-endings = {}", quoted_list(endings));
        }
        out
    }
}
