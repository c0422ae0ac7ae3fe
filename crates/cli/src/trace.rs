//! `postern trace`: what became of a message or a connection, and why. Enters: journals, read line by line. Leaves: a
//! story for each message, for each refused attempt and for each connection without either that the filter picks, as text
//! or as JSON lines.
//!
//! A message is followed from node to node by the `queued as ID` in the next hop's reply, and to the notification of
//! its failure, so long as the journals of both nodes are given.

mod story;

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use postern_control::{Event, LINE_PREFIX};

pub(crate) use story::harmless;
use story::{Stories, Story};

/// How often the journals are read to follow a message on: a mail crosses two nodes, its notification two more.
const READINGS: usize = 6;
/// Octets of one line; an event is never that long.
const LINE: u64 = 1 << 20;

/// Which stories; all conditions must hold.
#[derive(Args)]
pub(crate) struct Request {
    /// A queue id or a trace id.
    #[arg(long)]
    id: Option<String>,
    /// The client's address.
    #[arg(long)]
    address: Option<std::net::IpAddr>,
    /// The reverse-path, or `@domain`.
    #[arg(long)]
    sender: Option<String>,
    /// A recipient, or `@domain`.
    #[arg(long)]
    recipient: Option<String>,
    /// From this time on, UTC: 2026-01-31 or 2026-01-31T12:00:00.
    #[arg(long, value_parser = time)]
    since: Option<String>,
    /// Until this time, UTC.
    #[arg(long, value_parser = time)]
    until: Option<String>,
    /// Connections that brought no message and were refused nothing, too: their TLS failed, or the client went away.
    /// `--id` and `--address` find them without it.
    #[arg(long)]
    connections: bool,
    /// A file with the journal of a node (`journalctl -o cat`, or its serial line); give one for each node. Without it
    /// this machine's journal is asked.
    #[arg(long = "journal", value_name = "FILE")]
    journals: Vec<PathBuf>,
    /// A line of JSON for each story instead of text.
    #[arg(long)]
    json: bool,
}

/// Times compare as text: RFC 3339 in UTC, or the beginning of such a one.
fn time(text: &str) -> Result<String, String> {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let shape = shape.trim_end_matches('Z');
    if "0000-00-00T00:00:00.000".starts_with(shape) && matches!(shape.len(), 10 | 16 | 19 | 23) {
        Ok(text.trim_end_matches('Z').to_owned())
    } else {
        Err("write a time in UTC as 2026-01-31, 2026-01-31T12:00 or 2026-01-31T12:00:00".to_owned())
    }
}

pub(crate) fn show(request: &Request) -> Result<()> {
    let mut found: Vec<Story> = Vec::new();
    let (mut wanted, mut had) = (BTreeSet::new(), HashSet::new());
    for reading in 0..READINGS {
        let mut more = Vec::new();
        for source in sources(&request.journals) {
            let mut take = |story: Story| {
                let first = reading == 0 && request.picks(&story);
                let followed = story.id.as_ref().is_some_and(|id| wanted.contains(id));
                if (first || followed) && had.insert(story.key()) {
                    more.push(story);
                }
            };
            let mut stories = Stories::new(&source.node());
            each_event(&source, &mut |event| stories.add(event, &mut take))?;
            stories.end(&mut take);
        }
        wanted = more.iter().flat_map(Story::leads_to).collect();
        found.append(&mut more);
        if wanted.is_empty() {
            break;
        }
    }
    found.sort_by(|a, b| a.began().cmp(b.began()));
    if found.is_empty() {
        bail!("no message and no connection fits; the journal may not reach that far back");
    }
    for story in &found {
        if request.json {
            println!("{}", story.json()?);
        } else {
            print!("{}", story.text());
        }
    }
    Ok(())
}

impl Request {
    fn picks(&self, story: &Story) -> bool {
        let after = |since: &String| story.ended() >= since.as_str();
        // `2026-01-31` means the whole day.
        let before =
            |until: &String| story.began() <= until.as_str() || story.began().starts_with(until.as_str());
        let silent_too = self.connections || self.id.is_some() || self.address.is_some();
        (silent_too || !story.is_silent())
            && self.since.as_ref().is_none_or(after)
            && self.until.as_ref().is_none_or(before)
            && self.id.as_ref().is_none_or(|id| story.has_id(id))
            && self.address.is_none_or(|address| story.has_peer(address))
            && self.sender.as_ref().is_none_or(|sender| story.has_sender(sender))
            && self
                .recipient
                .as_ref()
                .is_none_or(|recipient| story.has_recipient(recipient))
    }
}

/// Where a journal is.
pub(crate) enum Source<'a> {
    File(&'a Path),
    Journalctl,
}

pub(crate) fn sources(files: &[PathBuf]) -> Vec<Source<'_>> {
    if files.is_empty() {
        vec![Source::Journalctl]
    } else {
        files.iter().map(|path| Source::File(path)).collect()
    }
}

impl Source<'_> {
    /// What the node is called in a story: a file bears its name.
    fn node(&self) -> String {
        match self {
            Self::File(path) => path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            Self::Journalctl => String::new(),
        }
    }
}

/// Gives each event of a journal, in its order.
pub(crate) fn each_event(source: &Source<'_>, take: &mut impl FnMut(Event)) -> Result<()> {
    match source {
        Source::File(path) => {
            let file =
                File::open(path).with_context(|| format!("cannot read the journal {}", path.display()))?;
            events(BufReader::new(file), take).with_context(|| format!("cannot read {}", path.display()))
        }
        Source::Journalctl => {
            let mut child = Command::new("journalctl")
                .args(["--output=cat", "--no-pager", "--quiet", "--unit=postern-*"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot run journalctl; give the node's journal with --journal FILE")?;
            let out = child.stdout.take().context("journalctl has no output")?;
            events(BufReader::new(out), take).context("cannot read what journalctl says")?;
            let status = child.wait().context("cannot wait for journalctl")?;
            if !status.success() {
                bail!(
                    "journalctl ended with {status}: may this user read the journal (group systemd-journal)?"
                );
            }
            Ok(())
        }
    }
}

fn events(mut journal: impl BufRead, take: &mut impl FnMut(Event)) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if journal.by_ref().take(LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        // A stamp of the journal's own (`… name[pid]: `) may stand before it; a line cut short by a power cut is not an event.
        let line = match text.split_once("]: ") {
            Some((_, line)) if !text.starts_with(LINE_PREFIX) => line,
            _ => &text,
        };
        if let Ok(event) = Event::from_line(line) {
            take(event);
        }
    }
}
