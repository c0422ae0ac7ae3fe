//! What the keys do, and what this screen is.

use ratatui::text::Line;

const HELP: &str = "\
This is a Postern mail appliance. This screen shows how it does; nothing can be
changed here, and there is no login and no shell behind it.

  1 2 3 4 5 6        open a page
  Left, Right, Tab   page before, page after        (also p, n)
  Up, Down           scroll by a line               (also k, j)
  PageUp, PageDown   scroll by ten lines            (also b, Space)
  Home               back to where the page opens
  Esc                back to the overview
  r, Ctrl-L          write the whole screen again
  ?, h, F1           this page

What is shown is at most some seconds old; what is older says so.
NOT KNOWN means that the part of the system that knows did not answer.

The node is set up by its site file and its credentials. To change it, change
those and start it again. `postern site check` finds mistakes beforehand.";

pub(super) fn lines() -> Vec<Line<'static>> {
    HELP.lines().map(Line::from).collect()
}
