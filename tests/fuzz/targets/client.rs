//! A session with a server that answers anything: every recipient has exactly one outcome, and nothing is sent that the
//! envelope does not say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_smtp::client::{Config, Dialect, Envelope, Recipient, Session, Step, Tls};

fuzz_target!(|octets: &[u8]| {
    let Some((&first, octets)) = octets.split_first() else {
        return;
    };
    let tls = [Tls::Never, Tls::IfOffered, Tls::Required][usize::from(first % 3)];
    let mut session = Session::new(Config {
        dialect: Dialect::Smtp,
        helo: "mx.example.org".into(),
        tls,
        pipelining: first % 2 == 0,
    });
    let recipients = 1 + usize::from(first / 3 % 4);
    let mut delivered = false;
    let mut input = octets;
    loop {
        match session.input(&mut input) {
            Step::NeedInput => break,
            Step::Send(sent) => assert!(sent.ends_with(b"\r\n")),
            Step::StartTls => session.tls_established(),
            Step::Ready if delivered => session.quit(),
            Step::Ready => {
                delivered = true;
                session.deliver(Envelope {
                    reverse_path: "a@example.org".parse().expect("a path"),
                    recipients: (0..recipients)
                        .map(|number| Recipient {
                            path: format!("r{number}@example.net").parse().expect("a path"),
                            orcpt: None,
                            notify: None,
                        })
                        .collect(),
                    size: 11,
                    eight_bit: false,
                    smtputf8: false,
                    ret: None,
                    envid: None,
                    require_tls: first & 64 != 0,
                });
            }
            Step::SendBody => {
                let mut out = Vec::new();
                session
                    .body(b"A: 1\r\n\r\n.x\r\n", &mut out)
                    .expect("good content");
                session.end_body(&mut out).expect("good content");
                assert!(out.ends_with(b"\r\n") && !session_is_over_early(&out));
            }
            Step::Done(outcomes) => assert_eq!(outcomes.len(), recipients),
            Step::Failed(_) | Step::Closed => return,
        }
    }
    let left = session.connection_lost();
    assert!(left.is_empty() || left.len() == recipients);
});

/// Whether the end of the content stands anywhere but at its end.
fn session_is_over_early(out: &[u8]) -> bool {
    let end = b"\r\n.\r\n";
    out[..out.len().saturating_sub(1)]
        .windows(end.len())
        .any(|window| window == end)
}
