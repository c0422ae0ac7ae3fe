//! The site file: checked, then rendered to each node's files.
//!
//! `site.toml` enters as text; a [`Site`] or the complete list of what is wrong with it leaves
//! ([`Diagnostics`], each with line, column, the cited line and the remedy). A [`Site`] cannot be had in any
//! other way, so whatever renders from it may rely on the checks. Rendering is pure: the same site gives the
//! same bytes. No secret is ever in a site.

#![forbid(unsafe_code)]

mod check;
mod content;
mod diagnostic;
mod dns;
mod matrix;
mod model;
mod read;
mod reader;
mod render;
mod scanning;
mod value;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use dns::{DkimRecord, zone_lines};
pub use matrix::{NamedOption, OPTIONS, Row, matrix, matrix_text};
pub use model::{Node, Role, Site, UnknownNode};
pub use render::RenderedFile;

impl Site {
    /// Reads and checks a site file. `file` is only the name that diagnostics show.
    ///
    /// # Errors
    /// Everything that was found wrong, in the order of the file.
    pub fn parse(file: &str, text: &str) -> Result<Self, Diagnostics> {
        let mut report = diagnostic::Report::default();
        let site = read::site(text, &mut report);
        if let Some(site) = &site {
            check::site(site, &mut report);
        }
        match (site, report.into_diagnostics(file, text)) {
            (Some(site), None) => Ok(site),
            (_, Some(diagnostics)) => Err(diagnostics),
            // A reader that gives up always says why; this keeps the promise even if one did not.
            (None, None) => Err(Diagnostics::unexplained(file)),
        }
    }
}
