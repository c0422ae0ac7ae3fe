//! What the queue process says on its control socket: a line of JSON out, a line of JSON back.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use postern_control::{Reply, Request};

use crate::{
    model::{Queue, Record, Waiting},
    text::Text,
};

/// Time for each answer, and its largest size in octets.
const TIME: Duration = Duration::from_secs(5);
const SIZE: u64 = 4 << 20;
/// Rows of the queue that are kept.
const ROWS: usize = 500;

/// Asks for everything the console shows.
pub(crate) fn read(root: &Path) -> Result<Queue, Text> {
    let path = root.join("run/postern/control.sock");
    let told = |e: std::io::Error| {
        Text::new(&format!(
            "the queue process does not answer on {}: {e}",
            path.display()
        ))
    };
    let stream = UnixStream::connect(&path).map_err(told)?;
    stream.set_read_timeout(Some(TIME)).map_err(told)?;
    stream.set_write_timeout(Some(TIME)).map_err(told)?;
    let mut reader = BufReader::new(stream);
    let mut queue = Queue::default();
    for request in [Request::Status, Request::list_all(), Request::DkimRecords] {
        match ask(&mut reader, &request).map_err(told)? {
            Reply::Status {
                role, queue: status, ..
            } => {
                queue.role = Text::new(&role);
                queue.messages = status.messages;
                queue.recipients_due = status.recipients_due;
                queue.oldest = Duration::from_secs(status.oldest_age_seconds);
                queue.spool_octets = status.spool_octets;
            }
            Reply::QueueList {
                messages, truncated, ..
            } => {
                queue.truncated = truncated;
                queue.waiting = messages.iter().flat_map(rows).take(ROWS).collect();
            }
            Reply::DkimRecords { records } => {
                queue.dkim = records
                    .iter()
                    .map(|r| Record {
                        name: Text::new(&r.name),
                        value: Text::new(&r.value),
                    })
                    .collect();
            }
            Reply::Error { text } => return Err(Text::new(&format!("the queue process says: {text}"))),
            Reply::QueueShow { .. }
            | Reply::QueueChanged { .. }
            | Reply::Metrics { .. }
            | Reply::DnsCheck { .. } => {
                return Err(Text::new("the queue process answered another question"));
            }
        }
    }
    Ok(queue)
}

fn ask(stream: &mut BufReader<UnixStream>, request: &Request) -> std::io::Result<Reply> {
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.get_mut().write_all(line.as_bytes())?;
    let mut answer = String::new();
    stream.take(SIZE).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

fn rows(message: &postern_control::QueuedMessage) -> impl Iterator<Item = Waiting> {
    let from = if message.from.is_empty() {
        "<>"
    } else {
        &message.from
    };
    message.recipients.iter().map(move |recipient| Waiting {
        id: Text::new(&message.id),
        from: Text::new(from),
        to: Text::new(&recipient.address),
        attempts: recipient.attempts,
        next: Text::new(&recipient.next_attempt),
        last_reply: Text::new(&recipient.last_reply),
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    /// Serves one connection with these answers, whatever is asked.
    fn serve(answers: &'static [&'static str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run/postern")).unwrap();
        let listener = UnixListener::bind(root.path().join("run/postern/control.sock")).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for answer in answers {
                lines.next().unwrap().unwrap();
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
        });
        root
    }

    #[test]
    fn status_queue_and_records_are_read() {
        let root = serve(&[
            "{\"reply\":\"status\",\"node\":\"mx1\",\"role\":\"gateway\",\"version\":\"0.1.0\",\"queue\":{\"messages\":1,\
             \"recipients_due\":2,\"oldest_age_seconds\":60,\"spool_octets\":4096}}\n",
            "{\"reply\":\"queue-list\",\"messages\":[{\"id\":\"a1\",\"arrived\":\"\",\"provenance\":\"public\",\"from\":\"\",\
             \"size\":1,\"recipients\":[{\"address\":\"a@b\",\"attempts\":3,\"next_attempt\":\"soon\",\
             \"last_reply\":\"450 \\u001b[2J\"}]}],\"truncated\":false}\n",
            "{\"reply\":\"dkim-records\",\"records\":[{\"name\":\"s._domainkey.b\",\"value\":\"v=DKIM1\"}]}\n",
        ]);
        let queue = read(root.path()).unwrap();
        assert_eq!(
            (queue.messages, queue.recipients_due, queue.oldest.as_secs()),
            (1, 2, 60)
        );
        assert_eq!(queue.waiting[0].from.as_str(), "<>");
        assert_eq!(queue.waiting[0].last_reply.as_str(), "450 \\u{1b}[2J");
        assert_eq!(queue.dkim[0].value.as_str(), "v=DKIM1");
    }

    #[test]
    fn a_missing_or_confused_queue_process_is_told() {
        let none = read(Path::new("/nonexistent")).unwrap_err();
        assert!(
            none.as_str()
                .contains("does not answer on /nonexistent/run/postern/control.sock"),
            "{none}"
        );
        let confused = read(serve(&["hello\n"]).path()).unwrap_err();
        assert!(confused.as_str().contains("does not answer"), "{confused}");
        let refusing = read(serve(&["{\"reply\":\"error\",\"text\":\"not now\"}\n"]).path()).unwrap_err();
        assert!(refusing.as_str().contains("not now"), "{refusing}");
    }
}
