//! Content by BDAT, and servers that offer it without knowing it.

use super::*;

const CHUNKING: &str = "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n";
const CONTENT: &str = "Received: x\r\n.y\r\n\r\n.\r\n";
const OPENED: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nBDAT 13\r\nReceived: x\r\n";

fn begin(peer: &mut Peer) -> Vec<String> {
    let mut envelope = envelope(&["c@d", "e@f"]);
    envelope.size = CONTENT.len() as u64;
    peer.session.deliver_chunked(envelope, CONTENT.as_bytes());
    peer.says("")
}

fn opened() -> Peer {
    let mut peer = Peer::ready(Dialect::Smtp, CHUNKING);
    assert_eq!(begin(&mut peer), [OPENED]);
    peer
}

/// A session whose server has taken a message in chunks.
fn proved() -> Peer {
    let mut peer = opened();
    assert_eq!(
        peer.says("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n"),
        ["SendBody"]
    );
    assert_eq!(peer.body(CONTENT), "BDAT 9 LAST\r\n.y\r\n\r\n.\r\n");
    assert_eq!(peer.says("250 ok\r\n"), ["delivered 250, delivered 250", "Ready"]);
    peer
}

#[test]
fn the_first_chunk_is_a_harmless_line_and_later_mail_is_one_flight() {
    let mut peer = proved();
    let envelope = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n";
    assert_eq!(begin(&mut peer), [envelope, "SendBody"]);
    assert_eq!(peer.body(CONTENT), format!("BDAT 22 LAST\r\n{CONTENT}"));
    let steps = peer.says("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n");
    assert_eq!(steps, ["delivered 250, permanent 550", "Ready"]);
}

#[test]
fn a_flight_for_nobody_is_reset_whatever_the_server_says_to_its_chunk() {
    for last in ["503 5.5.1 no recipients", "554 5.5.1 no recipients", "451 later"] {
        let mut peer = proved();
        begin(&mut peer);
        peer.body(CONTENT);
        let steps = peer.says(&format!("250 ok\r\n550 no\r\n450 later\r\n{last}\r\n"));
        assert_eq!(steps, ["permanent 550, transient 450", "RSET\r\n"], "{last}");
        assert_eq!(peer.says("250 ok\r\n"), ["Ready"]);
    }
    let mut peer = proved();
    begin(&mut peer);
    peer.body(CONTENT);
    let steps = peer.says("550 no\r\n503 no\r\n503 no\r\n503 no\r\n");
    assert_eq!(steps, ["permanent 550, permanent 550", "Ready"]);
}

#[test]
fn nothing_follows_the_first_chunk_where_nobody_is_accepted() {
    for chunk in ["250 ok", "503 no", "500 what", "452 full"] {
        let mut peer = opened();
        let steps = peer.says(&format!("250 ok\r\n550 no\r\n550 no\r\n{chunk}\r\n"));
        assert_eq!(steps, ["permanent 550, permanent 550", "RSET\r\n"], "{chunk}");
    }
}

#[test]
fn a_server_that_does_not_know_what_it_offers_gets_no_more_than_a_line() {
    // It reads the line as a command, too.
    for said in ["500 what", "502 no\r\n500 what", "503 no\r\n500 what", "354 go"] {
        let mut peer = opened();
        let steps = peer.says(&format!("250 ok\r\n250 ok\r\n250 ok\r\n{said}\r\n"));
        let [step] = &steps[..] else { panic!("{steps:?}") };
        assert!(
            step.starts_with("Failed: CHUNKING is offered, and BDAT was refused"),
            "{step}"
        );
        assert!(
            peer.session.connection_lost().is_empty(),
            "an outcome of a message that was not sent"
        );
    }
    // One that takes the chunk and the line is not believed either.
    let mut peer = opened();
    let steps = peer.says("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n500 what\r\n");
    assert_eq!(steps[0], "transient 451, transient 451");
    assert!(steps[1].contains("answered before it was sent"), "{steps:?}");
}

#[test]
fn another_refusal_of_a_chunk_is_about_the_message() {
    let mut peer = opened();
    let steps = peer.says("250 ok\r\n250 ok\r\n250 ok\r\n552 5.3.4 too large\r\n");
    assert_eq!(steps, ["permanent 552, permanent 552", "RSET\r\n"]);
    let mut peer = proved();
    begin(&mut peer);
    peer.body(CONTENT);
    let steps = peer.says("250 ok\r\n250 ok\r\n250 ok\r\n554 5.6.0 no\r\n");
    assert_eq!(steps, ["permanent 554, permanent 554", "RSET\r\n"]);
}

#[test]
fn what_could_be_taken_for_a_command_opens_no_chunk() {
    for content in [
        "QUIT:\r\nx\r\n",
        "mail: x\r\nx\r\n",
        "MAIL FROM:<a@b>\r\nx\r\n",
        "Received: by\nx\r\n",
        "Received: \0\r\nx\r\n",
        "\r\nReceived: x\r\n",
        "Received: x",
        "Received: x\r\n",
    ] {
        let mut peer = Peer::ready(Dialect::Smtp, CHUNKING);
        let mut envelope = envelope(&["c@d"]);
        envelope.size = content.len() as u64;
        peer.session.deliver_chunked(envelope, content.as_bytes());
        let steps = peer.says("");
        assert_eq!(
            steps,
            ["MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"],
            "{content:?}"
        );
    }
}

#[test]
fn a_mail_store_and_a_large_message_wait() {
    let mut peer = Peer::ready(Dialect::Lmtp, CHUNKING);
    assert!(begin(&mut peer)[0].ends_with("DATA\r\n"));
    let mut peer = proved();
    let mut envelope = envelope(&["c@d"]);
    envelope.size = (64 << 10) + 1;
    peer.session.deliver_chunked(envelope, b"");
    assert_eq!(peer.says(""), ["MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"]);
    assert_eq!(peer.says("250 ok\r\n250 ok\r\n"), ["SendBody"]);
}

#[test]
fn a_chunk_is_never_filled_with_what_is_not_clean() {
    for (size, content, expected) in [
        (5, "a\r\nb\r", ContentError::BareCr),
        (5, "a\nb\r\n", ContentError::BareLf),
        (5, "a\rb\r\n", ContentError::BareCr),
        (5, "a\0b\r\n", ContentError::Nul),
        (4, "ab\r\n.\r\n", ContentError::NotAsAnnounced(4)),
        (9, "ab\r\n.\r\n", ContentError::NotAsAnnounced(9)),
    ] {
        for split in 1..content.len() {
            let mut peer = proved();
            let mut envelope = envelope(&["c@d"]);
            envelope.size = size;
            peer.session.deliver_chunked(envelope, b"");
            peer.says("");
            let mut out = Vec::new();
            let result = content
                .as_bytes()
                .chunks(split)
                .try_for_each(|piece| peer.session.body(piece, &mut out));
            let result = result.and_then(|()| peer.session.end_body(&mut out));
            assert_eq!(result, Err(expected), "{content:?}");
            let sent = out.len().saturating_sub(format!("BDAT {size} LAST\r\n").len()) as u64;
            assert!(
                sent < size || expected == ContentError::NotAsAnnounced(4),
                "{content:?}: a full chunk"
            );
        }
    }
}
