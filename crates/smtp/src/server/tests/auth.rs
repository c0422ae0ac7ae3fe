//! AUTH.

use super::*;

fn encrypted(require: bool) -> Client {
    let mut config = config(Tls::Required);
    (config.offer_auth, config.require_auth) = (true, require);
    let mut client = Client::new(config);
    client.lines(&["EHLO x", "STARTTLS"]);
    client.session.tls_established(tls());
    client
}

#[test]
fn auth_is_offered_inside_tls_only() {
    let mut config = config(Tls::Offered);
    config.offer_auth = true;
    let mut client = Client::new(config);
    let steps = client.lines(&["EHLO x", "AUTH PLAIN AGEAcmlnaHQ="]);
    assert!(!steps[0].contains("AUTH"));
    assert_eq!(codes(&steps)[1..], ["538 5.7.11"]);
    client.lines(&["STARTTLS"]);
    client.session.tls_established(tls());
    assert!(client.lines(&["EHLO x"])[0].contains("AUTH PLAIN LOGIN"));
}

#[test]
fn plain_with_and_without_initial_response() {
    for lines in [&["AUTH PLAIN AGEAcmlnaHQ="][..], &["AUTH PLAIN", "AGEAcmlnaHQ="]] {
        let mut client = encrypted(false);
        client.lines(&["EHLO x"]);
        let steps = client.lines(lines);
        assert_eq!(
            steps[steps.len() - 2..],
            ["AUTH Plain a", "235 2.7.0 Authenticated"]
        );
        assert_eq!(client.session.user(), Some("a"));
        assert_eq!(codes(&client.lines(&["AUTH PLAIN AGEAcmlnaHQ="])), ["503 5.5.1"]);
        assert_eq!(client.session.protocol().to_string(), "ESMTPSA");
    }
}

#[test]
fn login_asks_for_user_and_password() {
    let mut client = encrypted(false);
    client.lines(&["EHLO x"]);
    assert_eq!(client.lines(&["AUTH LOGIN"]), ["334 VXNlcm5hbWU6"]);
    assert_eq!(client.lines(&["YQ=="]), ["334 UGFzc3dvcmQ6"]);
    assert_eq!(
        client.lines(&["cmlnaHQ="]),
        ["AUTH Login a", "235 2.7.0 Authenticated"]
    );
}

#[test]
fn wrong_passwords_and_broken_responses_are_refused() {
    let mut client = encrypted(false);
    client.lines(&["EHLO x"]);
    for (lines, code) in [
        (&["AUTH PLAIN AGEAd3Jvbmc="][..], "535 5.7.8"),
        (&["AUTH PLAIN ===="], "501 5.5.2"),
        (&["AUTH PLAIN ="], "501 5.5.2"),
        (&["AUTH PLAIN YQ=="], "501 5.5.2"),
        (&["AUTH PLAIN AAAA"], "501 5.5.2"),
        (&["AUTH PLAIN", "*"], "501 5.7.0"),
        (&["AUTH CRAM-MD5"], "504 5.5.4"),
    ] {
        assert_eq!(codes(&client.lines(lines)).last().unwrap(), code, "{lines:?}");
        assert!(client.session.user().is_none());
    }
}

#[test]
fn an_overlong_response_ends_the_dialogue() {
    let mut client = encrypted(false);
    client.lines(&["EHLO x", "AUTH PLAIN"]);
    assert_eq!(
        codes(&client.lines(&[&"A".repeat(13_000), "NOOP"])),
        ["500 5.5.2", "250 2.0.0"]
    );
}

#[test]
fn mail_needs_auth_where_it_is_required() {
    let mut client = encrypted(true);
    client.lines(&["EHLO x"]);
    assert_eq!(codes(&client.lines(&["MAIL FROM:<a@b>"])), ["530 5.7.0"]);
    client.lines(&["AUTH PLAIN AGEAcmlnaHQ="]);
    assert_eq!(codes(&client.lines(&["MAIL FROM:<a@b>"])), ["250 2.1.0"]);
}

#[test]
fn passwords_are_not_shown() {
    let credentials = Credentials {
        mechanism: Mechanism::Plain,
        authorization_id: String::new(),
        user: "a".into(),
        password: "hidden".into(),
    };
    assert!(!format!("{credentials:?}").contains("hidden"));
}
