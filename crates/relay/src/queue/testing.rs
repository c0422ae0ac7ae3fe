//! A queue's worker on a spool of its own, whose disk and journal the test can make fail.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tempfile::TempDir;

use super::bounce::Identity;
use super::config::Queue;
use super::damage::Unreadable;
use super::hold::Holding;
use super::job::Worker;
use super::outward;
use super::provenance::Provenance;
use super::router::Router;
use super::store::{Store, message_record};
use crate::config::{Config, Hybrid};
use crate::deliver::source::Sources;
use crate::events::{Events, unix_millis};
use crate::handover::{Envelope, Recipient};
use crate::spool::disk::{Append, Directory, Disk};
use crate::spool::hold::{Hold, Standing, Unscanned};
use crate::spool::recovery::LiveMessage;
use crate::spool::writer::{Body, Options};
use crate::spool::{Location, MessageId, Status, StoredMessage};

const CONFIGURATION: &str = r#"
role = "internal"
hostname = "mail.example.org"
local-domains = ["example.org"]
postmaster = "postmaster@example.org"
state-directory = "state"
runtime-directory = "run"
[resolver]
address = "127.0.0.1:9"
[instance.public]
tls = "off"
relay-for = "local-domains"
authentication = "none"
[next-hop.mailboxes]
kind = "lmtp"
socket = "127.0.0.1:9"
[[route]]
from = ["inside"]
domains = ["example.org"]
next-hop = "mailboxes"
"#;

/// Small, so that segments close soon.
pub(super) const OPTIONS: Options = Options {
    segment_octets: 4 << 10,
    reserve_octets: 1 << 20,
    outcomes_wait: std::time::Duration::ZERO,
};

/// A spool, and who works on it.
pub(super) struct Bench {
    pub(super) worker: Arc<Worker>,
    /// Octets that the disk says it has.
    pub(super) free: Arc<AtomicU64>,
    pub(super) directory: TempDir,
}

impl Bench {
    /// A worker that tells `events`, and tries again at these seconds.
    pub(super) fn new(events: Events, retry: &[u64]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(1 << 40));
        let disk = || {
            Box::new(Sized {
                real: Directory::open(directory.path()).unwrap(),
                free: free.clone(),
            })
        };
        let (store, _, _) =
            Store::open_on(directory.path(), disk(), disk(), OPTIONS, LiveMessage::new).unwrap();
        let config = Config::parse("t", CONFIGURATION, "/".into(), None).unwrap();
        let worker = Worker {
            store: Arc::new(store),
            router: Router::new(&config),
            hops: BTreeMap::new(),
            courier: outward::courier(&config, None, Sources::new(), None),
            signers: None,
            queue: Queue {
                retry: retry.to_vec(),
                ..config.queue.clone()
            },
            identity: Identity {
                hostname: config.hostname.clone(),
                postmaster: config.postmaster.clone(),
            },
            events,
            unreadable: Unreadable::default(),
            hold: Holding::new(Hybrid::default(), 60),
        };
        Self {
            worker: Arc::new(worker),
            free,
            directory,
        }
    }

    /// A message with this content, in the spool.
    pub(super) async fn message(&self, to: &[&str], content: &str) -> (MessageId, Location, StoredMessage) {
        self.put(message(to, content.len()), content).await
    }

    /// The same that is held, and stands so.
    pub(super) async fn held(
        &self,
        to: &[&str],
        content: &str,
        standing: Standing,
    ) -> (MessageId, Location, StoredMessage) {
        let unscanned = Unscanned {
            fields: 0,
            evidence: "[]".into(),
        };
        let standing = Some(standing);
        let message = StoredMessage {
            held: true,
            hold: Some(Box::new(Hold { unscanned, standing })),
            ..message(to, content.len())
        };
        self.put(message, content).await
    }

    async fn put(&self, message: StoredMessage, content: &str) -> (MessageId, Location, StoredMessage) {
        let id = self.worker.store.new_id();
        let record = message_record(id, &message, Body::Octets(content.as_bytes().into())).unwrap();
        let places = self.worker.store.append(vec![record]).await.unwrap();
        (id, places[0], message)
    }

    /// Damages the first octets like these in the spool.
    pub(super) fn damage(&self, wanted: &str) {
        for path in self.segments() {
            let mut octets = std::fs::read(&path).unwrap();
            let found = octets
                .windows(wanted.len())
                .position(|part| part == wanted.as_bytes());
            if let Some(found) = found {
                octets[found] ^= 1;
                return std::fs::write(&path, octets).unwrap();
            }
        }
        panic!("{wanted} is not in the spool");
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = std::fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension() == Some("segment".as_ref()))
            .collect();
        paths.sort();
        paths
    }
}

/// From `app@example.org`, of the inside, arrived now and due at once.
pub(super) fn message(to: &[&str], size: usize) -> StoredMessage {
    let recipient = |address: &&str| Recipient {
        address: (*address).into(),
        orcpt: None,
        notify: None,
    };
    let due = Status::Due {
        at: 1,
        attempts: 0,
        reply: "".into(),
        warned: false,
    };
    StoredMessage {
        envelope: Envelope {
            trace: "t".into(),
            reverse_path: "app@example.org".into(),
            recipients: to.iter().map(recipient).collect(),
            ret: None,
            envid: None,
            smtputf8: false,
            require_tls: false,
            eight_bit: false,
            peer: "192.0.2.1".into(),
            helo: "client.example".into(),
            tls: None,
            authenticated_user: None,
            return_path_proven: true,
            size: size as u64,
        },
        provenance: Provenance::Inside,
        arrived: unix_millis(SystemTime::now()),
        statuses: vec![due; to.len()],
        held: false,
        bulk: false,
        hold: None,
    }
}

/// A journal that breaks whoever tells it of this.
pub(super) struct Breaks(pub(super) &'static str);

impl io::Write for Breaks {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let breaks = octets.windows(self.0.len()).any(|part| part == self.0.as_bytes());
        assert!(!breaks, "the test wants a fault");
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Sized {
    real: Directory,
    free: Arc<AtomicU64>,
}

impl Disk for Sized {
    fn create(&mut self, name: &str) -> io::Result<Box<dyn Append>> {
        self.real.create(name)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.real.sync()
    }
    fn settle(&mut self, name: &str) -> io::Result<()> {
        self.real.settle(name)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.real.remove(name)
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)
    }
    fn free(&mut self) -> io::Result<u64> {
        Ok(self.free.load(Ordering::Relaxed))
    }
}
