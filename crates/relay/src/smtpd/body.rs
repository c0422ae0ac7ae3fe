//! The message as it comes in: in memory, against a budget that all connections share. Of it one stranger's address may hold a
//! part only, so that a few slow messages do not shut out everybody else.
//!
//! A large message is in memory once, from its first octet to the queue: it is received into the memory file that will be
//! sealed, behind room for our own fields, and mapped for the checks.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use postern_sandbox::memfd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::headers::{Removal, keep};
use crate::handover::ROOM;
use crate::rate::client;

const KIB: usize = 1024;
/// Octets from which on a message goes into a memory file as it comes. Below, a copy is cheaper than a mapping.
const LARGE: usize = 256 * KIB;
/// Budget is taken in steps of this many KiB.
const STEP: u32 = 64;

/// The budget of all connections, and of each address.
#[derive(Debug)]
pub(super) struct Memory {
    all: Arc<Semaphore>,
    /// KiB of it.
    size: usize,
    /// KiB that one address may hold.
    share: usize,
    by_address: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

impl Memory {
    /// `all` octets, of which one address may hold a quarter, and one message of `largest` octets in any case.
    pub(super) fn new(all: usize, largest: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all / KIB)),
            size: all / KIB,
            share: (all / 4).max(largest + STEP as usize * KIB).min(all) / KIB,
            by_address: Mutex::default(),
        }
    }

    /// Octets that messages under way take.
    pub(super) fn taken(&self) -> usize {
        self.size.saturating_sub(self.all.available_permits()) * KIB
    }

    /// For a client whose number of messages nobody bounds but this.
    pub(super) fn of_stranger(&self, address: IpAddr) -> Vec<Arc<Semaphore>> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let address = client(address);
        let known = by_address.get(&address).and_then(Weak::upgrade);
        let own = known.unwrap_or_else(|| {
            by_address.retain(|_, budget| budget.strong_count() > 0);
            let own = Arc::new(Semaphore::new(self.share));
            by_address.insert(address, Arc::downgrade(&own));
            own
        });
        vec![own, Arc::clone(&self.all)]
    }

    /// Percent of all that messages hold now.
    pub(super) fn percent_used(&self) -> usize {
        let used = self.size.saturating_sub(self.all.available_permits());
        used * 100 / self.size.max(1)
    }

    /// For our own nodes and users, and listed peers.
    pub(super) fn of_known(&self) -> Vec<Arc<Semaphore>> {
        vec![Arc::clone(&self.all)]
    }
}

/// Where the octets are.
#[derive(Debug)]
enum Octets {
    Small(Vec<u8>),
    /// Behind [`ROOM`].
    Large(memfd::Writer),
}

impl Octets {
    /// Adds octets to `length` that are there.
    fn push(&mut self, length: usize, chunk: &[u8]) -> io::Result<()> {
        match self {
            Self::Small(octets) if length + chunk.len() <= LARGE => octets.extend_from_slice(chunk),
            Self::Small(octets) => {
                let mut large = memfd::Writer::new()?;
                large.write_from(ROOM as u64)?;
                large.write_all(octets)?;
                large.write_all(chunk)?;
                *self = Self::Large(large);
            }
            Self::Large(large) => large.write_all(chunk)?,
        }
        Ok(())
    }
}

/// The octets of a message, to be looked at.
pub(super) enum Seen<'a> {
    Small(&'a [u8]),
    Large(memfd::View<'a>),
}

impl<'a> Seen<'a> {
    /// The memory that ends with the message, where a memory file holds it.
    pub(super) fn memory(&self) -> Option<&memfd::View<'a>> {
        match self {
            Self::Small(_) => None,
            Self::Large(view) => Some(view),
        }
    }
}

impl Deref for Seen<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(octets) => octets,
            Self::Large(view) => &view[ROOM..],
        }
    }
}

/// Octets of one message, or the fact that they did not fit.
#[derive(Debug)]
pub(super) struct Body {
    octets: Octets,
    length: usize,
    budgets: Vec<Arc<Semaphore>>,
    /// Of each budget as much.
    held: Vec<OwnedSemaphorePermit>,
    /// KiB held.
    room: usize,
    overflow: bool,
}

impl Body {
    /// A message that counts against all of `budgets` (KiB).
    pub(super) fn new(budgets: Vec<Arc<Semaphore>>) -> Self {
        Self {
            octets: Octets::Small(Vec::new()),
            length: 0,
            budgets,
            held: Vec::new(),
            room: 0,
            overflow: false,
        }
    }

