//! The console's state beside the model: which page, scrolled how far, and what keys do.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::model::Model;

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    Overview,
    Services,
    Queue,
    Events,
    Dns,
    Help,
}

impl Page {
    /// In the order of their keys, 1 to 6.
    pub(crate) const ALL: [Self; 6] = [
        Self::Overview,
        Self::Services,
        Self::Queue,
        Self::Events,
        Self::Dns,
        Self::Help,
    ];

    /// The name in the page bar.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Services => "Services",
            Self::Queue => "Queue",
            Self::Events => "Events",
            Self::Dns => "DNS records",
            Self::Help => "Help",
        }
    }
}

/// Everything that is drawn.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) page: Page,
    /// Lines scrolled away from where a page opens: down from the top, on the events page up from the newest.
    pub(crate) scroll: usize,
    /// Why the screen was started again, if it was.
    pub(crate) notice: Option<&'static str>,
}

/// What the main loop has to do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// Write the whole screen again.
    Repaint,
}

impl App {
    pub(crate) fn new(notice: Option<&'static str>) -> Self {
        Self {
            model: Model::new(),
            page: Page::Overview,
            scroll: 0,
            notice,
        }
    }

    /// Keys turn pages and scroll. None of them ends the console, stops a service or changes anything on the node.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Effect {
        if key.kind == KeyEventKind::Release {
            return Effect::None;
        }
        if key
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
        {
            return if key.code == KeyCode::Char('l') {
                Effect::Repaint
            } else {
                Effect::None
            };
        }
        let at = Page::ALL.iter().position(|p| *p == self.page).unwrap_or(0);
        match key.code {
            KeyCode::Char(c @ '1'..='6') => self.open(Page::ALL[c as usize - '1' as usize]),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.open(Page::Help),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('n') => {
                self.open(Page::ALL[(at + 1) % Page::ALL.len()]);
            }
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('p') => {
                self.open(Page::ALL[(at + Page::ALL.len() - 1) % Page::ALL.len()]);
            }
            KeyCode::Esc => self.open(Page::Overview),
            KeyCode::Down | KeyCode::Char('j') => self.scroll_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll_by(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll_by(10),
            KeyCode::PageUp | KeyCode::Char('b') => self.scroll_by(-10),
            KeyCode::Home => self.scroll = 0,
            KeyCode::Char('r') => return Effect::Repaint,
            _ => {}
        }
        Effect::None
    }

    fn open(&mut self, page: Page) {
        self.page = page;
        self.scroll = 0;
    }

    fn scroll_by(&mut self, lines: isize) {
        // The newest events are at the bottom, and up leads to the older ones.
        let lines = if self.page == Page::Events { -lines } else { lines };
        self.scroll = self
            .scroll
            .saturating_add_signed(lines)
            .min(crate::model::EVENTS_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(app: &mut App, code: KeyCode) -> Effect {
        app.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn pages_turn_by_number_arrow_and_tab() {
        let mut app = App::new(None);
        for (code, page) in [
            (KeyCode::Char('3'), Page::Queue),
            (KeyCode::Right, Page::Events),
            (KeyCode::Tab, Page::Dns),
            (KeyCode::Left, Page::Events),
            (KeyCode::F(1), Page::Help),
            (KeyCode::Tab, Page::Overview),
            (KeyCode::BackTab, Page::Help),
            (KeyCode::Esc, Page::Overview),
        ] {
            press(&mut app, code);
            assert_eq!(app.page, page, "{code:?}");
        }
    }

    #[test]
    fn control_keys_do_nothing() {
        for c in ['c', 'z', '\\', 'd', 's', 'q', '1', 'n'] {
            let mut app = App::new(None);
            app.page = Page::Queue;
            let effect = app.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
            assert_eq!(
                (effect, app.page, app.scroll),
                (Effect::None, Page::Queue, 0),
                "{c}"
            );
        }
    }

    #[test]
    fn scrolling_stops_at_the_ends_and_turns_around_for_events() {
        let mut app = App::new(None);
        press(&mut app, KeyCode::Up);
        assert_eq!(app.scroll, 0);
        press(&mut app, KeyCode::PageDown);
        assert_eq!(app.scroll, 10);
        app.open(Page::Events);
        press(&mut app, KeyCode::Down);
        assert_eq!(app.scroll, 0);
        press(&mut app, KeyCode::Up);
        assert_eq!(app.scroll, 1);
    }
}
