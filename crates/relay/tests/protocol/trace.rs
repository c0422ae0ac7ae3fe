//! `postern trace` over what the daemon said: every connection and every message is told, and each is found by all that is
//! known of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use postern_control::{Event, EventKind};

use crate::daemon::Daemon;

/// How many connections and messages were found.
pub(crate) fn run(daemon: &Daemon) -> Result<usize, String> {
    let lines = daemon.since(0);
    let lines: Vec<&str> = lines
        .iter()
        .map(|line| &line[line.find("event {").unwrap_or(0)..])
        .collect();
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let journal = directory.path().join("gateway.journal");
    std::fs::write(&journal, lines.join("\n")).map_err(|error| error.to_string())?;
    let events: Vec<Event> = lines
        .iter()
        .filter_map(|line| Event::from_line(line).ok())
        .collect();

    let wanted: BTreeSet<&str> = events.iter().filter_map(begun).collect();
    let told = told(&journal, &["--connections"])?;
    if wanted.is_empty() {
        return Err("nobody connected".into());
    }
    if let Some(untold) = wanted.iter().find(|name| !told.contains(**name)) {
        return Err(format!("{untold} is not told"));
    }

    // One that was refused, one that was taken, one that came to nothing.
    let of = |wanted: fn(&&Event) -> bool| events.iter().find(wanted);
    let came_to_something = |trace: &Option<String>| {
        let has = |event: &&Event| event.trace == *trace;
        let said = |event: &Event| matches!(event.kind, EventKind::Queued { .. } | EventKind::Refused { .. });
        events.iter().filter(has).any(said)
    };
    let silent = events.iter().find(|event| {
        matches!(event.kind, EventKind::Disconnected { .. }) && !came_to_something(&event.trace)
    });
    let samples = [
        of(|event| matches!(&event.kind, EventKind::Refused { from: Some(_), to, .. } if !to.is_empty())),
        of(|event| matches!(event.kind, EventKind::Queued { .. }) && event.process.starts_with("smtpd")),
        silent,
    ];
    for sample in samples.into_iter().flatten() {
        is_found(&journal, &events, sample)?;
    }
    Ok(wanted.len())
}

/// The trace of a connection, or the id of a message, that begins with this event.
fn begun(event: &Event) -> Option<&str> {
    match event.kind {
        EventKind::Connected { .. } => event.trace.as_deref(),
        EventKind::Queued { .. } => event.id.as_deref(),
        _ => None,
    }
}

fn is_found(journal: &Path, events: &[Event], sample: &Event) -> Result<(), String> {
    let trace = sample.trace.as_deref().ok_or("an event without its connection")?;
    let time = sample.time.as_str();
    let mut filters = vec![
        vec!["--id", trace],
        vec!["--connections", "--since", time, "--until", time],
    ];
    filters.extend(sample.id.as_deref().map(|id| vec!["--id", id]));
    let peer = events.iter().find_map(|event| match &event.kind {
        EventKind::Connected { peer, .. } if event.trace.as_deref() == Some(trace) => Some(peer),
        _ => None,
    });
    filters.push(vec!["--address", peer.ok_or("a connection without its begin")?]);
    if let EventKind::Refused {
        from: Some(from), to, ..
    }
    | EventKind::Queued { from, to, .. } = &sample.kind
    {
        filters.push(vec!["--sender", if from.is_empty() { "<>" } else { from }]);
        filters.extend(to.iter().map(|to| vec!["--recipient", to.as_str()]));
    }
    for filter in filters {
        if !told(journal, &filter)?.contains(trace) {
            return Err(format!("{sample:?} is not found by {filter:?}"));
        }
    }
    Ok(())
}

/// The traces and ids of the stories that `filter` picks.
fn told(journal: &Path, filter: &[&str]) -> Result<BTreeSet<String>, String> {
    let postern = Path::new(env!("CARGO_BIN_EXE_postern-relay")).with_file_name("postern");
    let output = Command::new(&postern)
        .args(["trace", "--json", "--journal"])
        .arg(journal)
        .args(filter)
        .output()
        .map_err(|error| format!("{}: {error}", postern.display()))?;
    if !output.status.success() {
        return Err(format!("{filter:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut names = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let story: serde_json::Value =
            serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let events = story["events"].as_array().into_iter().flatten();
        let traces = events.map(|event| &event["trace"]).chain([&story["id"]]);
        names.extend(traces.filter_map(|name| name.as_str()).map(str::to_owned));
    }
    Ok(names)
}
