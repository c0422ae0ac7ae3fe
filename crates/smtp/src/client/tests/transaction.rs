//! MAIL to the last reply, with and without PIPELINING.

use super::*;

const FLIGHT: &str = "MAIL FROM:<a@b> SIZE=10\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n";

fn flight() -> Peer {
    let mut peer = Peer::ready(Dialect::Smtp, HELLO);
    peer.session.deliver(envelope(&["c@d", "e@f"]));
    assert_eq!(peer.says(""), [FLIGHT]);
    peer
}

#[test]
fn one_flight_and_one_reply_for_all() {
    let mut peer = flight();
    assert_eq!(
        peer.says("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
        ["SendBody"]
    );
    assert_eq!(peer.body("x\r\n.y\r\n"), "x\r\n..y\r\n.\r\n");
    assert_eq!(
        peer.says("250 2.0.0 queued as 7\r\n"),
        ["delivered 250, delivered 250", "Ready"]
    );
}

#[test]
fn refused_recipients_keep_their_own_reply() {
    let mut peer = flight();
    assert_eq!(
        peer.says("250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n"),
        ["SendBody"]
    );
    peer.body("x\r\n");
    assert_eq!(
        peer.says("451 later\r\n"),
        ["permanent 550, transient 451", "Ready"]
    );
}

#[test]
fn without_pipelining_each_command_waits() {
    let mut peer = Peer::ready(Dialect::Smtp, PLAIN_HELLO);
    peer.session.deliver(envelope(&["c@d", "e@f"]));
    assert_eq!(peer.says(""), ["MAIL FROM:<a@b>\r\n"]);
    assert_eq!(peer.says("250 ok\r\n"), ["RCPT TO:<c@d>\r\n"]);
    assert_eq!(peer.says("450 later\r\n"), ["RCPT TO:<e@f>\r\n"]);
    assert_eq!(peer.says("250 ok\r\n"), ["DATA\r\n"]);
    assert_eq!(peer.says("354 go\r\n"), ["SendBody"]);
    peer.body("x\r\n");
    assert_eq!(peer.says("250 ok\r\n"), ["transient 450, delivered 250", "Ready"]);
}

#[test]
fn a_refused_sender_is_every_recipients_outcome() {
    let mut peer = flight();
    let steps = peer.says("550 5.7.1 no\r\n503 no\r\n503 no\r\n503 no\r\n");
    assert_eq!(steps, ["permanent 550, permanent 550", "Ready"]);
    let mut peer = Peer::ready(Dialect::Smtp, PLAIN_HELLO);
    peer.session.deliver(envelope(&["c@d", "e@f"]));
    peer.says("");
    assert_eq!(
        peer.says("451 later\r\n"),
        ["transient 451, transient 451", "Ready"]
    );
}

#[test]
fn no_recipient_left_means_no_content() {
    let mut peer = flight();
    let steps = peer.says("250 ok\r\n550 no\r\n450 later\r\n503 no\r\n");
    assert_eq!(steps, ["permanent 550, transient 450", "RSET\r\n"]);
    assert_eq!(peer.says("250 ok\r\n"), ["Ready"]);
    let mut peer = Peer::ready(Dialect::Smtp, PLAIN_HELLO);
    peer.session.deliver(envelope(&["c@d"]));
    peer.says("");
    peer.says("250 ok\r\n");
    assert_eq!(peer.says("550 no\r\n"), ["permanent 550", "RSET\r\n"]);
}

/// RFC 2920 section 3.1: a server may grant DATA though no recipient is left; nothing must be delivered.
#[test]
fn a_granted_data_without_recipients_is_ended_by_a_dot() {
    let mut peer = flight();
    assert_eq!(peer.says("250 ok\r\n550 no\r\n550 no\r\n354 go\r\n"), [".\r\n"]);
    assert_eq!(
        peer.says("250 taken\r\n"),
        ["permanent 550, permanent 550", "Ready"]
    );
}

#[test]
fn a_refused_data_is_the_outcome_of_the_accepted() {
    let mut peer = flight();
    let steps = peer.says("250 ok\r\n250 ok\r\n550 no\r\n451 later\r\n");
    assert_eq!(steps, ["transient 451, permanent 550", "RSET\r\n"]);
    let mut peer = flight();
    let steps = peer.says("250 ok\r\n250 ok\r\n250 ok\r\n250 what?\r\n");
    assert_eq!(steps[0], "transient 451, transient 451");
}

#[test]
fn a_server_that_closes_leaves_the_rest_to_be_tried_again() {
    let mut peer = flight();
    let steps = peer.says("250 ok\r\n550 no\r\n421 closing\r\n");
    assert_eq!(steps, ["permanent 550, transient 421", "Closed"]);
}

#[test]
fn a_broken_connection_delivers_nobody() {
    let mut peer = flight();
    peer.says("250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n");
    peer.body("x\r\n");
    let outcomes: Vec<String> = peer.session.connection_lost().iter().map(outcome).collect();
    assert_eq!(outcomes, ["permanent 550", "transient 451"]);
    assert!(peer.session.connection_lost().is_empty());
    assert_eq!(peer.says(""), ["Closed"]);
}

#[test]
fn a_broken_protocol_delivers_nobody() {
    for wire in [
        "250 ok\r\nhello\r\n",
        "250 ok\n",
        "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n",
    ] {
        let steps = flight().says(wire);
        assert_eq!(steps[0], "transient 451, transient 451", "{wire}");
        assert!(
            steps[1].starts_with("Failed: the server broke the protocol"),
            "{wire}"
        );
    }
}

#[test]
fn content_with_a_bare_line_end_is_not_sent() {
    let mut peer = flight();
    peer.says("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    let mut out = Vec::new();
    assert_eq!(
        peer.session.body(b"x\n.\r\n", &mut out),
        Err(ContentError::BareLf)
    );
    assert!(!out.contains(&b'\n'));
}

#[test]
fn verification_sends_no_content() {
    let mut peer = Peer::ready(Dialect::Smtp, HELLO);
    peer.session.verify(envelope(&["c@d", "e@f"]));
    assert_eq!(peer.says(""), [FLIGHT.strip_suffix("DATA\r\n").unwrap()]);
    let steps = peer.says("250 ok\r\n250 2.1.5 ok\r\n550 5.1.1 no\r\n");
    assert_eq!(steps, ["delivered 250, permanent 550", "RSET\r\n"]);
    assert_eq!(peer.says("250 ok\r\n"), ["Ready"]);
}

#[test]
fn parameters_go_where_they_are_offered() {
    let mut full = envelope(&["c@d"]);
    full.eight_bit = true;
    full.ret = Some(crate::dsn::Ret::Headers);
    full.envid = Some("a b".into());
    full.recipients[0].notify = "NEVER".parse().ok();
    full.recipients[0].orcpt = "rfc822;x+2By@z".parse().ok();
    let mut peer = Peer::ready(Dialect::Smtp, HELLO);
    peer.session.deliver(full.clone());
    assert_eq!(
        peer.says(""),
        ["MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=a+20b\r\n\
          RCPT TO:<c@d> NOTIFY=NEVER ORCPT=rfc822;x+2By@z\r\nDATA\r\n"]
    );
    full.reverse_path = ReversePath::Null;
    let mut peer = Peer::ready(
        Dialect::Smtp,
        "250-mx\r\n250-8BITMIME\r\n250-REQUIRETLS\r\n250 SMTPUTF8\r\n",
    );
    full.smtputf8 = true;
    full.require_tls = true;
    peer.session.deliver(full);
    assert_eq!(
        peer.says(""),
        ["MAIL FROM:<> BODY=8BITMIME SMTPUTF8 REQUIRETLS\r\n"]
    );
}

#[test]
fn too_many_recipients_by_552_are_tried_again() {
    let mut peer = flight();
    let steps = peer.says("250 ok\r\n552 too many\r\n552 5.2.2 full\r\n503 no\r\n");
    assert_eq!(steps[0], "transient 552, permanent 552");
}

#[test]
fn recipients_beyond_the_servers_limit_are_left_for_the_next_transaction() {
    let limited = |limits: &str| {
        let mut peer = Peer::ready(
            Dialect::Smtp,
            &format!("250-mx\r\n250-PIPELINING\r\n250 LIMITS {limits}\r\n"),
        );
        peer.session.deliver(envelope(&[
            "a@one.example",
            "b@one.example",
            "c@two.example",
            "d@ONE.example",
        ]));
        let sent = peer.says("").concat();
        sent.lines()
            .filter_map(|line| line.strip_prefix("RCPT TO:<"))
            .map(|path| path[..1].to_owned())
            .collect::<String>()
    };
    assert_eq!(limited("RCPTMAX=2"), "ab");
    assert_eq!(limited("MAILMAX=9 rcptmax=3"), "abc");
    assert_eq!(limited("RCPTDOMAINMAX=1"), "abd");
    for nothing in [
        "RCPTMAX",
        "RCPTMAX=0",
        "RCPTMAX=02",
        "RCPTMAX=1000000",
        "RCPTMAX=2x",
        "OTHER=1",
    ] {
        assert_eq!(limited(nothing), "abcd", "{nothing}");
    }
    let mut peer = Peer::ready(
        Dialect::Smtp,
        "250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=1\r\n",
    );
    peer.session.deliver(envelope(&["a@d", "b@d"]));
    peer.says("");
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n");
    let (mut out, session) = (Vec::new(), &mut peer.session);
    session.body(b"x\r\n", &mut out).unwrap();
    session.end_body(&mut out).unwrap();
    assert_eq!(peer.says("250 taken\r\n")[0], "delivered 250, transient 452");
}

#[test]
fn a_refused_sender_is_refused_for_those_of_the_next_transaction_too() {
    let mut peer = Peer::ready(
        Dialect::Smtp,
        "250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=1\r\n",
    );
    peer.session.deliver(envelope(&["a@d", "b@d"]));
    peer.says("");
    let steps = peer.says("550 5.7.1 not you\r\n503 no\r\n503 no\r\n");
    assert_eq!(steps[0], "permanent 550, permanent 550");
}

#[test]
fn what_is_one_too_many() {
    let is = |line: &str| {
        let mut peer = flight();
        peer.says(&format!("250 ok\r\n250 ok\r\n{line}\r\n354 go\r\n"));
        peer.session.connection_lost()[1].is_one_too_many()
    };
    for line in [
        "452 too many",
        "452 4.5.3 too many",
        "552 too many",
        "552 5.5.3 too many",
    ] {
        assert!(is(line), "{line}");
    }
    for line in [
        "452 4.2.2 full",
        "452 4.3.1 full",
        "451 4.5.3 later",
        "550 5.5.3 no",
        "250 ok",
    ] {
        assert!(!is(line), "{line}");
    }
}

#[test]
fn flights_are_bounded() {
    let many: Vec<String> = (0..100).map(|n| format!("r{n}@d")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut peer = Peer::ready(Dialect::Smtp, HELLO);
    peer.session.deliver(envelope(&many));
    let first = peer.says("");
    assert_eq!(first[0].lines().count(), super::super::transaction::WINDOW);
    let mut sent = first.concat();
    while !sent.ends_with("DATA\r\n") {
        sent += &peer.says("250 ok\r\n").concat();
    }
    assert_eq!(sent.lines().count(), 102);
}
