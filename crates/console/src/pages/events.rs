//! The journal of the product's units, and errors of anybody else, newest at the bottom.

use ratatui::{style::Style, text::Line};

use super::BOLD;
use crate::{
    clock,
    model::{Event, Model},
};

/// One line for each event, cut to the width; warnings and errors stand out.
pub(super) fn lines(model: &Model, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = model.events.iter().map(|event| line(event, width)).collect();
    if let Some(fault) = &model.events_fault {
        lines.push(Line::styled(format!("NO EVENTS: {fault}"), BOLD));
    } else if lines.is_empty() {
        lines.push(Line::from("none yet"));
    }
    lines
}

fn line(event: &Event, width: usize) -> Line<'static> {
    let source = event.source.as_str();
    let source = source.strip_prefix("postern-").unwrap_or(source);
    let mut text = format!(
        "{} {source:<14} {}",
        clock::time_of_day(event.seconds),
        event.text
    );
    if text.len() > width {
        text.truncate(width.saturating_sub(3));
        text.push_str("...");
    }
    Line::styled(text, if event.priority <= 4 { BOLD } else { Style::new() })
}
