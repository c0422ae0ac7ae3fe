//! `postern queue`: lists what waits, and changes what becomes of it, over the control socket.
//!
//! Messages are named by their ids, or by what they have in common; then the queue is listed page by page and each page
//! is changed with one request.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use postern_control::{Change, Details, Filter, MAX_IDS, QueuedHold, QueuedMessage, Reply, Request};

use crate::control::{Control, another};

/// `postern queue`
#[derive(Args)]
pub(crate) struct Queue {
    #[command(subcommand)]
    command: Command,
    /// The queue's control socket.
    #[arg(long, global = true, default_value = "/run/postern/control.sock")]
    socket: PathBuf,
    /// JSON, one reply of the queue on each line, instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Messages that wait, oldest first.
    List {
        #[command(flatten)]
        conditions: Conditions,
        /// Only messages that are held.
        #[arg(long)]
        held: bool,
        /// Only messages in quarantine: found to be bad after they were taken, or never scanned in time.
        #[arg(long)]
        quarantined: bool,
        /// Only messages behind this id.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// Messages at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// One message, in detail.
    Show {
        /// Its id, as in `queued as ID`.
        id: String,
    },
    /// Do not try messages until they are released, over a restart too.
    Hold(Chosen),
    /// Let held messages go. What is not scanned yet is scanned first and goes when it is found clean; what was found to be bad stays.
    Release {
        #[command(flatten)]
        which: ChosenOrAll,
        /// Deliver these messages although they WERE FOUND TO BE BAD (spam, a virus, a forbidden attachment); only by id.
        #[arg(long, requires = "ids", conflicts_with_all = ["all", "domain", "sender", "recipient"])]
        found_bad: bool,
    },
    /// Try messages now, and their destinations.
    Retry(ChosenOrAll),
    /// Give messages up for all recipients that do not have them yet.
    Cancel {
        #[command(flatten)]
        which: Chosen,
        /// Tell the senders, as of any other failure.
        #[arg(long)]
        bounce: bool,
    },
}

#[derive(Args)]
struct Conditions {
    /// Only messages for a recipient at this domain.
    #[arg(long)]
    domain: Option<String>,
    /// Only messages from this reverse-path; `<>` for notifications.
    #[arg(long)]
    sender: Option<String>,
    /// Only messages for this recipient.
    #[arg(long)]
    recipient: Option<String>,
}

#[derive(Args)]
struct Chosen {
    /// Ids, as in `queued as ID`.
    ids: Vec<String>,
    #[command(flatten)]
    conditions: Conditions,
    /// Why; it goes into the event, and into the notification where there is one.
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Args)]
struct ChosenOrAll {
    #[command(flatten)]
    which: Chosen,
    /// All messages of the queue.
    #[arg(long, conflicts_with_all = ["ids", "domain", "sender", "recipient"])]
    all: bool,
}

/// Does what was asked for.
pub(crate) fn run(queue: Queue) -> Result<()> {
    let Queue {
        command,
        socket,
        json,
    } = queue;
    match command {
        Command::List {
            conditions,
            held,
            quarantined,
            after,
            limit,
        } => {
            let filter = Filter {
                held: held.then_some(true),
                quarantined: quarantined.then_some(true),
                ..conditions.filter()
            };
            list(&socket, &filter, after, limit, json)
        }
        Command::Show { id } => show(&socket, id, json),
        Command::Hold(which) => change(&socket, Change::Hold, which, false, json),
        Command::Release { which, found_bad } => {
            let how = if found_bad {
                eprintln!("postern: WARNING: what was found to be bad is delivered now");
                Change::ReleaseBad
            } else {
                Change::Release
            };
            change(&socket, how, which.which, which.all, json)
        }
        Command::Retry(any) => change(&socket, Change::Retry, any.which, any.all, json),
        Command::Cancel { which, bounce } => {
            let how = if bounce { Change::Bounce } else { Change::Cancel };
            change(&socket, how, which, false, json)
        }
    }
}

impl Conditions {
    fn filter(self) -> Filter {
        let bare = |address: String| address.trim_matches(['<', '>']).to_owned();
        Filter {
            domain: self.domain,
            sender: self.sender.map(bare),
            recipient: self.recipient.map(bare),
            held: None,
            quarantined: None,
        }
    }
}

fn list(socket: &Path, filter: &Filter, mut after: Option<String>, limit: u32, json: bool) -> Result<()> {
    let mut control = Control::connect(socket)?;
    let mut left = limit;
    while left > 0 {
        let page = control.ask(&Request::QueueList {
            filter: filter.clone(),
            after,
            limit: Some(left),
        })?;
        if json {
            println!("{}", serde_json::to_string(&page)?);
        }
        let Reply::QueueList { messages, next, .. } = page else {
            return Err(another());
        };
        left = left.saturating_sub(u32::try_from(messages.len()).unwrap_or(u32::MAX));
        if !json {
            messages.iter().for_each(print);
        }
        after = next;
        if after.is_none() {
            return Ok(());
        }
    }
    if let Some(last) = after.filter(|_| !json) {
        println!("more: postern queue list --after {last}");
    }
    Ok(())
}

