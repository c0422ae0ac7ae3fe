//! The pages: from the model to lines of a screen. ASCII, bold and reverse only, so that a VT220 on a serial line shows
//! the same as a graphics card.

mod dns;
mod events;
mod failure;
mod help;
mod overview;
mod queue;
mod services;
#[cfg(test)]
mod tests;

use std::time::{Instant, SystemTime};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

use crate::{
    app::{App, Page},
    clock,
    model::{Model, Seen},
    text::Text,
};

/// A source that is silent for longer than this is called out of date.
const STALE_SECONDS: u64 = 15;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const REVERSE: Style = Style::new().add_modifier(Modifier::REVERSED);

/// What drawing needs to know beside the state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

/// Draws the whole screen.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &App, moment: Moment) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    let width = usize::from(body.width);
    frame.render_widget(Paragraph::new(header(app, moment, width)), head);
    frame.render_widget(
        Paragraph::new(bar(" 1-6 page   Up/Down scroll   r redraw   ? help", "", width)),
        foot,
    );
    let model = &app.model;
    let failures = model.services.value().map_or(&[][..], |s| &s.blocking);
    let lines = match app.page {
        Page::Overview if !failures.is_empty() => failure::lines(failures, width),
        Page::Overview => overview::lines(model, moment, body.height, width),
        Page::Services => services::lines(model, moment, width),
        Page::Queue => queue::lines(model, moment, width),
        Page::Events => events::lines(model, width),
        Page::Dns => dns::lines(model, moment, width),
        Page::Help => help::lines(),
    };
    frame.render_widget(Paragraph::new(window(lines, app, body)), body);
}

/// The part of the lines that fits, scrolled; events show their end.
fn window<'a>(lines: Vec<Line<'a>>, app: &App, body: Rect) -> Vec<Line<'a>> {
    let (count, height) = (lines.len(), usize::from(body.height));
    let last = count.saturating_sub(height);
    let skip = if app.page == Page::Events {
        last.saturating_sub(app.scroll)
    } else {
        app.scroll.min(last)
    };
    lines.into_iter().skip(skip).take(height).collect()
}

fn header<'a>(app: &App, moment: Moment, width: usize) -> Vec<Line<'a>> {
    let host = app.model.host.value();
    let part = |text: Option<&Text>| text.map_or("-", Text::as_str).to_owned();
    let (node, role) = (
        part(host.and_then(|h| h.node.as_ref())),
        part(host.and_then(|h| h.role.as_ref())),
    );
    let left = format!(
        " Postern {}   node {node}   role {role}",
        part(host.and_then(|h| h.version.as_ref()))
    );
    let right = format!("{} UTC ", clock::date_time(moment.wall));
    let pages = Page::ALL.iter().enumerate().flat_map(|(i, page)| {
        let title = format!(" {} {} ", i + 1, page.title());
        [
            Span::styled(title, if *page == app.page { REVERSE } else { Style::new() }),
            Span::raw(" "),
        ]
    });
    let mut pages: Vec<Span<'a>> = pages.collect();
    if let Some(notice) = app.notice {
        pages.push(Span::styled(notice, BOLD));
    }
    vec![bar(&left, &right, width), Line::from(pages)]
}

/// A line in reverse over the whole width; where both do not fit, the right part goes first.
fn bar<'a>(left: &str, right: &str, width: usize) -> Line<'a> {
    let room = width.saturating_sub(left.len());
    let right = if right.len() < room { right } else { "" };
    Line::styled(format!("{left}{right:>room$}"), REVERSE)
}

/// A heading, and below it why its contents are missing or old, where they are.
fn heading<T>(title: &str, seen: &Seen<T>, moment: Moment, width: usize) -> Vec<Line<'static>> {
    let note = match seen {
        Seen::Waiting => Some("asking".to_owned()),
        Seen::Known(_, at) => match moment.now.duration_since(*at) {
            age if age.as_secs() > STALE_SECONDS => {
                Some(format!("OUT OF DATE: seen {} ago", clock::duration(age)))
            }
            _ => None,
        },
        Seen::Unknown(why) => Some(format!("NOT KNOWN: {why}")),
    };
    let mut lines = vec![Line::styled(title.to_owned(), BOLD)];
    lines.extend(
        note.iter()
            .flat_map(|note| paragraph(note, 2, width))
            .map(|line| line.style(BOLD)),
    );
    lines
}

/// A text broken at spaces, indented; a word longer than a line is broken too.
fn paragraph(text: &str, indent: usize, width: usize) -> Vec<Line<'static>> {
    let room = width.saturating_sub(indent).max(1);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_inclusive(' ').flat_map(|word| wrap(word, room)) {
        match lines.last_mut() {
            Some(line) if line.len() + word.trim_end().len() <= room => line.push_str(word),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
        .into_iter()
        .map(|line| Line::from(format!("{:indent$}{}", "", line.trim_end())))
        .collect()
}

/// Breaks a text that has no good place to break.
fn wrap(text: &str, width: usize) -> impl Iterator<Item = &str> {
    // ASCII only: every byte is a character.
    let width = width.max(1);
    (0..text.len())
        .step_by(width)
        .filter_map(move |at| text.get(at..(at + width).min(text.len())))
}

/// Role as the site says, or as the queue process does.
fn role(model: &Model) -> Option<&Text> {
    let host = model.host.value().and_then(|h| h.role.as_ref());
    host.or_else(|| model.queue.value().map(|q| &q.role))
}
