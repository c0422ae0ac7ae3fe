//! Every unit of the product with its state in the service manager's words.

use ratatui::{style::Style, text::Line};

use super::{BOLD, Moment, heading};
use crate::model::Model;

pub(super) fn lines(model: &Model, moment: Moment, width: usize) -> Vec<Line<'static>> {
    let mut lines = heading("Services", &model.services, moment, width);
    lines.push(Line::default());
    let Some(services) = model.services.value() else {
        return lines;
    };
    lines.push(Line::styled(
        format!(
            "{:<32} {:<20} {:>8}  {}",
            "unit", "state", "restarts", "what it is"
        ),
        BOLD,
    ));
    for unit in &services.units {
        let id = unit
            .id
            .as_str()
            .strip_suffix(".service")
            .unwrap_or(unit.id.as_str());
        let mut state = format!("{} ({})", unit.active, unit.sub);
        if unit.is_failed() {
            state = format!("FAILED ({})", unit.result);
        }
        let style = if unit.is_failed() { BOLD } else { Style::new() };
        lines.push(Line::styled(
            format!("{id:<32} {state:<20} {:>8}  {}", unit.restarts, unit.description),
            style,
        ));
    }
    lines
}
