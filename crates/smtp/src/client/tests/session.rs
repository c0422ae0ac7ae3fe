//! Greeting, EHLO, STARTTLS, QUIT, and what goes wrong with them.

use super::*;

#[test]
fn starttls_and_a_second_ehlo() {
    let mut peer = Peer::new(Dialect::Smtp, Tls::Required);
    assert_eq!(peer.says("220-mx\r\n220 hello\r\n"), ["EHLO client.example\r\n"]);
    assert_eq!(
        peer.says("250-mx\r\n250-DSN\r\n250 STARTTLS\r\n"),
        ["STARTTLS\r\n"]
    );
    assert_eq!(peer.says("220 go\r\n"), ["StartTls"]);
    peer.session.tls_established();
    assert!(!peer.session.extensions().dsn);
    assert_eq!(peer.says(""), ["EHLO client.example\r\n"]);
    assert_eq!(peer.says(HELLO), ["Ready"]);
    assert!(peer.session.is_encrypted());
    assert_eq!(peer.session.extensions().size, Some(1000));
    peer.session.quit();
    assert_eq!(peer.says(""), ["QUIT\r\n"]);
    assert_eq!(peer.says("221 bye\r\n"), ["Closed"]);
}

#[test]
fn required_tls_is_never_done_without() {
    for (wire, failure) in [
        (
            PLAIN_HELLO,
            "Failed: STARTTLS is not offered, and this route requires encryption",
        ),
        ("502 no\r\n", "Failed: our greeting was refused: 502 no"),
    ] {
        let mut peer = Peer::new(Dialect::Smtp, Tls::Required);
        peer.says("220 mx\r\n");
        assert_eq!(peer.says(wire), [failure]);
    }
    let mut peer = Peer::new(Dialect::Smtp, Tls::Required);
    peer.says("220 mx\r\n");
    peer.says("250-mx\r\n250 STARTTLS\r\n");
    assert_eq!(
        peer.says("454 not now\r\n"),
        ["Failed: STARTTLS was refused: 454 not now"]
    );
}

#[test]
fn optional_tls_is_taken_or_left() {
    let mut peer = Peer::new(Dialect::Smtp, Tls::IfOffered);
    peer.says("220 mx\r\n");
    assert_eq!(peer.says(PLAIN_HELLO), ["Ready"]);
    let mut peer = Peer::new(Dialect::Smtp, Tls::IfOffered);
    peer.says("220 mx\r\n");
    assert_eq!(peer.says("250-mx\r\n250 STARTTLS\r\n"), ["STARTTLS\r\n"]);
    assert_eq!(peer.says("454 not now\r\n"), ["Ready"]);
}

#[test]
fn octets_behind_starttls_are_an_attack() {
    let mut peer = Peer::new(Dialect::Smtp, Tls::IfOffered);
    peer.says("220 mx\r\n");
    peer.says("250-mx\r\n250 STARTTLS\r\n");
    let steps = peer.says("220 go\r\n250-mx\r\n250 DSN\r\n");
    assert_eq!(
        steps,
        ["Failed: the server broke the protocol: octets follow the reply to STARTTLS"]
    );
}

#[test]
fn old_servers_get_helo() {
    let mut peer = Peer::new(Dialect::Smtp, Tls::IfOffered);
    peer.says("220 mx\r\n");
    assert_eq!(peer.says("500 what?\r\n"), ["HELO client.example\r\n"]);
    assert_eq!(peer.says("250 mx\r\n"), ["Ready"]);
}

#[test]
fn a_bad_greeting_tells_its_outcome() {
    for (wire, expected) in [
        ("554 no\r\n", "permanent 554"),
        ("421 later\r\n", "transient 421"),
        ("250 odd\r\n", "transient 451"),
        ("hello\r\n", "transient 451"),
    ] {
        let mut peer = Peer::new(Dialect::Smtp, Tls::Never);
        let mut input = wire.as_bytes();
        match peer.session.input(&mut input) {
            Step::Failed(failure) => assert_eq!(outcome(&failure.outcome()), expected, "{wire}"),
            step => panic!("{wire}: {step:?}"),
        }
    }
}

#[test]
fn an_envelope_that_the_server_cannot_take_is_not_sent() {
    let mut utf8 = envelope(&["c@d"]);
    utf8.smtputf8 = true;
    let mut utf8_address = envelope(&["é@d"]);
    utf8_address.size = 0;
    let mut eight_bit = envelope(&["c@d", "e@d"]);
    eight_bit.eight_bit = true;
    let mut protected = envelope(&["c@d"]);
    protected.require_tls = true;
    let mut large = envelope(&["c@d"]);
    large.size = 1001;
    for (hello, envelope, done) in [
        (HELLO, &utf8, "permanent 550"),
        (HELLO, &utf8_address, "permanent 550"),
        (PLAIN_HELLO, &eight_bit, "permanent 554, permanent 554"),
        (HELLO, &protected, "permanent 550"),
        (HELLO, &large, "permanent 552"),
    ] {
        let mut peer = Peer::ready(Dialect::Smtp, hello);
        peer.session.deliver(envelope.clone());
        assert_eq!(peer.says(""), [done, "Ready"]);
    }
}

#[test]
fn no_recipients_need_no_server() {
    let mut peer = Peer::ready(Dialect::Smtp, HELLO);
    peer.session.deliver(envelope(&[]));
    assert_eq!(peer.says(""), ["", "Ready"]);
}

#[test]
fn deliver_before_ready_defers() {
    let mut peer = Peer::new(Dialect::Smtp, Tls::Never);
    peer.session.deliver(envelope(&["c@d"]));
    assert_eq!(peer.says(""), ["transient 451"]);
}
