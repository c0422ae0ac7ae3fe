//! The DKIM records that the domains' owner has to publish. (`postern site dns` prints the others.)

use ratatui::text::Line;

use super::{BOLD, Moment, heading, wrap};
use crate::model::Model;

/// A DNS string holds at most 255 octets (RFC 1035, 3.3).
const STRING: usize = 255;

pub(super) fn lines(model: &Model, moment: Moment, width: usize) -> Vec<Line<'static>> {
    let mut lines = heading("DKIM records to publish (TXT)", &model.queue, moment, width);
    lines.push(Line::default());
    let Some(queue) = model.queue.value() else {
        return lines;
    };
    if queue.dkim.is_empty() {
        lines.push(Line::from(
            "This node signs nothing, or has not made its keys yet.",
        ));
    }
    for record in &queue.dkim {
        lines.push(Line::styled(format!("{}. IN TXT (", record.name), BOLD));
        for string in wrap(record.value.as_str(), STRING) {
            let quoted = format!("\"{string}\"");
            lines.extend(wrap(&quoted, width.saturating_sub(2)).map(|part| Line::from(format!("  {part}"))));
        }
        lines.push(Line::from(")"));
        lines.push(Line::default());
    }
    lines
}
