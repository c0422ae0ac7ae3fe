//! Several gateways with one memory, at a real server: alike in every answer, and each alone when it is lost.

use std::time::Duration;

use postern_relay::reputation::valkey::Valkey;
use postern_relay::reputation::{Backend as _, Key, PROOFS, Question};
use tempfile::TempDir;

use crate::conformance;
use crate::node::{Node, until};
use crate::server::Server;

const LIMIT: Duration = Duration::from_mins(1);

async fn connected(valkey: &Valkey) {
    tokio::time::timeout(LIMIT, valkey.connected())
        .await
        .expect("the server can be reached");
}

#[tokio::test]
async fn a_real_server() {
    let server = Server::start();
    let valkey = Valkey::start(server.settings());
    connected(&valkey).await;
    conformance::all(&valkey).await;
    conformance::network_is_left_with_nothing(&valkey).await;
}

#[tokio::test]
async fn a_server_that_restarts_is_found_again() {
    let mut server = Server::start();
    let valkey = Valkey::start(server.settings());
    connected(&valkey).await;
    let prove = Question::Prove {
        client: Key::new("c", &[]),
    };
    valkey.ask(&prove, 1).await.expect("it answers");
    server.end();
    while valkey.ask(&prove, 1).await.is_ok() {}
    server.restart();
    connected(&valkey).await;
    // Its scripts are gone, too.
    valkey.ask(&prove, 1).await.expect("it answers");
}

#[tokio::test]
async fn a_wrong_password_or_name_is_no_connection() {
    let server = Server::start();
    let mut wrong = server.settings();
    wrong.password = "guessed".into();
    let mut other = server.settings();
    other.server_name = "other.example.org".try_into().expect("a name");
    for (settings, why) in [(wrong, "AuthenticationFailed"), (other, "certificate")] {
        let valkey = Valkey::start(settings);
        let question = Question::Prove {
            client: Key::new("c", &[]),
        };
        let refused = tokio::time::timeout(LIMIT, async {
            loop {
                let error = valkey.ask(&question, 1).await.expect_err("nobody may log in");
                if !error.0.contains("not yet") {
                    return error.0;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let refused = refused.await.expect("the server refuses");
        assert!(refused.contains(why), "{refused}");
    }
}

/// Two gateways behind one MX set.
struct Pair {
    first: Node,
    second: Node,
    _directories: [TempDir; 2],
}

fn pair(server: &Server) -> Pair {
    limited_pair(server, "")
}

fn limited_pair(server: &Server, limits: &str) -> Pair {
    let directories = [(); 2].map(|()| TempDir::with_prefix("postern-").expect("a directory"));
    let start = |directory: &TempDir| {
        let node = Node::limited(directory.path(), limits, &server.table(directory.path()));
        node.wait_for("proxy: event", r#""event":"started""#);
        node
    };
    Pair {
        first: start(&directories[0]),
        second: start(&directories[1]),
        _directories: directories,
    }
}

#[test]
fn a_sender_that_waited_at_one_gateway_is_known_at_the_other() {
    let server = Server::start();
    let pair = pair(&server);
    assert!(pair.first.rcpt("a@sender.example").starts_with("451"));
    // The second has never seen it: only the shared memory can tell it that the wait is over.
    pair.first.rcpt_until_known("a@sender.example");
    let reply = pair.second.rcpt("a@sender.example");
    assert!(reply.starts_with("250"), "{reply}; {}", pair.second.said());
    pair.first.stop();
    pair.second.stop();
}

#[test]
fn what_is_counted_at_one_gateway_counts_at_the_other() {
    let mut server = Server::start();
    let pair = limited_pair(&server, "messages-per-hour-recipient = 2");
    // The sender waits no more, whichever mailbox he writes to.
    for number in 0..PROOFS {
        let mailbox = format!("known{number}");
        until("a triplet that has waited", || {
            let reply = pair.first.rcpt_to("a@sender.example", &mailbox);
            reply.starts_with("250")
        });
    }
    // One answer that is late, and a gateway has counted alone: then another mailbox shows it.
    let (mut number, mut mailbox) = (0, String::new());
    until("a limit that both have reached", || {
        number += 1;
        mailbox = format!("full{number}");
        [&pair.first, &pair.second]
            .iter()
            .all(|node| node.send_to("a@sender.example", &mailbox).starts_with("250"))
            && [&pair.first, &pair.second].iter().all(|node| {
                let reply = node.rcpt_to("a@sender.example", &mailbox);
                reply.starts_with("451") && reply.contains("to this recipient")
            })
    });
    // Alone, each knows what it has counted itself: one, where two are allowed.
    server.end();
    until("the first goes on alone", || {
        let reply = pair.first.rcpt_to("a@sender.example", &mailbox);
        reply.starts_with("250")
    });
    pair.first.wait_for("smtpd/public", "SHARED STATE LOST");
    pair.first.stop();
    pair.second.stop();
}

#[test]
fn each_gateway_goes_on_alone_and_says_so() {
    let mut server = Server::start();
    let pair = pair(&server);
    pair.first.rcpt_until_known("a@sender.example");
    assert!(pair.second.rcpt("a@sender.example").starts_with("250"));
    server.hang();
    // Silence is worse than an end: it costs the time limit.
    assert!(pair.second.rcpt("b@sender.example").starts_with("451"));
    pair.second.wait_for("smtpd/public", "SHARED STATE LOST");
    assert!(
        pair.second.rcpt("a@sender.example").starts_with("250"),
        "what was shared before is known"
    );
    server.end();
    pair.first.rcpt_until_known("c@sender.example");
    pair.first.wait_for("smtpd/public", "SHARED STATE LOST");
    server.restart();
    until("the first asks again", || {
        pair.first.rcpt("c@sender.example");
        pair.first.said().contains("the shared state answers again")
    });
    // What it learned alone it tells, so that nobody waits twice.
    assert!(pair.first.rcpt("c@sender.example").starts_with("250"));
    until("the second asks again", || {
        pair.second.rcpt("a@sender.example");
        pair.second.said().contains("the shared state answers again")
    });
    assert!(pair.second.rcpt("c@sender.example").starts_with("250"));
    pair.first.stop();
    pair.second.stop();
}
