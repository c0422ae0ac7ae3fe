use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn received<'a>() -> Received<'a> {
    Received {
        helo: "client.example",
        peer: "192.0.2.7".parse().unwrap(),
        peer_name: None,
        by: "mx1.example.org",
        protocol: Protocol {
            esmtp: true,
            ..Protocol::default()
        },
        tls: None,
        id: "abc-1",
        recipient: None,
        time: UNIX_EPOCH + Duration::from_secs(1_795_163_573),
    }
}

#[test]
fn a_full_received_field() {
    let tls = TlsInfo {
        version: "TLSv1.3".into(),
        cipher: "TLS_AES_256_GCM_SHA384".into(),
    };
    let recipient: ForwardPath = "user@example.org".parse().unwrap();
    let field = Received {
        peer_name: Some("host.client.example"),
        protocol: Protocol {
            esmtp: true,
            tls: true,
            authenticated: true,
            utf8: false,
        },
        tls: Some(&tls),
        recipient: Some(&recipient),
        ..received()
    };
    assert_eq!(
        field.header(),
        "Received: from client.example (host.client.example [192.0.2.7])\r\n\
         \tby mx1.example.org with ESMTPSA\r\n\
         \t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\
         \tid abc-1\r\n\
         \tfor <user@example.org>;\r\n\
         \tFri, 20 Nov 2026 08:32:53 +0000\r\n"
    );
}

#[test]
fn protocols_have_their_registered_names() {
    let name = |esmtp, tls, authenticated, utf8| {
        Protocol {
            esmtp,
            tls,
            authenticated,
            utf8,
        }
        .to_string()
    };
    assert_eq!(name(false, true, false, false), "SMTP");
    assert_eq!(name(true, false, false, false), "ESMTP");
    assert_eq!(name(true, true, false, false), "ESMTPS");
    assert_eq!(name(true, false, true, false), "ESMTPA");
    assert_eq!(name(true, true, true, false), "ESMTPSA");
    assert_eq!(name(true, false, false, true), "UTF8SMTP");
    assert_eq!(name(true, true, true, true), "UTF8SMTPSA");
}

#[test]
fn a_peer_cannot_forge_header_through_its_names() {
    for helo in [
        "a\r\nX-Forged: 1",
        "a) by evil (",
        "a;b",
        "é.example",
        "[10.0.0.1",
        "a b",
    ] {
        let field = Received {
            helo,
            peer_name: Some("evil)\r\nX: (y"),
            ..received()
        }
        .header();
        assert!(
            field.starts_with("Received: from unknown (evil???X:??y [192.0.2.7])\r\n\tby "),
            "{field}"
        );
        assert_eq!(field.matches("\r\n").count(), field.matches("\r\n\t").count() + 1);
    }
    let literal = Received {
        helo: "[192.0.2.7]",
        peer: "2001:db8::1".parse().unwrap(),
        ..received()
    };
    assert!(
        literal
            .header()
            .starts_with("Received: from [192.0.2.7] ([IPv6:2001:db8::1])\r\n")
    );
}

#[test]
fn non_ascii_stands_only_where_smtputf8_was_given() {
    let recipient: ForwardPath = "é@example.org".parse().unwrap();
    let field = |utf8| {
        let protocol = Protocol {
            esmtp: true,
            utf8,
            ..Protocol::default()
        };
        Received {
            helo: "é.example",
            recipient: Some(&recipient),
            protocol,
            ..received()
        }
        .header()
    };
    assert!(field(false).is_ascii());
    assert!(field(true).contains("from é.example") && field(true).contains("for <é@example.org>"));
}

#[test]
fn return_path_takes_null_and_quotes() {
    assert_eq!(return_path(&ReversePath::Null), "Return-Path: <>\r\n");
    assert_eq!(
        return_path(&"\"a b\"@c".parse().unwrap()),
        "Return-Path: <\"a b\"@c>\r\n"
    );
}

/// Expected values by GNU date.
#[test]
fn dates_follow_the_calendar() {
    for (seconds, expected) in [
        (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
        (951_868_799, "Tue, 29 Feb 2000 23:59:59 +0000"),
        (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 +0000"),
        (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 +0000"),
        (4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000"),
        (13_574_563_200, "Tue, 29 Feb 2400 00:00:00 +0000"),
    ] {
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
    }
}
