//! Commands, their order, and their limits.

use super::*;

#[test]
fn a_whole_transaction() {
    let mut client = Client::open();
    assert_eq!(wire(&client.session.greeting()), "220 mx.example ESMTP Postern");
    let steps = client.lines(&[
        "EHLO client.example",
        "MAIL FROM:<a@b> SIZE=10",
        "RCPT TO:<c@d>",
        "RCPT TO:<no-e@d>",
        "DATA",
    ]);
    assert_eq!(
        steps,
        [
            "250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n\
             250-CHUNKING\r\n250-DSN\r\n250-SIZE 52428800\r\n250 LIMITS RCPTMAX=100",
            "MAIL a@b",
            "250 2.1.0 Sender taken",
            "RCPT c@d",
            "250 2.1.5 Recipient taken",
            "RCPT no-e@d",
            "550 5.1.1 There is no mailbox no-e@d here; check the address",
            "STARTED",
            "354 Send the message; end it with a line that holds a single dot",
        ]
    );
    let steps = client.send("Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n");
    assert_eq!(
        steps,
        [
            "MESSAGE 1 Subject: x\\r\\n\\r\\n.\\r\\n",
            "250 2.0.0 queued as id",
            "CLOSE 221 2.0.0 mx.example closes the connection",
        ]
    );
}

#[test]
fn commands_out_of_sequence_are_refused() {
    let mut client = Client::open();
    let before = ["MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA"];
    assert_eq!(codes(&client.lines(&before)), ["503 5.5.1"; 3]);
    client.lines(&["EHLO x"]);
    assert_eq!(codes(&client.lines(&["RCPT TO:<a@b>"])), ["503 5.5.1"]);
    assert_eq!(
        codes(&client.lines(&["MAIL FROM:<a@b>", "MAIL FROM:<a@b>"])),
        ["250 2.1.0", "503 5.5.1"]
    );
    assert_eq!(codes(&client.lines(&["DATA"])), ["503 5.5.1"]);
}

#[test]
fn rset_and_ehlo_forget_the_transaction() {
    for reset in ["RSET", "EHLO x", "HELO x"] {
        let mut client = Client::open();
        client.lines(&["EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", reset]);
        assert!(client.session.transaction().is_none(), "{reset}");
        assert_eq!(codes(&client.lines(&["RCPT TO:<c@d>"])), ["503 5.5.1"], "{reset}");
    }
}

#[test]
fn small_commands() {
    let mut client = Client::open();
    let steps = client.lines(&[
        "NOOP",
        "RSET",
        "VRFY a",
        "HELP",
        "EXPN list",
        "LHLO x",
        "FOO",
        "STARTTLS",
        "AUTH PLAIN",
    ]);
    let expected = [
        "250 2.0.0",
        "250 2.0.0",
        "252 2.7.0",
        "214 2.0.0",
        "502 5.7.0",
        "500 5.5.1",
        "500 5.5.2",
        "502 5.5.1",
        "502 5.5.1",
    ];
    assert_eq!(codes(&steps), expected);
}

#[test]
fn helo_takes_no_parameters() {
    let mut client = Client::open();
    let steps = client.lines(&[
        "HELO x",
        "MAIL FROM:<a@b> SIZE=1",
        "MAIL FROM:<a@b>",
        "RCPT TO:<c@d> NOTIFY=NEVER",
        "RCPT TO:<c@d>",
    ]);
    assert_eq!(
        codes(&steps),
        ["250", "555 5.5.4", "250 2.1.0", "555 5.5.4", "250 2.1.5"]
    );
    assert_eq!(client.session.protocol().to_string(), "SMTP");
}

