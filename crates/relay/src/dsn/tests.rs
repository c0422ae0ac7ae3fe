//! Whole notifications as snapshots, and their structure as another program's parser sees it.

use mail_parser::{MessageParser, MimeHeaders};

use super::*;

fn failed() -> Vec<Reported> {
    vec![
        Reported {
            address: "nobody@b.example".into(),
            orcpt: Some("rfc822;list+2Bnobody@lists.example".into()),
            status: "5.1.1".into(),
            remote: Some("mx.b.example".into()),
            reply: "550 5.1.1 no such mailbox\r\nX-Injected: yes".into(),
            action: Action::Failed { expired: false },
        },
        Reported {
            address: "slow@c.example".into(),
            orcpt: None,
            status: "4.4.7".into(),
            remote: None,
            reply: "451 4.4.1 connection refused".into(),
            action: Action::Failed { expired: true },
        },
    ]
}

fn report<'a>(failed: &'a [Reported], returned: Returned<'a>) -> Report<'a> {
    Report {
        reporting_mta: "mx1.example.org",
        postmaster: "postmaster@example.org",
        to: "sender@a.example",
        token: "00112233aabbccdd",
        time: 1_795_163_099_007,
        reverse_path: "sender@a.example",
        envid: Some("QQ314"),
        arrived: 1_795_160_000_000,
        id: "0656c0aa4c6000",
        reported: failed,
        returned,
        withheld: None,
    }
}

#[test]
fn a_notification_to_the_sender() {
    let header = b"From: <sender@a.example>\r\nSubject: Hi\r\n\r\n";
    let message = write(&report(&failed(), Returned::Header(header)));
    insta::assert_snapshot!(String::from_utf8(message).unwrap().replace("\r\n", "\n"));
}

#[test]
fn a_notification_to_the_postmaster_returns_all() {
    let failed = failed();
    let message = b"From: <sender@a.example>\r\n\r\nBody without end";
    let mut report = report(&failed[..1], Returned::Message(message));
    report.to = report.postmaster;
    report.withheld = Some("its address was not proved, and a notification could reach somebody else");
    insta::assert_snapshot!(String::from_utf8(write(&report)).unwrap().replace("\r\n", "\n"));
}

#[test]
fn addresses_beyond_ascii_get_the_global_types() {
    let failed = [Reported {
        address: "bücher@b.example".into(),
        ..failed().remove(0)
    }];
    let message = String::from_utf8(write(&report(&failed, Returned::Header(b"A: b\r\n\r\n")))).unwrap();
    assert!(message.contains("Content-Type: message/global-delivery-status\r\n"));
    assert!(message.contains("Content-Type: message/global-headers\r\n"));
    assert!(message.contains("Final-Recipient: utf-8; bücher@b.example\r\n"));
}

#[test]
fn a_parser_sees_three_parts_and_only_crlf() {
    let header = b"From: <sender@a.example>\r\nSubject: Hi\r\n\r\n";
    let octets = write(&report(&failed(), Returned::Header(header)));
    assert!(postern_smtp::data::check(&octets).is_ok());
    let message = MessageParser::new().parse(&octets).unwrap();
    let kinds: Vec<String> = message.parts[1..]
        .iter()
        .filter_map(|part| {
            part.content_type()
                .map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("")))
        })
        .collect();
    assert_eq!(
        kinds,
        ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    );
    assert!(message.header("X-Injected").is_none());
}

#[test]
fn long_texts_of_others_make_no_line_that_no_host_takes() {
    let long = "x".repeat(990);
    let reported = [Reported {
        orcpt: Some(format!("{long};{long}")),
        remote: Some(long.clone()),
        reply: long.clone(),
        ..failed().remove(0)
    }];
    let mut report = report(&reported, Returned::Header(b"A: b\r\n\r\n"));
    report.reverse_path = &long;
    report.withheld = Some(&long);
    let text = String::from_utf8(write(&report)).unwrap();
    let longest = text.split("\r\n").map(str::len).max();
    assert!(longest <= Some(998), "{longest:?} octets");
}

#[test]
fn delays_and_deliveries_are_told_as_what_they_are() {
    let one = |action, status: &str| Reported {
        action,
        status: status.into(),
        ..failed().remove(0)
    };
    let until = Action::Delayed {
        until: 1_795_500_000_000,
    };
    for (action, lines) in [
        (
            until,
            [
                "Subject: Mail is late and still being tried\r\n",
                "\r\nAction: delayed\r\n",
                "\r\nWill-Retry-Until: Tue, 24 Nov 2026 06:00:00 +0000\r\n",
            ],
        ),
        (
            Action::Relayed,
            [
                "Subject: Mail was delivered\r\n",
                "\r\nAction: relayed\r\n",
                "does not report what becomes of it",
            ],
        ),
    ] {
        let reported = [one(action, "4.4.1")];
        let message =
            String::from_utf8(write(&report(&reported, Returned::Header(b"A: b\r\n\r\n")))).unwrap();
        for line in lines {
            assert!(message.contains(line), "{line} is not in\n{message}");
        }
        assert!(!message.contains("Action: failed"));
    }
}
