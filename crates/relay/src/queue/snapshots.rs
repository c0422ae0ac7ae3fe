//! What instances of smtpd remember about strangers, kept for them over restarts and power cuts.
//!
//! Enters: sealed memory from an instance's handover socket. Leaves: the same, later. One file for each instance, replaced
//! as a whole: written, flushed, renamed, its directory flushed. The queue checks the frame and looks no further; a file that
//! is damaged is set aside and said, and the instance begins empty.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use postern_sandbox::memfd;
use tokio::sync::Mutex;

use super::provenance::Provenance;
use crate::durable;
use crate::events::Events;
use crate::handover::kept::Answer;
use crate::handover::{Asked, Connection};
use crate::reputation::snapshot::{MAX_OCTETS, verify};

/// The files.
pub struct Snapshots {
    directory: PathBuf,
    events: Events,
    /// One file at a time is read or written.
    turn: Mutex<()>,
}

impl Snapshots {
    /// Makes the directory, so it belongs before the sandbox.
    pub fn open(directory: &Path, events: Events) -> anyhow::Result<Self> {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        made.with_context(|| {
            format!(
                "cannot make {}; state-directory must be on a disk that the queue's user may write to",
                directory.display()
            )
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            events,
            turn: Mutex::new(()),
        })
    }

    /// Does what the instance asks; an error means that it has gone.
    pub async fn answer(
        self: &Arc<Self>,
        instance: Provenance,
        asked: Asked,
        connection: &Connection,
    ) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        let snapshots = self.clone();
        let answered = tokio::task::spawn_blocking(move || match asked {
            Asked::Keep(memory) => (snapshots.keep(instance, memory), None),
            Asked::Recall => snapshots.recall(instance),
            Asked::Message(_)
            | Asked::Observations(_)
            | Asked::Figures(_)
            | Asked::ProxyFigures(_)
            | Asked::NextToScan
            | Asked::Scanned(_) => (Answer::Failed("it is not kept here".into()), None),
        });
        let (answer, memory) = answered.await.map_err(io::Error::other)?;
        connection.answer(&answer, memory).await
    }

    fn path(&self, instance: Provenance) -> PathBuf {
        self.directory.join(format!("{instance}.snapshot"))
    }

    fn keep(&self, instance: Provenance, memory: OwnedFd) -> Answer {
        let written = memfd::read(memory, MAX_OCTETS).and_then(|octets| {
            verify(&octets).map_err(io::Error::other)?;
            durable::replace(&self.path(instance), &octets)
        });
        match written {
            Ok(()) => Answer::Kept,
            Err(error) => {
                let text = format!("the snapshot of {instance} was not kept: {error}");
                self.events.warn(text.clone());
                Answer::Failed(text)
            }
        }
    }

    fn recall(&self, instance: Provenance) -> (Answer, Option<OwnedFd>) {
        match self.read(instance) {
            Ok(octets) => match verify(&octets) {
                Ok(_) => match memfd::sealed(&octets) {
                    Ok(memory) => (Answer::Recalled, Some(memory)),
                    Err(error) => (Answer::Failed(format!("sealed memory: {error}")), None),
                },
                Err(damage) => self.set_aside(instance, &damage.to_string()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Answer::Nothing, None),
            Err(error) => self.set_aside(instance, &error.to_string()),
        }
    }

    fn read(&self, instance: Provenance) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        // One more than there can be, so that a longer file is seen as that.
        let file = File::open(self.path(instance))?;
        file.take(MAX_OCTETS + 1).read_to_end(&mut octets)?;
        Ok(octets)
    }

    /// What cannot be used must not be taken for a snapshot again, nor be destroyed before somebody has looked at it.
    fn set_aside(&self, instance: Provenance, damage: &str) -> (Answer, Option<OwnedFd>) {
        let aside = self.directory.join(format!("{instance}.damaged"));
        let moved = std::fs::rename(self.path(instance), &aside)
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_or_else(
                |error| format!("it could not be set aside: {error}"),
                |()| format!("it was set aside as {}", aside.display()),
            );
        self.events.warn(format!(
            "DAMAGED SNAPSHOT of greylist and limits of {instance}: {damage}; {moved}; the instance begins with an empty memory, \
             so that senders wait once more"
        ));
        (Answer::Nothing, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reputation::snapshot::write;

    fn snapshots(directory: &Path) -> Snapshots {
        Snapshots::open(&directory.join("reputation"), Events::to("queue", io::sink())).unwrap()
    }

    fn keep(snapshots: &Snapshots, octets: &[u8]) -> Answer {
        snapshots.keep(Provenance::Public, memfd::sealed(octets).unwrap())
    }

    fn recalled(snapshots: &Snapshots, instance: Provenance) -> Option<Vec<u8>> {
        let (_, memory) = snapshots.recall(instance);
        memory.map(|memory| memfd::read(memory, MAX_OCTETS).unwrap())
    }

    #[test]
    fn each_instance_gets_back_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let octets = write(&Default::default());
        assert_eq!(keep(&snapshots(directory.path()), &octets), Answer::Kept);
        let again = snapshots(directory.path());
        assert_eq!(recalled(&again, Provenance::Public), Some(octets));
        assert_eq!(recalled(&again, Provenance::Dmz), None);
    }

    #[test]
    fn a_damaged_one_is_set_aside_once() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = snapshots(directory.path());
        keep(&snapshots, &write(&Default::default()));
        let path = snapshots.path(Provenance::Public);
        let mut octets = std::fs::read(&path).unwrap();
        octets[20] ^= 1;
        std::fs::write(&path, &octets).unwrap();
        assert_eq!(recalled(&snapshots, Provenance::Public), None);
        assert!(!path.exists());
        let aside = std::fs::read(snapshots.directory.join("public.damaged")).unwrap();
        assert_eq!(aside, octets);
    }

    #[test]
    fn what_is_no_snapshot_does_not_replace_one() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = snapshots(directory.path());
        let octets = write(&Default::default());
        keep(&snapshots, &octets);
        assert!(matches!(keep(&snapshots, b"something"), Answer::Failed(_)));
        assert_eq!(recalled(&snapshots, Provenance::Public), Some(octets));
    }
}