fn show(socket: &Path, id: String, json: bool) -> Result<()> {
    let reply = Control::connect(socket)?.ask(&Request::QueueShow { id })?;
    let Reply::QueueShow { message, details } = &reply else {
        return Err(another());
    };
    if json {
        println!("{}", serde_json::to_string(&reply)?);
        return Ok(());
    }
    print(message);
    let Details {
        trace,
        peer,
        helo,
        tls,
        authenticated_user,
        return_path_proven,
        recipients_done,
    } = details;
    let own = message.provenance == "own";
    println!("    trace      {}", plain(trace));
    if !own {
        let how = tls.as_deref().unwrap_or("in clear");
        println!("    client     {} ({}), {}", plain(peer), plain(helo), plain(how));
        println!(
            "    logged in  {}",
            plain(authenticated_user.as_deref().unwrap_or("nobody"))
        );
        println!(
            "    sender     {}",
            if *return_path_proven {
                "proven"
            } else {
                "not proven"
            }
        );
    }
    println!(
        "    recipients {recipients_done} done, {} waiting",
        message.recipients.len()
    );
    Ok(())
}

fn print(message: &QueuedMessage) {
    let held = match &message.hold {
        Some(QueuedHold::Unscanned { why }) => format!("  HELD, NOT YET SCANNED{}", because(why.as_deref())),
        Some(QueuedHold::Expired { why }) => {
            format!("  QUARANTINED, never scanned{}", because(why.as_deref()))
        }
        Some(QueuedHold::Bad { reason }) => format!("  QUARANTINED, {}", plain(reason)),
        None if message.held => "  HELD".to_owned(),
        None => String::new(),
    };
    println!(
        "{}  {}  {}  {} octets  from <{}>{held}",
        plain(&message.id),
        plain(&message.arrived),
        plain(&message.provenance),
        message.size,
        plain(&message.from)
    );
    for recipient in &message.recipients {
        println!(
            "    to <{}> by {}, tried {} times, next {}",
            plain(&recipient.address),
            if recipient.next_hop.is_empty() {
                "no route"
            } else {
                &recipient.next_hop
            },
            recipient.attempts,
            plain(&recipient.next_attempt)
        );
        if !recipient.last_reply.is_empty() {
            println!("        {}", plain(&recipient.last_reply));
        }
    }
}

/// Text of strangers on a terminal: it must not command it.
fn because(why: Option<&str>) -> String {
    why.map_or(String::new(), |why| format!(": {}", plain(why)))
}

fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let itself = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(itself)
        })
        .collect()
}

fn change(socket: &Path, change: Change, which: Chosen, all: bool, json: bool) -> Result<()> {
    let Chosen {
        ids,
        conditions,
        reason,
    } = which;
    let filter = conditions.filter();
    if !ids.is_empty() && !filter.is_empty() {
        bail!("name messages by their ids or by --domain, --sender and --recipient, not by both");
    }
    if ids.is_empty() && filter.is_empty() && !all {
        bail!(
            "which messages? Name ids, or --domain, --sender or --recipient; `postern queue list` shows them"
        );
    }
    let mut control = Control::connect(socket)?;
    let mut told = Told {
        json,
        done: 0,
        failed: 0,
    };
    for ids in ids.chunks(MAX_IDS) {
        told.request(&mut control, change, ids.to_vec(), reason.clone())?;
    }
    let mut after = None;
    while ids.is_empty() {
        let page = control.ask(&Request::QueueList {
            filter: filter.clone(),
            after,
            limit: None,
        })?;
        let Reply::QueueList { messages, next, .. } = page else {
            return Err(another());
        };
        if !messages.is_empty() {
            let ids = messages.into_iter().map(|message| message.id).collect();
            told.request(&mut control, change, ids, reason.clone())?;
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    told.end()
}

/// What was said so far.
struct Told {
    json: bool,
    done: usize,
    failed: usize,
}

impl Told {
    fn request(
        &mut self,
        control: &mut Control,
        change: Change,
        ids: Vec<String>,
        reason: Option<String>,
    ) -> Result<()> {
        let reply = control.ask(&Request::QueueChange { change, ids, reason })?;
        let Reply::QueueChanged { done, failed } = &reply else {
            return Err(another());
        };
        self.done += done.len();
        self.failed += failed.len();
        if self.json {
            println!("{}", serde_json::to_string(&reply)?);
        }
        for one in failed {
            eprintln!("postern: {}: {}", plain(&one.id), plain(&one.why));
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        if !self.json {
            println!("{} messages changed", self.done);
        }
        if self.failed > 0 {
            bail!("{} messages were not changed", self.failed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_does_not_command_the_terminal() {
        assert_eq!(plain("450 \u{1b}[2J bücher\n"), "450 \\u{1b}[2J bücher\\n");
    }
}