#[test]
fn tls_is_required_before_mail() {
    let mut client = Client::new(config(Tls::Required));
    let steps = client.lines(&[
        "EHLO x",
        "NOOP",
        "RSET",
        "MAIL FROM:<a@b>",
        "RCPT TO:<a@b>",
        "DATA",
        "VRFY a",
    ]);
    assert!(steps[0].contains("250 STARTTLS"));
    assert_eq!(
        codes(&steps)[1..],
        [
            "250 2.0.0",
            "250 2.0.0",
            "530 5.7.0",
            "530 5.7.0",
            "530 5.7.0",
            "530 5.7.0"
        ]
    );
    assert_eq!(
        client.lines(&["STARTTLS"]),
        ["TLS 220 2.0.0 Ready: begin the TLS handshake"]
    );
    client.session.tls_established(tls());
    assert!(client.session.helo().is_none());
    assert_eq!(codes(&client.lines(&["MAIL FROM:<a@b>"])), ["503 5.5.1"]);
    let steps = client.lines(&["EHLO x", "STARTTLS", "MAIL FROM:<a@b>"]);
    assert!(!steps[0].contains("STARTTLS"));
    assert_eq!(codes(&steps)[1..], ["503 5.5.1", "250 2.1.0"]);
    assert_eq!(client.session.protocol().to_string(), "ESMTPS");
}

