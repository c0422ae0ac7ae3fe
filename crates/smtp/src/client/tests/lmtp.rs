//! LMTP: one reply for each accepted recipient after the content (RFC 2033 section 4.2).

use super::*;

fn flight() -> Peer {
    let mut peer = Peer::ready(Dialect::Lmtp, HELLO);
    peer.session.deliver(envelope(&["a@d", "b@d", "c@d"]));
    peer.says("");
    peer
}

#[test]
fn lmtp_greets_with_lhlo() {
    let mut peer = Peer::new(Dialect::Lmtp, Tls::Never);
    assert_eq!(peer.says("220 dovecot\r\n"), ["LHLO client.example\r\n"]);
    assert_eq!(
        peer.says("500 no\r\n"),
        ["Failed: our greeting was refused: 500 no"]
    );
}

#[test]
fn every_accepted_recipient_has_its_reply() {
    let mut peer = flight();
    assert_eq!(
        peer.says("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n"),
        ["SendBody"]
    );
    peer.body("x\r\n");
    assert!(peer.says("250 2.0.0 saved\r\n").is_empty());
    assert_eq!(
        peer.says("452 4.2.2 full\r\n"),
        ["delivered 250, permanent 550, transient 452", "Ready"]
    );
}

#[test]
fn recipients_answered_before_the_break_stay_delivered() {
    let mut peer = flight();
    peer.says("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    peer.body("x\r\n");
    peer.says("250 saved\r\n");
    let outcomes: Vec<String> = peer.session.connection_lost().iter().map(outcome).collect();
    assert_eq!(outcomes, ["delivered 250", "transient 451", "transient 451"]);
}

#[test]
fn a_granted_data_without_recipients_owes_no_reply() {
    let mut peer = flight();
    let steps = peer.says("250 ok\r\n550 no\r\n550 no\r\n550 no\r\n354 go\r\n");
    assert_eq!(
        steps,
        [".\r\n", "permanent 550, permanent 550, permanent 550", "Ready"]
    );
}

#[test]
fn eight_bit_content_needs_no_keyword() {
    let mut peer = Peer::ready(Dialect::Lmtp, PLAIN_HELLO);
    let mut eight_bit = envelope(&["a@d"]);
    eight_bit.eight_bit = true;
    peer.session.deliver(eight_bit);
    assert_eq!(peer.says(""), ["MAIL FROM:<a@b>\r\n"]);
}
