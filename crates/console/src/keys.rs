//! Keys from the terminal: octets in, the keys that the console knows out; everything else is passed over.
//!
//! Not crossterm's reader, because it waits without limit for the rest of a sequence: half an arrow key, or the start
//! of a paste that never ends, would stop the clock on the screen until the watchdog comes. Here the rest of a
//! sequence has [`PATIENCE`]. Sequences: ECMA-48 section 5.4 (CSI), and F1 as the Linux console sends it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long the rest of a sequence may take, in milliseconds: a slow line sends an octet in a few.
const PATIENCE: u8 = 100;
/// Keys that wait for the screen; more are lost, as somebody leans on the keyboard.
const WAITING: usize = 64;
/// A sequence has a few octets; what is longer is none.
const LONGEST: usize = 16;

/// Starts the thread that reads standard input for as long as the process lives.
pub(crate) fn start() -> io::Result<Receiver<KeyEvent>> {
    let (sender, keys) = sync_channel(WAITING);
    // Without the buffer of std's Stdin, which would hide from poll what it holds.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    thread::Builder::new()
        .name("keys".into())
        .spawn(move || follow(input, &sender))?;
    Ok(keys)
}

fn follow(mut input: File, sender: &SyncSender<KeyEvent>) {
    let mut decoder = Decoder::default();
    let mut octets = [0; 256];
    loop {
        if decoder.pending() && quiet(&input) {
            give(sender, decoder.give_up());
        }
        match input.read(&mut octets) {
            Ok(count) if count > 0 => {
                for octet in &octets[..count] {
                    give(sender, decoder.take(*octet));
                }
            }
            // Nobody there, or hung up: the screen will notice; here is nothing to do but to wait.
            _ => thread::sleep(Duration::from_secs(1)),
        }
    }
}

/// Whether nothing came while the patience lasted.
fn quiet(input: &File) -> bool {
    let mut watched = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut watched, PollTimeout::from(PATIENCE)), Ok(0))
}

fn give(sender: &SyncSender<KeyEvent>, key: Option<KeyEvent>) {
    if let Some(key) = key {
        // A full channel loses the key, which is what is wanted.
        let _ = sender.try_send(key);
    }
}

/// Where in a sequence the last octet was.
#[derive(Debug, Default)]
enum Decoder {
    #[default]
    Plain,
    Escape,
    /// After ESC O.
    Single,
    /// After ESC [, with what came since.
    Control(Vec<u8>),
}

impl Decoder {
    /// A sequence has begun and not ended.
    fn pending(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// The rest does not come: an escape alone is a key, half a sequence is nothing.
    fn give_up(&mut self) -> Option<KeyEvent> {
        let escape = matches!(self, Self::Escape);
        *self = Self::Plain;
        escape.then(|| plain(KeyCode::Esc))
    }

    /// One octet in, a key out where one is complete.
    fn take(&mut self, octet: u8) -> Option<KeyEvent> {
        match std::mem::take(self) {
            Self::Plain if octet == 0x1b => {
                *self = Self::Escape;
                None
            }
            Self::Plain => key(octet),
            Self::Escape => match octet {
                b'[' => {
                    *self = Self::Control(Vec::new());
                    None
                }
                b'O' => {
                    *self = Self::Single;
                    None
                }
                0x1b => {
                    *self = Self::Escape;
                    Some(plain(KeyCode::Esc))
                }
                _ => None,
            },
            Self::Single => named(b"", octet),
            Self::Control(mut sequence) => {
                // A second [ right at the start is the Linux console's way to name F1 to F5.
                let ends = matches!(octet, 0x40..=0x7e) && !(octet == b'[' && sequence.is_empty());
                if ends {
                    return named(&sequence, octet);
                }
                sequence.push(octet);
                if sequence.len() <= LONGEST && octet != 0x1b {
                    *self = Self::Control(sequence);
                }
                None
            }
        }
    }
}

fn plain(code: KeyCode) -> KeyEvent {
    KeyEvent::new(code, KeyModifiers::NONE)
}

fn key(octet: u8) -> Option<KeyEvent> {
    match octet {
        b'\t' => Some(plain(KeyCode::Tab)),
        0x0c => Some(KeyEvent::new(KeyCode::Char('l'), KeyModifiers::CONTROL)),
        b' '..=b'~' => Some(plain(KeyCode::Char(char::from(octet)))),
        _ => None,
    }
}

fn named(parameters: &[u8], last: u8) -> Option<KeyEvent> {
    let code = match (parameters, last) {
        (b"", b'A') => KeyCode::Up,
        (b"", b'B') => KeyCode::Down,
        (b"", b'C') => KeyCode::Right,
        (b"", b'D') => KeyCode::Left,
        (b"", b'H') | (b"1" | b"7", b'~') => KeyCode::Home,
        (b"", b'Z') => KeyCode::BackTab,
        (b"", b'P') | (b"11", b'~') | (b"[", b'A') => KeyCode::F(1),
        (b"5", b'~') => KeyCode::PageUp,
        (b"6", b'~') => KeyCode::PageDown,
        _ => return None,
    };
    Some(plain(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(octets: &[u8]) -> Vec<KeyCode> {
        let mut decoder = Decoder::default();
        let mut keys: Vec<_> = octets.iter().filter_map(|o| decoder.take(*o)).collect();
        keys.extend(decoder.give_up());
        keys.into_iter().map(|key| key.code).collect()
    }

    #[test]
    fn known_keys_of_linux_and_vt_terminals() {
        for (octets, code) in [
            (&b"3"[..], KeyCode::Char('3')),
            (b"\t", KeyCode::Tab),
            (b"\x1b[Z", KeyCode::BackTab),
            (b"\x1b[A", KeyCode::Up),
            (b"\x1bOB", KeyCode::Down),
            (b"\x1b[5~", KeyCode::PageUp),
            (b"\x1b[6~", KeyCode::PageDown),
            (b"\x1b[1~", KeyCode::Home),
            (b"\x1b[[A", KeyCode::F(1)),
            (b"\x1bOP", KeyCode::F(1)),
            (b"\x1b[11~", KeyCode::F(1)),
            (b"\x1b", KeyCode::Esc),
        ] {
            assert_eq!(decoded(octets), [code], "{octets:?}");
        }
    }

    #[test]
    fn control_l_redraws_and_other_control_keys_are_nothing() {
        let mut decoder = Decoder::default();
        let redraw = decoder.take(0x0c).unwrap();
        assert_eq!(
            (redraw.code, redraw.modifiers),
            (KeyCode::Char('l'), KeyModifiers::CONTROL)
        );
        assert_eq!(decoded(b"\x00\x03\x04\x1a\x1c\x7f\x80\xff"), []);
    }

    #[test]
    fn what_is_unknown_or_broken_off_ends_and_the_next_key_counts() {
        // A paste that never ends, half sequences, an endless one.
        for start in [
            &b"\x1b[200~"[..],
            b"\x1b[12;34R",
            b"\x1bx",
            b"\x1b[\x1b",
            b"\x1b[1111111111111111111111111A",
        ] {
            let mut octets = start.to_vec();
            octets.push(b'2');
            assert_eq!(decoded(&octets).last(), Some(&KeyCode::Char('2')), "{start:?}");
        }
        let mut decoder = Decoder::default();
        assert!(decoder.take(0x1b).is_none() && decoder.take(b'[').is_none() && decoder.pending());
        assert!(decoder.give_up().is_none() && !decoder.pending());
    }
}
