use super::*;
use crate::address::{ForwardPath, ReversePath};

mod chunking;
mod lmtp;
mod login;
mod session;
mod together;
mod transaction;

const HELLO: &str = "250-mx\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 DSN\r\n";
const PLAIN_HELLO: &str = "250 mx\r\n";

/// A client whose server is the test itself: every call gives what the server says, and returns the steps.
struct Peer {
    session: Session,
}

impl Peer {
    fn new(dialect: Dialect, tls: Tls) -> Self {
        let config = Config {
            dialect,
            helo: "client.example".into(),
            tls,
            pipelining: true,
        };
        Self {
            session: Session::new(config),
        }
    }

    /// A session that is ready, without TLS.
    fn ready(dialect: Dialect, hello: &str) -> Self {
        let mut peer = Self::new(dialect, Tls::Never);
        peer.says("220 mx ESMTP\r\n");
        assert_eq!(peer.says(hello), ["Ready"]);
        peer
    }

    /// The server says; the steps up to the next that waits for somebody.
    fn says(&mut self, wire: &str) -> Vec<String> {
        let mut input = wire.as_bytes();
        let mut steps = Vec::new();
        loop {
            let step = self.session.input(&mut input);
            let waits = !matches!(step, Step::Send(_) | Step::Done(_));
            let shown = match step {
                Step::NeedInput => return steps,
                Step::Send(octets) => String::from_utf8(octets).unwrap(),
                Step::Done(outcomes) => outcomes.iter().map(outcome).collect::<Vec<_>>().join(", "),
                Step::Failed(failure) => format!("Failed: {failure}"),
                other => format!("{other:?}"),
            };
            steps.push(shown);
            if waits {
                return steps;
            }
        }
    }

    fn body(&mut self, content: &str) -> String {
        let mut out = Vec::new();
        self.session.body(content.as_bytes(), &mut out).unwrap();
        self.session.end_body(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }
}

fn outcome(outcome: &Outcome) -> String {
    let kind = match outcome {
        Outcome::Delivered(_) => "delivered",
        Outcome::Transient(_) => "transient",
        Outcome::Permanent(_) => "permanent",
    };
    format!("{kind} {}", outcome.reply().code)
}

fn recipient(address: &str) -> Recipient {
    Recipient {
        path: address.parse::<ForwardPath>().unwrap(),
        notify: None,
        orcpt: None,
    }
}

fn envelope(recipients: &[&str]) -> Envelope {
    Envelope {
        reverse_path: "a@b".parse::<ReversePath>().unwrap(),
        recipients: recipients.iter().map(|address| recipient(address)).collect(),
        size: 10,
        eight_bit: false,
        smtputf8: false,
        require_tls: false,
        ret: None,
        envid: None,
    }
}
