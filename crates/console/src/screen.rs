//! The terminal: raw, so that no key makes a signal; its size, also where a serial line does not know one.

use std::{
    io::{self, Stdout},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use crossterm::{
    cursor,
    event::KeyEvent,
    execute,
    style::{Attribute, SetAttribute},
    terminal::{self, Clear, ClearType},
};
use ratatui::{Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, layout::Rect};

use crate::{
    app::{App, Effect},
    pages::{self, Moment},
};

/// What a terminal has that does not tell its size: a VT220's screen.
const UNKNOWN_SIZE: (u16, u16) = (80, 24);
/// Bounds against nonsense sizes, in columns and rows.
const LARGEST: (u16, u16) = (500, 200);
/// Everything is written again this often: somebody may have plugged a terminal in, or a kernel message may stand there.
const REPAINT: Duration = Duration::from_secs(20);

/// The screen of this process's terminal.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    painted: Instant,
}

impl Screen {
    /// Takes the terminal over.
    pub(crate) fn open() -> io::Result<Self> {
        // Raw mode may be left from before a panic, while somebody else has reset the terminal since.
        terminal::disable_raw_mode()?;
        terminal::enable_raw_mode()?;
        Ok(Self {
            terminal: blank()?,
            painted: Instant::now(),
        })
    }

    /// Draws what changed; everything where that is due, or the size changed.
    pub(crate) fn draw(&mut self, app: &App, moment: Moment) -> io::Result<()> {
        if size() != self.terminal.get_frame().area() || self.painted.elapsed() > REPAINT {
            self.repaint()?;
        }
        self.terminal
            .draw(|frame| pages::draw(frame, app, moment))
            .map(drop)
    }

    /// Waits at most `time` for keys, and hands all that came to the state.
    pub(crate) fn keys(
        &mut self,
        app: &mut App,
        keys: &Receiver<KeyEvent>,
        time: Duration,
    ) -> io::Result<()> {
        let Ok(first) = keys.recv_timeout(time) else {
            return Ok(());
        };
        for key in std::iter::once(first).chain(keys.try_iter()) {
            if app.key(key) == Effect::Repaint {
                self.repaint()?;
            }
        }
        Ok(())
    }

    fn repaint(&mut self) -> io::Result<()> {
        self.painted = Instant::now();
        self.terminal = blank()?;
        Ok(())
    }
}

/// An empty screen of the size that the terminal has now. Made anew rather than cleared: ratatui's `clear` asks the
/// terminal where its cursor is, and on a serial line nobody may be there to answer.
fn blank() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    execute!(
        io::stdout(),
        SetAttribute(Attribute::Reset),
        Clear(ClearType::All),
        cursor::Hide
    )?;
    let options = TerminalOptions {
        viewport: Viewport::Fixed(size()),
    };
    Terminal::with_options(CrosstermBackend::new(io::stdout()), options)
}

fn size() -> Rect {
    let (columns, rows) = terminal::window_size().map_or((0, 0), |w| (w.columns, w.rows));
    let (columns, rows) = if columns == 0 || rows == 0 {
        UNKNOWN_SIZE
    } else {
        (columns, rows)
    };
    Rect::new(0, 0, columns.min(LARGEST.0), rows.min(LARGEST.1))
}