    /// Forgets the message and gives its memory back.
    pub(super) fn clear(&mut self) {
        self.octets = Octets::Small(Vec::new());
        self.length = 0;
        self.held.clear();
        self.room = 0;
        self.overflow = false;
    }

    /// Adds octets; over budget the message is dropped and only remembered as too much.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let wanted = self.length + chunk.len();
        while !self.overflow && wanted > self.room * KIB {
            let more: Result<Vec<_>, _> = self
                .budgets
                .iter()
                .map(|budget| Arc::clone(budget).try_acquire_many_owned(STEP))
                .collect();
            let Ok(more) = more else {
                return self.give_up();
            };
            if self.held.is_empty() {
                self.held = more;
            } else {
                self.held
                    .iter_mut()
                    .zip(more)
                    .for_each(|(held, more)| held.merge(more));
            }
            self.room += STEP as usize;
        }
        if self.overflow {
            return;
        }
        match self.octets.push(self.length, chunk) {
            Ok(()) => self.length = wanted,
            // The kernel has no more memory to give.
            Err(_) => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        self.clear();
        self.overflow = true;
    }

    /// The message, if it fitted.
    pub(super) fn octets(&self) -> Option<Seen<'_>> {
        if self.overflow {
            return None;
        }
        match &self.octets {
            Octets::Small(octets) => Some(Seen::Small(octets)),
            Octets::Large(large) => large.view(ROOM + self.length).ok().map(Seen::Large),
        }
    }

    /// The message for the queue as [`Self::seal`] makes it, but as plain octets, if they are `limit` at most. The budgets are held
    /// as long.
    pub(super) fn small(&self, fields: &str, removal: &Removal<'_>, limit: usize) -> Option<Vec<u8>> {
        let Octets::Small(octets) = &self.octets else {
            return None;
        };
        if fields.len() + octets.len() > limit {
            return None;
        }
        let mut message = Vec::with_capacity(fields.len() + octets.len());
        message.extend_from_slice(fields.as_bytes());
        for piece in keep(octets, removal) {
            message.extend_from_slice(piece);
        }
        Some(message)
    }

    /// The message for the queue, with `fields` in front and without what is to be removed: sealed memory that ends with it,
    /// and its size. The octets are gone afterwards; what they hold of the budgets is held until [`Self::clear`].
    pub(super) fn seal(&mut self, fields: &str, removal: &Removal<'_>) -> io::Result<(OwnedFd, u64)> {
        match std::mem::replace(&mut self.octets, Octets::Small(Vec::new())) {
            Octets::Small(octets) => seal_copy(&octets, fields, removal),
            Octets::Large(large) => seal_in_place(large, self.length, fields, removal),
        }
    }
}

fn seal_copy(octets: &[u8], fields: &str, removal: &Removal<'_>) -> io::Result<(OwnedFd, u64)> {
    let mut writer = memfd::Writer::new()?;
    writer.write_all(fields.as_bytes())?;
    let mut size = fields.len();
    for piece in keep(octets, removal) {
        writer.write_all(piece)?;
        size += piece.len();
    }
    Ok((writer.seal()?, size as u64))
}

