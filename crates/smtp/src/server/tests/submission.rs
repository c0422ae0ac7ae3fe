//! XSUBMIT, by which a gateway passes a submission on.

use super::*;

fn from_gateway(proved: bool) -> Client {
    let mut client = Client::new(config(Tls::Required));
    client.lines(&["EHLO gateway", "STARTTLS"]);
    client.session.tls_established(tls());
    if proved {
        client.session.offer_submission();
    }
    client
}

#[test]
fn it_is_offered_to_who_proved_itself_only() {
    let mut stranger = from_gateway(false);
    let steps = stranger.lines(&["EHLO gateway", "XSUBMIT 192.0.2.1 client"]);
    assert!(!steps[0].contains("XSUBMIT"), "{steps:?}");
    assert!(steps[1].starts_with("500 5.5.2"), "{steps:?}");
    let mut gateway = from_gateway(true);
    assert!(gateway.lines(&["EHLO gateway"])[0].contains("XSUBMIT"));
}

#[test]
fn a_session_that_carries_a_submission_needs_auth() {
    let mut client = from_gateway(true);
    client.lines(&["EHLO gateway"]);
    assert_eq!(
        client.lines(&["XSUBMIT 2001:db8::1 client.example"]),
        ["SUBMIT 2001:db8::1 client.example", "250 2.0.0 Go on with AUTH"]
    );
    assert_eq!(codes(&client.lines(&["MAIL FROM:<a@b>"])), ["530 5.7.0"]);
    assert_eq!(
        codes(&client.lines(&["AUTH PLAIN AGEAd3Jvbmc="])).last().unwrap(),
        "535 5.7.8"
    );
    client.lines(&["AUTH PLAIN AGEAcmlnaHQ="]);
    assert_eq!(codes(&client.lines(&["MAIL FROM:<a@b>"])), ["250 2.1.0"]);
    // Once, and for one client.
    assert_eq!(
        codes(&client.lines(&["RSET", "XSUBMIT 192.0.2.2 x"]))[1..],
        ["500 5.5.2"]
    );
}

#[test]
fn it_comes_after_ehlo_outside_a_transaction_and_names_an_address() {
    let mut client = from_gateway(true);
    assert_eq!(codes(&client.lines(&["XSUBMIT 192.0.2.1 x"])), ["503 5.5.1"]);
    client.lines(&["EHLO gateway"]);
    for wrong in [
        "XSUBMIT",
        "XSUBMIT 192.0.2.1",
        "XSUBMIT client.example x",
        "XSUBMIT 192.0.2.1 a b",
        "XSUBMIT  192.0.2.1 a",
    ] {
        assert_eq!(codes(&client.lines(&[wrong])), ["501 5.5.4"], "{wrong}");
    }
    client.lines(&["MAIL FROM:<a@b>"]);
    assert_eq!(codes(&client.lines(&["XSUBMIT 192.0.2.1 x"])), ["503 5.5.1"]);
}

#[test]
fn a_decision_of_421_ends_the_session() {
    let mut client = from_gateway(true);
    client.lines(&["EHLO gateway"]);
    let mut input = &b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"[..];
    assert!(matches!(client.session.input(&mut input), Step::Mail(_)));
    client.session.mail(Err(replies::inside_gone()));
    assert!(matches!(client.session.input(&mut input), Step::Close(reply) if reply.code.value() == 421));
}
