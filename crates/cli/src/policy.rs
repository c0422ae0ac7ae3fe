//! `postern policy`: what a changed site file would have done with the traffic of the last days.
//!
//! `record` writes what the checks saw, without what tells who wrote to whom. `replay` renders the new site and lets
//! `postern-relay replay`, which holds the verdict's table, weigh it again.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use postern_control::{Event, EventKind};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::site;
use crate::trace::{Source, each_event, harmless, sources};

#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Write what was seen of each message, without local parts of addresses and without texts, for a later replay.
    Record {
        #[command(flatten)]
        journals: Journals,
    },
    /// Show each verdict that a changed site file would make otherwise, before it is applied.
    Replay {
        /// The changed site file.
        #[arg(long)]
        site: PathBuf,
        /// Which node's journal it is.
        #[arg(long)]
        node: String,
        #[command(flatten)]
        journals: Journals,
        /// Lines of JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(crate) struct Journals {
    /// A file with the node's journal (`journalctl -o cat`), or what `record` wrote. Without it this machine's journal is asked.
    #[arg(long = "journal", value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(crate) fn run(policy: &Policy) -> Result<()> {
    match policy {
        Policy::Record { journals } => feed(
            &sources(&journals.files),
            &Hiding::Whole,
            &mut std::io::stdout().lock(),
        ),
        Policy::Replay {
            site,
            node,
            journals,
            json,
        } => replay(site, node, &sources(&journals.files), *json),
    }
}

/// What becomes of local parts.
enum Hiding {
    /// They are left out.
    Whole,
    /// Something stands for them, so that a sender's and a mailbox's messages can be counted. The key is this process's, and
    /// what is made with it goes to `postern-relay` and no further.
    Pseudonyms {
        key: RandomState,
        /// The site's, whose address is nobody's secret: mail for `postmaster` goes there.
        postmaster: String,
    },
}

impl Hiding {
    /// Beside the domain only that matters which messages are the same one's.
    fn hide(&self, address: &mut String) {
        if let Some((local, domain)) = address.rsplit_once('@') {
            let local = match self {
                Self::Pseudonyms { postmaster, .. }
                    if local.eq_ignore_ascii_case("postmaster")
                        || address.eq_ignore_ascii_case(postmaster) =>
                {
                    "postmaster".to_owned()
                }
                _ => self.stands_for(local),
            };
            *address = format!("{local}@{domain}");
        }
    }

    /// The name of a user may be without a domain.
    fn hide_user(&self, user: &mut String) {
        *user = match user.rsplit_once('@') {
            Some((local, domain)) => format!("{}@{domain}", self.stands_for(local)),
            None => self.stands_for(user),
        };
    }

    fn stands_for(&self, local: &str) -> String {
        match self {
            Self::Pseudonyms { key, .. } if local != "*" => {
                format!("~{:016x}", key.hash_one(local.to_lowercase()))
            }
            Self::Pseudonyms { .. } | Self::Whole => "*".to_owned(),
        }
    }
}