/// The header is written anew, to end where the untouched rest of the message begins.
fn seal_in_place(
    mut large: memfd::Writer,
    length: usize,
    fields: &str,
    removal: &Removal<'_>,
) -> io::Result<(OwnedFd, u64)> {
    let mut head = fields.as_bytes().to_vec();
    let rest = {
        let view = large.view(ROOM + length)?;
        let octets = &view[ROOM..];
        let mut pieces = keep(octets, removal);
        // The last piece reaches to the end, unless the message ends with a field that is removed.
        let rest = pieces
            .pop_if(|last| octets.as_ptr_range().end == last.as_ptr_range().end)
            .map_or(0, <[u8]>::len);
        for piece in pieces {
            head.extend_from_slice(piece);
        }
        rest
    };
    let size = head.len() + rest;
    let start = (ROOM + length)
        .checked_sub(size)
        .ok_or_else(|| io::Error::other(format!("{} octets of fields: {ROOM} are the most", fields.len())))?;
    large.write_from(start as u64)?;
    large.write_all(&head)?;
    Ok((large.seal()?, size as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMOVAL: Removal<'_> = Removal {
        hostname: "mx1.example.org",
        marks: true,
    };

    /// What the queue will read.
    fn sealed(message: &[u8], fields: &str, lent: bool) -> Vec<u8> {
        let mut body = Body::new(vec![Arc::new(Semaphore::new(8192))]);
        message.chunks(60_000).for_each(|chunk| body.push(chunk));
        assert_eq!(body.octets().unwrap()[..], *message);
        if let Some(view) = body.octets().unwrap().memory().filter(|_| lent) {
            view.lend().unwrap();
        }
        let small = body.small(fields, &REMOVAL, LARGE);
        assert_eq!(small.is_some(), fields.len() + message.len() <= LARGE);
        let (memory, size) = body.seal(fields, &REMOVAL).unwrap();
        let all = memfd::read(memory, 8192 * KIB as u64).unwrap();
        let sealed = all[all.len() - usize::try_from(size).unwrap()..].to_vec();
        assert!(small.is_none_or(|small| small == sealed));
        sealed
    }

    #[test]
    fn a_large_message_is_sealed_as_a_small_one_is() {
        let forged = "Return-Path: <x@y>\r\n";
        for header in [
            "A: 1\r\n".to_owned(),
            format!("A: 1\r\n{forged}B: 2\r\n"),
            format!("{forged}A: 1\r\n{forged}"),
            // More than the room for fields is taken out and moved.
            format!("{}A: 1\r\n{}", forged.repeat(5000), forged.repeat(5000)),
        ] {
            for octets in [10, LARGE, 2 * LARGE] {
                let message = format!("{header}\r\n{}", "x".repeat(octets));
                let wanted = format!("Received: us\r\n{}", message.replace(forged, ""));
                for lent in [false, true] {
                    assert!(
                        sealed(message.as_bytes(), "Received: us\r\n", lent) == wanted.as_bytes(),
                        "{octets} {lent}"
                    );
                }
            }
        }
        let header_alone = "A: 1\r\n".to_owned() + &"B: 2\r\n".repeat(LARGE / 6) + forged;
        let wanted = format!("C: 3\r\n{}", header_alone.replace(forged, ""));
        assert!(sealed(header_alone.as_bytes(), "C: 3\r\n", true) == wanted.as_bytes());
    }

    #[test]
    fn fields_for_which_there_is_no_room_are_an_error() {
        let mut body = Body::new(vec![Arc::new(Semaphore::new(8192))]);
        body.push(&vec![b'x'; 2 * LARGE]);
        let fields = "A: 1\r\n".repeat(20_000);
        assert!(
            body.seal(&fields, &REMOVAL)
                .unwrap_err()
                .to_string()
                .contains("65536")
        );
    }

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = Arc::new(Semaphore::new(128));
        let (mut one, mut two) = (
            Body::new(vec![Arc::clone(&budget)]),
            Body::new(vec![Arc::clone(&budget)]),
        );
        one.push(&vec![b'x'; 65 * KIB]);
        assert_eq!(one.octets().map(|octets| octets.len()), Some(65 * KIB));
        two.push(b"y");
        assert!(two.octets().is_none());
        two.push(b"z");
        assert!(
            two.octets().is_none(),
            "a message that lost its beginning stays lost"
        );
        one.clear();
        two.clear();
        two.push(b"y");
        assert_eq!(two.octets().as_deref(), Some(&b"y"[..]));
        drop((one, two));
        assert_eq!(budget.available_permits(), 128);
    }

    #[test]
    fn one_stranger_leaves_room_for_others() {
        let memory = Memory::new(4096 * KIB, 512 * KIB);
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut greedy: Vec<_> = (0..20).map(|_| Body::new(memory.of_stranger(a))).collect();
        for body in &mut greedy {
            body.push(&vec![b'x'; 256 * KIB]);
        }
        assert_eq!(greedy.iter().filter(|body| body.octets().is_some()).count(), 4);
        assert_eq!(memory.percent_used(), 25);
        let mut other = Body::new(memory.of_stranger(b));
        other.push(&vec![b'y'; 512 * KIB]);
        assert!(other.octets().is_some());
        drop(greedy);
        let mut again = Body::new(memory.of_stranger(a));
        again.push(&vec![b'z'; 512 * KIB]);
        assert!(again.octets().is_some(), "what was held came back");
        assert_eq!(memory.by_address.lock().unwrap().len(), 2);
    }
}
