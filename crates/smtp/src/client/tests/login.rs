//! AUTH, and what keeps us from it.

use super::*;

const PLAIN: &str = "AUTH PLAIN AGFwcABzM2NyZXQ=\r\n";

fn peer(tls: Tls) -> Peer {
    let Peer { session } = Peer::new(Dialect::Smtp, tls);
    let login = Login::new("app", "s3cret").unwrap();
    Peer {
        session: session.with_login(Some(login)),
    }
}

/// Behind STARTTLS, with this offer there.
fn encrypted(offer: &str) -> (Peer, Vec<String>) {
    let mut peer = peer(Tls::Required);
    peer.says("220 mx\r\n");
    // What is offered in clear is not listened to.
    assert_eq!(
        peer.says("250-mx\r\n250-AUTH LOGIN PLAIN\r\n250 STARTTLS\r\n"),
        ["STARTTLS\r\n"]
    );
    assert_eq!(peer.says("220 go\r\n"), ["StartTls"]);
    peer.session.tls_established();
    let steps = peer.says(offer);
    (peer, steps)
}

#[test]
fn plain_goes_before_login() {
    let (mut peer, steps) = encrypted("250-mx\r\n250 AUTH LOGIN CRAM-MD5 plain\r\n");
    assert_eq!(steps, ["EHLO client.example\r\n", PLAIN]);
    assert_eq!(peer.says("235 2.7.0 welcome\r\n"), ["Ready"]);
}

#[test]
fn login_is_said_in_two_parts() {
    let (mut peer, steps) = encrypted("250-mx\r\n250 AUTH LOGIN\r\n");
    assert_eq!(steps[1], "AUTH LOGIN\r\n");
    assert_eq!(peer.says("334 VXNlcm5hbWU6\r\n"), ["YXBw\r\n"]);
    assert_eq!(peer.says("334 UGFzc3dvcmQ6\r\n"), ["czNjcmV0\r\n"]);
    assert_eq!(peer.says("334 more\r\n"), ["*\r\n"]);
    assert!(
        peer.says("501 5.7.0 given up\r\n")[0]
            .starts_with("Failed: it refuses our login (501 5.7.0 given up)")
    );
}

#[test]
fn a_refused_login_is_nobodys_bounce() {
    for reply in ["535 5.7.8 wrong", "454 4.7.0 later", "550 no"] {
        let (mut peer, _) = encrypted("250-mx\r\n250 AUTH PLAIN\r\n");
        let steps = peer.says(&format!("{reply}\r\n"));
        assert_eq!(
            steps,
            [format!(
                "Failed: it refuses our login ({reply}); mend user and password"
            )]
        );
        let mut rest = &b""[..];
        let Step::Failed(failure) = peer.session.input(&mut rest) else {
            panic!()
        };
        let outcome = failure.outcome();
        assert!(matches!(&outcome, Outcome::Transient(reply) if reply.to_string().starts_with("454 4.7.8 ")));
    }
}

#[test]
fn a_password_is_never_sent_in_clear() {
    for tls in [Tls::Never, Tls::IfOffered] {
        let mut peer = peer(tls);
        peer.says("220 mx\r\n");
        let steps = peer.says("250-mx\r\n250 AUTH PLAIN LOGIN\r\n");
        assert!(steps[0].contains("never sent in clear"), "{steps:?}");
        let mut peer = self::peer(tls);
        peer.says("220 mx\r\n");
        let steps = [peer.says("502 what\r\n"), peer.says("250 mx\r\n")].concat();
        assert!(steps[1].contains("never sent in clear"), "{steps:?}");
    }
    let mut refusing = peer(Tls::IfOffered);
    refusing.says("220 mx\r\n");
    refusing.says("250-mx\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n");
    let steps = refusing.says("454 not now\r\n");
    assert!(steps[0].contains("never sent in clear"), "{steps:?}");
}

#[test]
fn a_server_without_a_mechanism_of_ours_is_named() {
    let (_, steps) = encrypted("250-mx\r\n250 AUTH CRAM-MD5\r\n");
    assert!(
        steps[1].contains("offers neither AUTH PLAIN nor AUTH LOGIN"),
        "{steps:?}"
    );
}

#[test]
fn over_implicit_tls_the_login_follows_the_greeting() {
    let config = Config {
        dialect: Dialect::Smtp,
        helo: "client.example".into(),
        tls: Tls::Never,
        pipelining: true,
    };
    let login = Login::new("app", "s3cret").unwrap();
    let session = Session::over_tls(config).with_login(Some(login));
    let mut peer = Peer { session };
    peer.says("220 mx\r\n");
    assert_eq!(peer.says("250-mx\r\n250 AUTH PLAIN\r\n"), [PLAIN]);
}

#[test]
fn a_login_is_shown_without_its_password() {
    assert!(!format!("{:?}", Login::new("app", "s3cret").unwrap()).contains("s3cret"));
    assert_eq!(Login::new("app", ""), Err(BadLogin::Empty));
    assert_eq!(Login::new("app", "a\0b"), Err(BadLogin::Control));
}
