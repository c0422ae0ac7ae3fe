//! DATA and BDAT inside a session.

use super::*;

fn ready(config: Config) -> Client {
    let mut client = Client::new(config);
    client.lines(&["EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"]);
    client
}

#[test]
fn a_refused_message_swallows_what_it_tried_to_smuggle() {
    let mut client = ready(config(Tls::Off));
    client.lines(&["DATA"]);
    let steps = client.send("x\n.\r\nMAIL FROM:<admin@b>\r\nRCPT TO:<v@d>\r\nDATA\r\ny\r\n.\r\nNOOP\r\n");
    assert_eq!(codes(&steps), ["REFUSED 554 5.6.0", "250 2.0.0"]);
    assert!(client.session.transaction().is_none());
}

#[test]
fn the_transaction_can_be_named_until_the_next_step() {
    let mut client = ready(config(Tls::Off));
    client.lines(&["DATA"]);
    let mut input: &[u8] = b"\0\r\n.\r\n";
    assert!(matches!(
        client.session.input(&mut input),
        Step::MessageRefused(_)
    ));
    assert_eq!(client.session.transaction().unwrap().recipients.len(), 1);
    client.lines(&["NOOP"]);
    assert!(client.session.transaction().is_none());
}

#[test]
fn a_message_over_the_limits_is_refused_and_beyond_them_given_up() {
    let mut small = config(Tls::Off);
    (small.limits.message_size, small.limits.discard) = (20, 20);
    let mut client = ready(small.clone());
    client.lines(&["DATA"]);
    assert_eq!(
        codes(&client.send("0123456789\r\n0123456789\r\n.\r\nNOOP\r\n")),
        ["REFUSED 552 5.3.4", "250 2.0.0"]
    );
    let mut client = ready(small);
    client.lines(&["DATA"]);
    assert_eq!(
        codes(&client.send("0123456789\r\n".repeat(4))),
        ["CLOSE 552 5.3.4"]
    );
}

#[test]
fn loops_are_refused() {
    let mut client = ready(config(Tls::Off));
    client.lines(&["DATA"]);
    let header = "Received: from a by b\r\n".repeat(51);
    assert_eq!(
        codes(&client.send(format!("{header}\r\n.\r\n"))),
        ["REFUSED 554 5.4.6"]
    );
}

#[test]
fn content_sent_ahead_of_a_refused_data_closes_the_connection() {
    let mut client = Client::open();
    let steps = client.lines(&[
        "EHLO x",
        "MAIL FROM:<a@b>",
        "RCPT TO:<no-c@d>",
        "DATA",
        "MAIL FROM:<forged@b>",
        ".",
    ]);
    assert_eq!(codes(&steps)[3..], ["CLOSE 421 4.5.0"]);
}

#[test]
fn the_caller_can_refuse_a_message_before_its_content() {
    let mut client = ready(config(Tls::Off));
    for (command, code) in [
        ("DATA\r\n", "451 4.7.1"),
        ("BDAT 6 LAST\r\nNOOP\r\n", "451 4.7.1"),
    ] {
        client.lines(&["RSET", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"]);
        let mut input = command.as_bytes();
        assert_eq!(client.session.input(&mut input), Step::MessageStarted);
        client.session.refuse_message(replies::greylisted(300));
        assert_eq!(codes(&client.send(input)), [code]);
        assert!(client.session.transaction().is_none());
    }
}

#[test]
fn chunks_make_a_message() {
    let mut client = ready(config(Tls::Off));
    let steps = client.send("BDAT 6\r\na\r\n.\r\nBDAT 3\r\n\r\nbBDAT 0 LAST\r\nNOOP\r\n");
    assert_eq!(
        steps,
        [
            "STARTED",
            "250 2.0.0 6 octets taken",
            "250 2.0.0 3 octets taken",
            "MESSAGE 1 a\\r\\n.\\r\\n\\r\\nb\\r\\n",
            "250 2.0.0 queued as id",
            "250 2.0.0 Nothing done",
        ]
    );
}

#[test]
fn chunks_and_data_do_not_mix() {
    let mut client = ready(config(Tls::Off));
    client.send("BDAT 3\r\na\r\n");
    assert_eq!(codes(&client.lines(&["DATA"])), ["503 5.5.1"]);
    assert_eq!(codes(&client.lines(&["RCPT TO:<e@d>"])), ["503 5.5.1"]);
    assert_eq!(
        codes(&client.lines(&["RSET", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"])),
        ["250 2.0.0", "250 2.1.0", "250 2.1.5", "354"]
    );
}

#[test]
fn unwanted_chunks_are_never_commands() {
    let mut client = Client::new(config(Tls::Required));
    assert_eq!(
        codes(&client.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")),
        ["530 5.7.0", "250 2.0.0"]
    );
    let mut client = Client::open();
    assert_eq!(
        codes(&client.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")),
        ["503 5.5.1", "250 2.0.0"]
    );
    let mut client = ready(config(Tls::Off));
    let steps = client.send("BDAT 8\r\na\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    assert_eq!(codes(&steps), ["REFUSED 554 5.6.0", "503 5.5.1", "250 2.0.0"]);
}

#[test]
fn chunks_without_a_known_or_bearable_size_close_the_connection() {
    for (command, code) in [
        ("BDAT x LAST", "CLOSE 501 5.5.4"),
        ("BDAT 104857601", "CLOSE 552 5.3.4"),
    ] {
        let mut client = ready(config(Tls::Off));
        assert_eq!(codes(&client.lines(&[command, "NOOP"])), [code]);
    }
}

#[test]
fn a_verdict_that_is_not_given_defers() {
    let mut client = ready(config(Tls::Off));
    client.lines(&["DATA"]);
    let mut input: &[u8] = b".\r\n";
    assert!(matches!(
        client.session.input(&mut input),
        Step::MessageComplete(_)
    ));
    assert_eq!(codes(&client.send("")), ["451 4.3.0"]);
}