#[test]
fn what_was_said_before_tls_is_forgotten() {
    let mut client = Client::new(config(Tls::Offered));
    client.lines(&["EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "STARTTLS"]);
    client.session.tls_established(tls());
    assert!(client.session.transaction().is_none());
    client.lines(&["EHLO x"]);
    assert_eq!(codes(&client.lines(&["RCPT TO:<c@d>"])), ["503 5.5.1"]);
}

#[test]
fn commands_behind_starttls_close_the_connection() {
    for behind in ["EHLO x\r\n", "\0"] {
        let mut client = Client::new(config(Tls::Offered));
        let steps = client.send(format!("EHLO x\r\nSTARTTLS\r\n{behind}"));
        assert_eq!(codes(&steps)[1..], ["CLOSE 421 4.7.0"]);
        assert_eq!(codes(&client.lines(&["NOOP"])), ["CLOSE 421 4.7.0"]);
    }
}

#[test]
fn plain_text_in_place_of_the_handshake_closes() {
    let mut client = Client::new(config(Tls::Offered));
    client.lines(&["EHLO x", "STARTTLS"]);
    assert_eq!(codes(&client.lines(&["MAIL FROM:<a@b>"])), ["CLOSE 454 4.7.0"]);
}

#[test]
fn recipients_are_limited_and_the_taken_ones_stay() {
    let mut limited = config(Tls::Off);
    limited.limits.recipients = 2;
    let mut client = Client::new(limited);
    let steps = client.lines(&[
        "EHLO x",
        "MAIL FROM:<>",
        "RCPT TO:<a@b>",
        "RCPT TO:<postmaster>",
        "RCPT TO:<c@b>",
    ]);
    assert_eq!(codes(&steps)[2..], ["250 2.1.5", "250 2.1.5", "452 4.5.3"]);
    client.lines(&["DATA"]);
    assert_eq!(client.send("x\r\n.\r\n")[0], "MESSAGE 2 x\\r\\n");
}

#[test]
fn errors_are_limited() {
    let mut client = Client::open();
    client.lines(&["EHLO x", "MAIL FROM:<a@b>"]);
    let steps = client.lines(&["RCPT TO:<no-a@b>"; 12]);
    assert_eq!(codes(&steps)[..10], ["550 5.1.1"; 10]);
    assert_eq!(codes(&steps)[10..], ["CLOSE 421 4.7.0"]);
    let mut patient = Client::open();
    patient.lines(&["EHLO x", "MAIL FROM:<a@b>"]);
    assert_eq!(
        codes(&patient.lines(&["RCPT TO:<later-a@b>"; 12])),
        ["451 4.7.1"; 12]
    );
}

#[test]
fn command_lines_are_limited_with_room_for_extensions() {
    let mut client = Client::open();
    let noop = |length: usize| format!("NOOP {}\r\n", "x".repeat(length - 7));
    assert_eq!(codes(&client.send(noop(512))), ["250 2.0.0"]);
    assert_eq!(codes(&client.send(noop(513))), ["500 5.5.2"]);
    assert_eq!(codes(&client.send(noop(60_000))), ["500 5.5.2"]);
    assert_eq!(codes(&client.send(noop(100_000))), ["CLOSE 421 4.5.2"]);
    let mut client = Client::open();
    let orcpt = format!("RCPT TO:<c@d> NOTIFY=NEVER ORCPT=rfc822;{}", "x".repeat(490));
    assert!(orcpt.len() > 512);
    assert_eq!(
        codes(&client.lines(&["EHLO x", "MAIL FROM:<a@b>", &orcpt]))[2],
        "250 2.1.5"
    );
}

#[test]
fn bare_line_ends_and_other_protocols_are_refused() {
    let mut client = Client::open();
    assert_eq!(
        codes(&client.send("NOOP\rRSET\r\nNOOP \0\r\nNOOP\r\r\n")),
        ["500 5.5.2"; 3]
    );
    assert_eq!(
        codes(&client.send("NOOP\nMAIL FROM:<a@b>\r\n")),
        ["CLOSE 500 5.5.2"]
    );
    assert_eq!(
        codes(&Client::open().send("GET / HTTP/1.1\r\nNOOP\r\n")),
        ["CLOSE 421 4.7.0"]
    );
}

#[test]
fn non_ascii_needs_smtputf8() {
    let mut client = Client::open();
    client.lines(&["EHLO x"]);
    assert_eq!(
        codes(&client.lines(&["MAIL FROM:<é@b>", "MAIL FROM:<a@b>", "RCPT TO:<é@b>", "RSET"])),
        ["553 5.6.7", "250 2.1.0", "553 5.6.7", "250 2.0.0"]
    );
    assert_eq!(
        codes(&client.lines(&["MAIL FROM:<é@b> SMTPUTF8", "RCPT TO:<é@b>"])),
        ["250 2.1.0", "250 2.1.5"]
    );
    assert_eq!(client.session.protocol().to_string(), "UTF8SMTP");
}

#[test]
fn what_the_caller_does_not_decide_is_deferred() {
    let mut client = Client::open();
    client.lines(&["EHLO x"]);
    assert_eq!(codes(&client.lines(&["MAIL FROM:<silent-a@b>"])), ["451 4.3.0"]);
    client.lines(&["MAIL FROM:<a@b>"]);
    assert_eq!(
        codes(&client.lines(&["RCPT TO:<silent-a@b>", "DATA"])),
        ["451 4.3.0", "503 5.5.1"]
    );
}

#[test]
fn decisions_that_nothing_asked_for_change_nothing() {
    let mut client = Client::open();
    client.session.mail(Ok(()));
    client.session.recipient(Ok(()));
    client.session.authentication(Ok(()));
    client.session.verdict(replies::queued("id"));
    client.session.refuse_message(replies::queued("id"));
    assert_eq!(codes(&client.lines(&["NOOP"])), ["250 2.0.0"]);
    assert!(client.session.user().is_none() && client.session.transaction().is_none());
}

#[test]
fn a_declared_size_over_the_limit_is_refused_at_once() {
    let mut client = Client::open();
    client.lines(&["EHLO x"]);
    assert_eq!(
        codes(&client.lines(&["MAIL FROM:<a@b> SIZE=52428801", "MAIL FROM:<a@b> SIZE=52428800"])),
        ["552 5.3.4", "250 2.1.0"]
    );
}

#[test]
fn requiretls_is_offered_and_taken_inside_tls_only() {
    let mut client = Client::new(config(Tls::Offered));
    let steps = client.lines(&["EHLO x", "MAIL FROM:<a@b> REQUIRETLS"]);
    assert!(!steps[0].contains("REQUIRETLS"));
    assert_eq!(codes(&steps)[1..], ["530 5.7.10"]);
    client.lines(&["STARTTLS"]);
    client.session.tls_established(tls());
    let steps = client.lines(&["EHLO x", "MAIL FROM:<a@b> REQUIRETLS"]);
    assert!(steps[0].contains("REQUIRETLS"));
    assert_eq!(codes(&steps)[1..], ["250 2.1.0"]);
    assert!(
        client
            .session
            .transaction()
            .is_some_and(|transaction| transaction.mail.require_tls)
    );
}
