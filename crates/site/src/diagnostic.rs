//! What is wrong with a site file, in the form the operator reads: file, line, column, the cited line with a
//! caret under the fault, and how to mend it.

use std::fmt;
use std::ops::Range;

/// A fault as the code that finds it states it: what is wrong, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Collects faults with their byte ranges while the file is read and checked.
#[derive(Debug, Default)]
pub(crate) struct Report {
    faults: Vec<(Range<usize>, Fault)>,
}

impl Report {
    pub(crate) fn add(&mut self, span: Range<usize>, what: impl Into<String>, remedy: impl Into<String>) {
        self.push(span, Fault::new(what, remedy));
    }

    pub(crate) fn push(&mut self, span: Range<usize>, fault: Fault) {
        self.faults.push((span, fault));
    }

    pub(crate) fn into_diagnostics(mut self, file: &str, text: &str) -> Option<Diagnostics> {
        if self.faults.is_empty() {
            return None;
        }
        self.faults.sort_by_key(|(span, _)| (span.start, span.end));
        self.faults.dedup();
        let list = self
            .faults
            .into_iter()
            .map(|(span, fault)| locate(file, text, &span, fault))
            .collect();
        Some(Diagnostics { list })
    }
}

/// One fault of a site file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name as it was given.
    pub file: String,
    /// Line, counted from 1; 0 where the fault has no place.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The cited line.
    pub cited: String,
    /// How many characters the caret marks.
    pub width: usize,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}:{}:{}: error: {}",
            self.file, self.line, self.column, self.what
        )?;
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, " {margin} |")?;
        writeln!(f, " {number} | {}", self.cited)?;
        // A tab before the fault is repeated, so that the caret stands under it whatever a tab's width is.
        let lead: String = self
            .cited
            .chars()
            .take(self.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(f, " {margin} | {lead}{}", "^".repeat(self.width))?;
        writeln!(f, " {margin} = mend: {}", self.remedy)
    }
}

/// Everything that is wrong with a site file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The faults in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    pub(crate) fn unexplained(file: &str) -> Self {
        let remedy = "this is a fault of postern: please report it together with the file".to_owned();
        let what = "the file cannot be read, and the reader did not say why".to_owned();
        let (file, cited) = (file.to_owned(), String::new());
        Self {
            list: vec![Diagnostic {
                file,
                line: 1,
                column: 1,
                cited,
                width: 1,
                what,
                remedy,
            }],
        }
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            writeln!(f, "{diagnostic}")?;
        }
        match self.list.len() {
            1 => write!(f, "1 error"),
            n => write!(f, "{n} errors"),
        }
    }
}

impl std::error::Error for Diagnostics {}

fn locate(file: &str, text: &str, span: &Range<usize>, fault: Fault) -> Diagnostic {
    let start = floor_char(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let end = floor_char(text, span.end).clamp(start, line_end);
    Diagnostic {
        file: file.to_owned(),
        line: text[..line_start].matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        cited: text[line_start..line_end].trim_end().to_owned(),
        width: text[start..end].chars().count().max(1),
        what: fault.what,
        remedy: fault.remedy,
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
