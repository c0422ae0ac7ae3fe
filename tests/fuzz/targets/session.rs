//! A whole session of a client that sends anything: every step makes progress, replies are well-formed, a message that is
//! complete is one that may be passed on, and pieces make no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_smtp::data;
use postern_smtp::replies;
use postern_smtp::server::{Config, Session, Step, Tls, TlsInfo};

/// What was said, and the messages that were taken.
fn serve(octets: &[u8], piece: usize, tls: Tls) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut config = Config::new("mx.example.org");
    config.tls = tls;
    config.offer_auth = tls != Tls::Off;
    let mut session = Session::new(config);
    let (mut out, mut content, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    session.greeting().write_to(&mut out);
    for part in octets.chunks(piece.max(1)) {
        let mut input = part;
        let mut idle = 0;
        loop {
            let before = input.len();
            match session.input(&mut input) {
                Step::NeedInput => break,
                Step::Reply(reply) => reply.write_to(&mut out),
                Step::StartTls(reply) => {
                    reply.write_to(&mut out);
                    session.tls_established(TlsInfo {
                        version: "TLSv1.3".into(),
                        cipher: "X".into(),
                    });
                }
                Step::Auth(credentials) => session.authentication(if credentials.user.is_empty() {
                    Err(replies::authentication_failed())
                } else {
                    Ok(())
                }),
                Step::Submit(_) => session.submission(Ok(())),
                Step::Mail(_) => session.mail(Ok(())),
                Step::VerifyRecipient(_) => session.recipient(Ok(())),
                Step::MessageStarted => content.clear(),
                Step::Chunk(octets) => content.extend_from_slice(octets),
                Step::MessageComplete(message) => {
                    let seen = data::check(&content).expect("what is complete may be passed on");
                    assert_eq!(seen.eight_bit, message.summary.eight_bit);
                    assert!(!message.transaction.recipients.is_empty());
                    messages.push(std::mem::take(&mut content));
                    session.verdict(replies::queued("1"));
                }
                Step::MessageRefused(reply) => {
                    content.clear();
                    reply.write_to(&mut out);
                }
                Step::Close(reply) => {
                    reply.write_to(&mut out);
                    return (out, messages);
                }
            }
            idle = if input.len() < before { 0 } else { idle + 1 };
            assert!(idle < 1000, "steps without progress");
        }
    }
    (out, messages)
}

fuzz_target!(|octets: &[u8]| {
    let Some((&first, octets)) = octets.split_first() else {
        return;
    };
    let tls = [Tls::Off, Tls::Offered, Tls::Required][usize::from(first % 3)];
    let whole = serve(octets, octets.len(), tls);
    assert!(whole.0.ends_with(b"\r\n"));
    for line in whole.0.split_inclusive(|octet| *octet == b'\n') {
        let code = &line[..3];
        assert!(code.iter().all(u8::is_ascii_digit) && line.ends_with(b"\r\n") && line.len() <= 512);
    }
    // A client that sends beyond STARTTLS, or beyond a DATA that is refused, in one piece is caught at it (RFC 2920 section
    // 3.1); in pieces it cannot be. All else is the same.
    if tls == Tls::Off && !whole.0.windows(9).any(|words| words == b"421 4.5.0") {
        assert_eq!(serve(octets, usize::from(first / 3 % 5) + 1, tls), whole);
    }
});
