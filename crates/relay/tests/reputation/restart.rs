//! A sender that has waited once does not wait again because we were restarted.

use std::path::{Path, PathBuf};

use postern_relay::reputation::snapshot;
use tempfile::TempDir;

use crate::node::{Node, until};

const OFTEN: &str = "[reputation]\nsnapshot-interval = 1";
const SELDOM: &str = "[reputation]\nsnapshot-interval = 86400";

fn directory() -> TempDir {
    TempDir::with_prefix("postern-").expect("a directory")
}

fn file(directory: &Path) -> PathBuf {
    directory.join("state/reputation/public.snapshot")
}

/// Triplets of the snapshot that have waited.
fn passed(directory: &Path) -> usize {
    let octets = std::fs::read(file(directory)).unwrap_or_default();
    snapshot::read(&octets).map_or(0, |tables| tables[1].len())
}

#[test]
fn a_power_cut_forgets_only_what_was_not_yet_kept() {
    let directory = directory();
    let node = Node::start(directory.path(), OFTEN);
    assert!(node.rcpt("a@sender.example").starts_with("451"));
    node.rcpt_until_known("a@sender.example");
    until("a snapshot of it", || passed(directory.path()) == 1);
    node.cut();
    let node = Node::start(directory.path(), OFTEN);
    assert!(node.rcpt("a@sender.example").starts_with("250"));
    assert!(node.rcpt("b@sender.example").starts_with("451"));
    node.stop();
}

#[test]
fn an_orderly_stop_keeps_what_was_learned_last() {
    let directory = directory();
    let node = Node::start(directory.path(), SELDOM);
    node.rcpt_until_known("a@sender.example");
    assert_eq!(passed(directory.path()), 0);
    node.stop();
    assert_eq!(passed(directory.path()), 1);
    let node = Node::start(directory.path(), SELDOM);
    assert!(node.rcpt("a@sender.example").starts_with("250"));
    node.cut();
}

#[test]
fn limits_outlive_a_restart() {
    let directory = directory();
    let limits = "messages-per-hour-recipient = 1";
    let node = Node::limited(directory.path(), limits, SELDOM);
    node.rcpt_until_known("a@sender.example");
    let reply = node.send("a@sender.example");
    assert!(reply.starts_with("250"), "{reply}");
    node.stop();
    let node = Node::limited(directory.path(), limits, SELDOM);
    let reply = node.rcpt("a@sender.example");
    assert!(
        reply.starts_with("451") && reply.contains("to this recipient"),
        "{reply}"
    );
    node.cut();
}

#[test]
fn a_damaged_snapshot_is_set_aside_loudly_and_the_node_begins_empty() {
    let directory = directory();
    let node = Node::start(directory.path(), SELDOM);
    node.rcpt_until_known("a@sender.example");
    node.stop();
    let mut octets = std::fs::read(file(directory.path())).expect("a snapshot");
    let last = octets.len() - 1;
    octets[last] ^= 1;
    std::fs::write(file(directory.path()), &octets).expect("it can be damaged");
    let node = Node::start(directory.path(), SELDOM);
    node.wait_for("DAMAGED SNAPSHOT", "checksum");
    assert!(node.rcpt("a@sender.example").starts_with("451"));
    let aside = directory.path().join("state/reputation/public.damaged");
    assert_eq!(std::fs::read(aside).expect("it was set aside"), octets);
    node.stop();
}
