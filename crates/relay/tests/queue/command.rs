//! The operator's own command, `postern`, at a real queue.

use postern_control::EventKind;

use crate::operator::{configuration, give, nobody};
use crate::process::Queue;
use crate::sink::Sink;

/// What `postern` says; a message that is just being tried is asked for again.
fn says(queue: &Queue, arguments: &[&str]) -> Result<String, String> {
    loop {
        let output = queue.postern(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            assert_eq!(error, "");
            return Ok(String::from_utf8(output.stdout).unwrap());
        }
        if !error.contains("just being tried") {
            return Err(error);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[tokio::test]
async fn the_operator_lists_holds_releases_retries_and_cancels() {
    let (directory, store, far) = (tempfile::tempdir().unwrap(), Sink::start(), nobody());
    // One wait, longer than the test.
    let configuration = configuration(far, &store)
        .replace("retry = [1]", "retry = [600]")
        .replace("expire = 300", "expire = 3000");
    let mut queue = Queue::start(directory.path(), &configuration);
    let first = give(&queue, "app@example.org", "one@far.example").await;
    queue.wait("a failure", |kind| matches!(kind, EventKind::Deferred { .. }));
    let second = give(&queue, "app@example.org", "two@far.example").await;

    let list = says(&queue, &["queue", "list"]).unwrap();
    for words in [
        &first,
        &second,
        "to <one@far.example> by far, tried 1 times",
        "451 4.4.1",
    ] {
        assert!(list.contains(words), "{words} in {list}");
    }
    let status = says(&queue, &["status"]).unwrap();
    assert!(
        status.contains("mail.example.org (internal, ") && status.contains("\nqueue    2 messages"),
        "{status}"
    );

    let one = Ok("1 messages changed\n".to_owned());
    let hold_it = ["queue", "hold", &first, "--reason", "ticket 7"];
    assert_eq!(says(&queue, &hold_it), one);
    let held = says(&queue, &["queue", "list", "--held"]).unwrap();
    assert!(
        held.starts_with(&first) && held.contains("from <app@example.org>  HELD\n"),
        "{held}"
    );
    assert!(!held.contains(&second));
    let shown = says(&queue, &["queue", "show", &first]).unwrap();
    assert!(
        shown.contains("client     192.0.2.1 (client.example), in clear\n"),
        "{shown}"
    );
    let refused = says(&queue, &["queue", "retry", &first]).unwrap_err();
    assert!(refused.contains("release it first"), "{refused}");
    assert_eq!(says(&queue, &["queue", "release", &first]), one);
    assert_eq!(says(&queue, &["queue", "list", "--held"]).unwrap(), "");

    let to_two = ["--recipient", "two@far.example", "--reason", "ticket 8"];
    let cancel = [&["queue", "cancel", "--bounce"], to_two.as_slice()].concat();
    assert_eq!(says(&queue, &cancel), one);
    let told = &store.wait("a notification", |taken| !taken.is_empty())[0];
    assert!(
        told.content.contains("cancelled by the operator: ticket 8\r\n"),
        "{}",
        told.content
    );

    let back = Sink::start_at(far);
    assert!(says(&queue, &["queue", "retry", "--all"]).is_ok());
    let taken = back.wait("what was not cancelled", |taken| !taken.is_empty());
    assert_eq!(taken[0].to, "one@far.example");
    queue.wait(
        "its end",
        |kind| matches!(kind, EventKind::Delivered { recipient, .. } if recipient == "one@far.example"),
    );
    let unknown = says(&queue, &["queue", "hold", &second]).unwrap_err();
    assert!(unknown.contains("no such message"), "{unknown}");
    queue.stop();
}
