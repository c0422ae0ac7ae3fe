//! The journal, as `journalctl -o json` tells it: followed for the events, and asked for a failed unit's last words.

use std::{
    io::{BufRead, BufReader, Read},
    sync::mpsc::SyncSender,
};

use postern_control::Event as Told;
use serde_json::{Map, Value};

use super::command;
use crate::{
    model::{Event, Update},
    text::Text,
};

/// A line longer than this is left out: the journal itself cuts messages at 48 KiB.
const LONGEST_LINE: u64 = 1 << 20;
const FIELDS: &str =
    "--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_SYSTEMD_UNIT,UNIT,__REALTIME_TIMESTAMP";

/// Tells events for as long as journalctl runs; returns why it does not any more.
pub(crate) fn follow(updates: &SyncSender<Update>) -> Text {
    let started = command::start(
        "journalctl",
        &[
            "--follow",
            "--boot",
            "--lines=300",
            "--output=json",
            "--quiet",
            "--no-pager",
            FIELDS,
        ],
    );
    let mut child = match started {
        Ok(child) => child,
        Err(why) => return why,
    };
    if let Some(stdout) = child.stdout.take()
        && updates.send(Update::EventsAgain).is_ok()
    {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while let Some(whole) = next_line(&mut reader, &mut line) {
            let Some(event) = whole.then(|| parse(&line)).flatten() else {
                continue;
            };
            if updates.send(Update::Event(event)).is_err() {
                break;
            }
        }
    }
    child.kill().ok();
    match child.wait() {
        Ok(status) => Text::new(&format!(
            "journalctl ended with {status}: {}",
            command::complaint(&mut child)
        )),
        Err(e) => Text::new(&format!("journalctl cannot be waited for: {e}")),
    }
}

/// The last lines that `unit` wrote, or the service manager about it, since boot.
pub(crate) fn last_words(unit: &str) -> Vec<Text> {
    let unit = format!("--unit={unit}");
    match command::output(
        "journalctl",
        &[
            "--boot",
            "--lines=12",
            "--output=json",
            "--quiet",
            "--no-pager",
            &unit,
            FIELDS,
        ],
    ) {
        Ok(text) => text
            .lines()
            .filter_map(|line| Some(entry(line.as_bytes())?.text))
            .collect(),
        Err(why) => vec![why],
    }
}

/// Reads one line; false where it was too long and is cut. None at the end.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> Option<bool> {
    line.clear();
    let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', line).ok()?;
    let whole = line.ends_with(b"\n");
    (read > 0).then_some(whole)
}

/// The entry, if the console shows it: Postern's own units, and errors of anybody else.
fn parse(line: &[u8]) -> Option<Event> {
    entry(line).filter(|e| e.priority <= 3 || e.source.as_str().starts_with("postern-"))
}

fn entry(line: &[u8]) -> Option<Event> {
    let fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let number = |name: &str| text(name).and_then(|n| n.parse::<u64>().ok());
    // What the service manager says about a unit belongs to that unit.
    let source = text("UNIT")
        .or_else(|| text("_SYSTEMD_UNIT"))
        .or_else(|| text("SYSLOG_IDENTIFIER"))
        .unwrap_or("kernel");
    let message = message(fields.get("MESSAGE")?);
    Some(Event {
        seconds: number("__REALTIME_TIMESTAMP").unwrap_or(0) / 1_000_000,
        priority: number("PRIORITY").and_then(|p| u8::try_from(p).ok()).unwrap_or(6),
        source: Text::new(source.strip_suffix(".service").unwrap_or(source)),
        text: Told::from_line(&message)
            .map_or_else(|_| Text::from_bytes(message.as_bytes()), |told| summary(&told)),
    })
}

/// A message is a string, or an array of bytes where it is no UTF-8 or holds control characters.
fn message(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes
                .iter()
                .filter_map(|b| u8::try_from(b.as_u64()?).ok())
                .collect();
            Text::from_bytes(&bytes).as_str().to_owned()
        }
        _ => "(a message too large for the journal's reader)".to_owned(),
    }
}

/// An event in a line that somebody at the screen understands.
fn summary(told: &Told) -> Text {
    let id = told.id.as_deref().or(told.trace.as_deref()).unwrap_or("-");
    Text::new(&format!("{id} {}", told.kind))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn line(fields: &str) -> Vec<u8> {
        format!("{{\"__REALTIME_TIMESTAMP\":\"1767225599000000\",{fields}}}\n").into_bytes()
    }

    #[test]
    fn an_event_is_told_in_words() {
        let event = parse(&line(
            r#""PRIORITY":"6","_SYSTEMD_UNIT":"postern-queue.service","MESSAGE":"event {\"event\":\"delivered\",\"time\":\"t\",\"process\":\"queue\",\"id\":\"7f\",\"recipient\":\"a@b\",\"reply\":\"250 ok\"}""#,
        ));
        let expected = Event {
            seconds: 1_767_225_599,
            priority: 6,
            source: "postern-queue".into(),
            text: "7f delivered to a@b: 250 ok".into(),
        };
        assert_eq!(event, Some(expected));
    }

    #[test]
    fn hostile_messages_are_escaped_whichever_way_the_journal_writes_them() {
        let string = parse(&line(
            r#""_SYSTEMD_UNIT":"postern-smtpd@public.service","MESSAGE":"EHLO \u001b]0;x\u0007""#,
        ))
        .unwrap();
        assert_eq!(string.text.as_str(), "EHLO \\u{1b}]0;x\\u{7}");
        let bytes = parse(&line(
            r#""_SYSTEMD_UNIT":"postern-smtpd@public.service","MESSAGE":[69,27,91,255]"#,
        ))
        .unwrap();
        assert_eq!(bytes.text.as_str(), "E\\x1b[\\xff");
        let inside = parse(&line(
            r#""UNIT":"postern-queue.service","MESSAGE":"event {\"event\":\"bounced\",\"time\":\"t\",\"process\":\"queue\",\"recipient\":\"\\u001b[31m\",\"reply\":\"550\"}""#,
        ));
        assert_eq!(inside.unwrap().text.as_str(), "- bounced \\u{1b}[31m: 550");
    }

    #[test]
    fn others_are_shown_where_they_report_errors() {
        assert!(
            parse(&line(
                r#""PRIORITY":"6","_SYSTEMD_UNIT":"dbus.service","MESSAGE":"hello""#
            ))
            .is_none()
        );
        assert!(
            parse(&line(
                r#""PRIORITY":"3","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"I/O error""#
            ))
            .is_some()
        );
        assert!(parse(b"-- No entries --\n").is_none() && parse(b"{}\n").is_none());
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_next_one_read() {
        let mut text = vec![b'x'; usize::try_from(LONGEST_LINE).unwrap() + 3];
        text.extend_from_slice(b"\nshort\n");
        let (mut reader, mut line) = (Cursor::new(text), Vec::new());
        assert_eq!(next_line(&mut reader, &mut line), Some(false));
        assert_eq!(
            next_line(&mut reader, &mut line),
            Some(true),
            "the rest of the long line"
        );
        assert_eq!(next_line(&mut reader, &mut line), Some(true));
        assert_eq!(line, b"short\n");
        assert_eq!(next_line(&mut reader, &mut line), None);
    }
}
