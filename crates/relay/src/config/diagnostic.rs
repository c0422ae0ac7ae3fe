//! What a wrong `relay.toml` gets: place, cited line, fault, remedy.
//!
//! Enters: an error of the TOML reader, or a [`Fault`] of the checks with the path of the key. Leaves: text for people.

use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One fault found by the checks, not yet placed in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Keys and array indices from the root, as in `["instance", "public", "key"]`.
    pub at: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub remedy: String,
}

impl Fault {
    /// A fault at the dotted path `at`; array elements are written as indices.
    pub fn new(at: &[&str], message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            at: at.iter().map(|key| (*key).to_owned()).collect(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// A fault with its place; its `Display` is what the operator reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// File as named by the caller.
    pub file: String,
    /// Line and column, from 1; `None` where the file could not be read at all.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub remedy: String,
}

/// Where in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line itself.
    pub cited: String,
    /// Characters underlined, at least 1.
    pub width: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            None => writeln!(f, "{}: {}", self.file, self.message)?,
            Some(Place {
                line,
                column,
                cited,
                width,
            }) => {
                let gutter = line.to_string().len();
                writeln!(f, "{}:{line}:{column}: {}", self.file, self.message)?;
                writeln!(f, "{:gutter$} |", "")?;
                writeln!(f, "{line} | {cited}")?;
                writeln!(
                    f,
                    "{:gutter$} | {:indent$}{}",
                    "",
                    "",
                    "^".repeat(*width),
                    indent = column - 1
                )?;
            }
        }
        write!(f, "  remedy: {}", self.remedy)
    }
}

impl Diagnostic {
    /// The file could not be read.
    pub fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "name an existing file with --config; on an appliance `postern node render` writes it"
            }
            std::io::ErrorKind::PermissionDenied => "give this process's user the right to read it",
            _ => "see that it is a readable text file",
        };
        Self {
            file: path.display().to_string(),
            place: None,
            message: format!("cannot be read: {error}"),
            remedy: remedy.into(),
        }
    }

    /// The text is not TOML, or does not have the agreed shape.
    pub fn from_toml(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().replace('\n', "; ");
        let remedy = if message.starts_with("unknown field") {
            "remove the key or correct its spelling; the known keys are listed above"
        } else if message.starts_with("unknown variant") {
            "use one of the listed values"
        } else if message.starts_with("missing field") {
            "add the key to this table"
        } else if message.starts_with("invalid type") {
            "write the value in the type that is expected"
        } else {
            "correct the value or the TOML syntax at this place"
        };
        Self {
            file: file.into(),
            place: Some(place(text, error.span().unwrap_or(0..0))),
            message,
            remedy: remedy.into(),
        }
    }

    /// The shape is right, the meaning is not.
    pub fn from_fault(file: &str, text: &str, fault: &Fault) -> Self {
        let span = DeTable::parse(text).map_or(0..0, |root| locate(root.get_ref(), &fault.at));
        Self {
            file: file.into(),
            place: Some(place(text, span)),
            message: fault.message.clone(),
            remedy: fault.remedy.clone(),
        }
    }
}

/// The span of the value at `path`, or of the nearest table above it that exists.
fn locate(root: &DeTable<'_>, path: &[String]) -> std::ops::Range<usize> {
    let mut span = 0..0;
    let mut here: Option<&Spanned<DeValue<'_>>> = None;
    for (depth, key) in path.iter().enumerate() {
        let next = match here.map(Spanned::get_ref) {
            None if depth == 0 => root.get(key.as_str()),
            Some(DeValue::Table(table)) => table.get(key.as_str()),
            Some(DeValue::Array(items)) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        span = next.span();
        here = Some(next);
    }
    span
}

fn place(text: &str, span: std::ops::Range<usize>) -> Place {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let cited: String = text[line_start..].lines().next().unwrap_or("").to_owned();
    let column = text[line_start..start].chars().count() + 1;
    let rest = cited.chars().count().saturating_sub(column - 1).max(1);
    Place {
        line: before.matches('\n').count() + 1,
        column,
        width: span.end.saturating_sub(span.start).clamp(1, rest),
        cited,
    }
}
