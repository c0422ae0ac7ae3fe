//! `metrics` on the control socket, read by somebody else's parser.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use postern_control::{Reply, Request};
use tempfile::TempDir;

use crate::node::{Node, until};

/// Prints each sample as `name{label=value,…} value`, with labels in order, and fails on what is not the format.
const PARSER: &str = r#"
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
        print(f"{sample.name}{{{labels}}} {float(sample.value)}")
"#;

fn metrics(directory: &Path) -> String {
    let stream = UnixStream::connect(directory.join("run/control.sock")).expect("the control socket");
    let mut request = serde_json::to_string(&Request::Metrics).expect("a request");
    request.push('\n');
    (&stream).write_all(request.as_bytes()).expect("it reads");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("it answers");
    match serde_json::from_str(&line).expect("a reply") {
        Reply::Metrics { text } => text,
        other => panic!("{other:?}"),
    }
}

/// The samples as the parser of Prometheus' own client sees them.
fn parsed(text: &str) -> Vec<String> {
    // Debian's Python, for which the package python3-prometheus-client is.
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", PARSER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut stdin = child.stdin.take().expect("its input is piped");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the parser refuses:\n{text}");
    let samples = String::from_utf8(output.stdout).expect("text");
    samples.lines().map(str::to_owned).collect()
}

/// Length of the queue, outcomes, verdicts, time of a check.
#[test]
fn a_message_that_waits_has_its_figures() {
    let directory = TempDir::with_prefix("postern-").expect("a directory");
    let node = Node::start(directory.path(), "");
    node.rcpt_until_known("a@sender.example");
    assert!(node.send("a@sender.example").starts_with("250"));
    let wanted = [
        // Nothing listens at its destination, so that it stays.
        "postern_queue_messages{process=queue} 1.0",
        "postern_queue_recipients{process=queue} 1.0",
        "postern_delivery_outcomes_total{outcome=deferred,process=queue} 1.0",
        "postern_verdicts_total{decision=accept,process=smtpd/public} 1.0",
        "postern_accepted_messages_total{process=smtpd/public} 1.0",
        "postern_check_seconds_bucket{check=greylist,le=+Inf,process=smtpd/public}",
    ];
    until("the figures of a message", || {
        let samples = parsed(&metrics(directory.path()));
        wanted
            .iter()
            .all(|wanted| samples.iter().any(|sample| sample.starts_with(wanted)))
    });
    node.stop();
}

#[test]
fn figures_are_open_metrics_and_name_no_stranger() {
    let directory = TempDir::with_prefix("postern-").expect("a directory");
    let node = Node::start(directory.path(), "[proxy]\nnext-hop = \"inside\"\n");
    assert!(node.rcpt("stranger@hostile.example").starts_with("451"));
    let wanted = [
        "postern_refused_total{check=greylist,code=451,process=smtpd/public,stage=rcpt} 1.0",
        "postern_connections_total{process=smtpd/public} 1.0",
        "postern_checks_total{check=greylist,process=smtpd/public,result=wait} 1.0",
        "postern_check_seconds_count{check=greylist,process=smtpd/public} 1.0",
        "postern_remembered_entries{process=smtpd/public,table=waiting} 1.0",
        "postern_message_memory_octets{process=smtpd/public} 0.0",
        "postern_proxy_connections_total{destination=internal,process=proxy,purpose=recipient} 0.0",
        "postern_proxy_connections_open{destination=internal,process=proxy,purpose=submission} 0.0",
        "postern_proxy_octets_total{destination=dmz-state,direction=sent,process=proxy,purpose=state} 0.0",
        "postern_queue_messages{process=queue} 0.0",
        "postern_queue_oldest_seconds{process=queue} 0.0",
    ];
    until("the figures of a refusal", || {
        let samples = parsed(&metrics(directory.path()));
        wanted
            .iter()
            .all(|wanted| samples.iter().any(|sample| sample == wanted))
    });
    let text = metrics(directory.path());
    for word in ["stranger", "hostile", "127.0.0", "user@", "example"] {
        assert!(!text.contains(word), "{word} is in:\n{text}");
    }
    for process in ["queue", "smtpd/public", "proxy"] {
        let used = format!("postern_process_cpu_seconds_total{{process={process}}}");
        assert!(
            parsed(&text).iter().any(|sample| sample.starts_with(&used)),
            "{used}"
        );
    }
    node.stop();
}
