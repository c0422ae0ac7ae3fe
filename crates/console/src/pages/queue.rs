//! Messages on their way, one line for each recipient that is not done, and below it why not.

use ratatui::text::Line;

use super::{Moment, heading, paragraph};
use crate::{clock, model::Model};

pub(super) fn lines(model: &Model, moment: Moment, width: usize) -> Vec<Line<'static>> {
    let mut lines = heading("Queue", &model.queue, moment, width);
    lines.push(Line::default());
    let Some(queue) = model.queue.value() else {
        return lines;
    };
    lines.push(Line::from(format!(
        "messages {}, recipients due {}, oldest {}, {} KiB on disk",
        queue.messages,
        queue.recipients_due,
        clock::duration(queue.oldest),
        queue.spool_octets / 1024
    )));
    lines.push(Line::default());
    for waiting in &queue.waiting {
        lines.push(Line::from(format!(
            "{}  {} -> {}",
            waiting.id, waiting.from, waiting.to
        )));
        let state = format!(
            "attempts {}, next {}  {}",
            waiting.attempts, waiting.next, waiting.last_reply
        );
        lines.extend(paragraph(&state, 4, width));
    }
    if queue.truncated {
        lines.push(Line::from("... and more than are shown here"));
    }
    lines
}