fn feed(journals: &[Source<'_>], hiding: &Hiding, to: &mut impl Write) -> Result<()> {
    for journal in journals {
        let mut failed = None;
        each_event(journal, &mut |event| {
            if failed.is_none()
                && let Some(event) = redacted(event, hiding)
            {
                failed = writeln!(to, "{}", event.to_line()).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error).context("what was recorded cannot be handed on");
        }
    }
    Ok(())
}

/// What a verdict went by, and no more; `None` for other events.
fn redacted(mut event: Event, hiding: &Hiding) -> Option<Event> {
    if !event.process.starts_with("smtpd/") {
        return None;
    }
    match &mut event.kind {
        EventKind::Connected { .. } | EventKind::Verdict { .. } => {}
        EventKind::Disconnected { reason } => *reason = None,
        EventKind::Authenticated { user } => hiding.hide_user(user),
        EventKind::OnBehalf { peer, helo } => {
            peer.clear();
            helo.clear();
        }
        EventKind::Check {
            check,
            evidence,
            seen,
            ..
        } => {
            evidence.clear();
            if check == "content"
                && let Some(serde_json::Value::Object(seen)) = seen
            {
                seen.values_mut().for_each(hide_texts);
            }
        }
        EventKind::Refused {
            check,
            text,
            evidence,
            from,
            to,
            ..
        } => {
            *evidence = None;
            if check.as_deref() == Some("content") {
                text.clear();
            }
            from.iter_mut().chain(to).for_each(|address| hiding.hide(address));
        }
        EventKind::Queued { from, to, .. } => {
            hiding.hide(from);
            for address in to {
                hiding.hide(address);
            }
        }
        _ => return None,
    }
    Some(event)
}

/// What was found in a message is told with names of attachments; the kind of it suffices.
fn hide_texts(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => "*".clone_into(text),
        serde_json::Value::Object(object) => object.values_mut().for_each(hide_texts),
        _ => {}
    }
}

fn replay(file: &Path, node: &str, journals: &[Source<'_>], json: bool) -> Result<()> {
    let site = site::load(file)?;
    let rendered = site.render(node)?;
    let relay = rendered
        .iter()
        .find(|file| file.path.ends_with("relay.toml"))
        .context("the site has no relay.toml for this node")?;
    let mut config = NamedTempFile::with_suffix(".toml").context("no temporary file can be made")?;
    config
        .write_all(relay.contents.as_bytes())
        .context("the temporary file cannot be written")?;
    let program = relay_program();
    let mut child = Command::new(&program)
        .args(["replay", "--config"])
        .arg(config.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}; install it beside `postern`", program.display()))?;
    let input = child.stdin.take().context("postern-relay has no input")?;
    let out = child.stdout.take().context("postern-relay has no output")?;
    let fed = std::thread::scope(|scope| {
        let shown = scope.spawn(move || print(BufReader::new(out), json));
        let mut input = std::io::BufWriter::new(input);
        let hiding = Hiding::Pseudonyms {
            key: RandomState::new(),
            postmaster: site.postmaster(),
        };
        let fed = feed(journals, &hiding, &mut input).and_then(|()| Ok(input.flush()?));
        drop(input);
        let outcome = shown
            .join()
            .unwrap_or_else(|_| bail!("the result could not be printed"));
        // Where the relay ended early, its own words tell more than a broken pipe does.
        outcome.and(fed)
    });
    let status = child.wait().context("cannot wait for postern-relay")?;
    if !status.success() {
        bail!("postern-relay replay ended with {status}");
    }
    fed
}

/// The one that was installed with this program, else the one that is found.
pub(crate) fn relay_program() -> PathBuf {
    std::env::current_exe()
        .map(|own| own.with_file_name("postern-relay"))
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| "postern-relay".into())
}

fn print(lines: impl std::io::BufRead, json: bool) -> Result<()> {
    for line in lines.lines() {
        let line = line.context("cannot read what postern-relay says")?;
        if json {
            println!("{}", harmless(&line));
            continue;
        }
        let value: Value = serde_json::from_str(&line).context("postern-relay does not speak JSON")?;
        println!(
            "{}",
            harmless(&value.get("summary").map_or_else(|| difference(&value), sum))
        );
    }
    Ok(())
}

fn difference(value: &Value) -> String {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let to: Vec<&str> = value["to"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut line = format!(
        "{}  {}  {} -> {}",
        text("time"),
        text("trace"),
        text("was"),
        text("becomes")
    );
    for (word, what) in [
        ("client", text("peer")),
        ("from", text("from")),
        ("to", to.join(", ")),
        ("by", text("check")),
        ("reply", text("reply")),
    ] {
        if !what.is_empty() {
            line.extend(["  ", word, " ", &what]);
        }
    }
    line
}

fn sum(summary: &Value) -> String {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let entries = |key: &str| -> Vec<(String, u64)> {
        let map = summary[key].as_object();
        map.into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), count(value)))
            .collect()
    };
    let changes = entries("changes");
    let differ: u64 = changes.iter().map(|(_, count)| count).sum();
    let mut parts = vec![format!(
        "{} verdicts weighed again, {differ} would differ",
        count(&summary["judged"])
    )];
    parts.extend(
        changes
            .into_iter()
            .map(|(change, count)| format!("{count} {change}")),
    );
    parts.extend(entries("not_made").into_iter().map(|(check, count)| {
        format!("{count} messages were not seen by {check}, which the new site asks for: nothing can be said of that")
    }));
    let unknown = count(&summary["not_counted"]);
    if unknown > 0 {
        parts.push(format!(
            "of {unknown} messages the local parts were left out: the limits of their senders and recipients were not counted"
        ));
    }
    let unreadable = count(&summary["not_recorded"]);
    if unreadable > 0 {
        parts.push(format!(
            "{unreadable} checks were recorded by an older version and left out"
        ));
    }
    parts.join("; ")
}
