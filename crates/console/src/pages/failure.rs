//! What fills the first page while the node cannot work at all: which step failed, and what it said.

use ratatui::text::Line;

use super::{BOLD, REVERSE, paragraph};
use crate::model::Failure;

pub(super) fn lines(failures: &[Failure], width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for failure in failures {
        let text = format!("   {}   ", banner(failure.unit.as_str()));
        let edge = format!("{:<width$}", "");
        lines.push(Line::default());
        lines.extend(
            [edge.clone(), format!("{text:<width$}"), edge]
                .map(|line| Line::styled(line, REVERSE.patch(BOLD))),
        );
        lines.push(Line::default());
        lines.push(Line::from(format!(
            "{} failed ({}). It said:",
            failure.unit, failure.result
        )));
        lines.push(Line::default());
        for said in &failure.said {
            lines.extend(
                paragraph(said.as_str(), 2, width)
                    .into_iter()
                    .map(|line| line.style(BOLD)),
            );
        }
        lines.push(Line::default());
    }
    lines.push(Line::from(
        "Put it right in the site file or the credentials and start the node again.",
    ));
    lines
}

fn banner(unit: &str) -> &'static str {
    match unit {
        "postern-import.service" => "NO MAIL, NO NETWORK: the site could not be imported",
        "postern-render.service" => {
            "NO MAIL, NO NETWORK: the site could not be turned into this node's files"
        }
        _ => "NO MAIL, NO NETWORK: the firewall's rules could not be loaded",
    }
}
