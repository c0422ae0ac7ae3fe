//! Our client against our server: what is sent is what arrives, whatever is refused and however it is split.

use proptest::prelude::*;

use super::*;
use crate::server;

/// The two sessions, and what the server took.
struct Wire {
    client: Session,
    server: server::Session,
    arrived: Vec<(Vec<String>, Vec<u8>)>,
    content: Vec<u8>,
    greeted: bool,
    bdat: usize,
}

impl Wire {
    /// The server takes octets, in pieces, and answers.
    fn serve(&mut self, octets: &[u8], split: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for mut piece in octets.chunks(split) {
            loop {
                match self.server.input(&mut piece) {
                    server::Step::NeedInput => break,
                    server::Step::Reply(reply) | server::Step::MessageRefused(reply) => {
                        reply.write_to(&mut out);
                    }
                    server::Step::Mail(mail) => self.server.mail(decide(&mail.path.to_string())),
                    server::Step::VerifyRecipient(recipient) => {
                        self.server.recipient(decide(&recipient.path.to_string()));
                    }
                    server::Step::MessageStarted => self.content.clear(),
                    server::Step::Chunk(chunk) => self.content.extend_from_slice(chunk),
                    server::Step::MessageComplete(message) => {
                        let recipients = message.transaction.recipients.iter();
                        let recipients = recipients.map(|recipient| recipient.path.to_string()).collect();
                        self.arrived.push((recipients, self.content.clone()));
                        self.server.verdict(replies::queued("id"));
                    }
                    step => panic!("{step:?}"),
                }
            }
        }
        out
    }

    /// Delivers one message, by chunks where that can be.
    fn deliver(&mut self, envelope: &Envelope, content: &[u8], split: usize, chunks: bool) -> Vec<Outcome> {
        let greeting = self.server.greeting().to_bytes();
        let mut to_client = if self.greeted { Vec::new() } else { greeting };
        let mut sent = false;
        let mut first = std::mem::replace(&mut self.greeted, true);
        loop {
            let replies = std::mem::take(&mut to_client);
            for mut piece in replies.chunks(split).chain([b"".as_slice()]) {
                loop {
                    match self.client.input(&mut piece) {
                        Step::NeedInput => break,
                        Step::Send(octets) => to_client.extend(self.serve(&octets, split)),
                        Step::Ready if !sent => {
                            if chunks {
                                self.client.deliver_chunked(envelope.clone(), content);
                            } else {
                                self.client.deliver(envelope.clone());
                            }
                            sent = true;
                        }
                        Step::SendBody => {
                            let mut out = Vec::new();
                            for part in content.chunks(split) {
                                self.client.body(part, &mut out).unwrap();
                            }
                            self.client.end_body(&mut out).unwrap();
                            self.bdat += usize::from(out.starts_with(b"BDAT "));
                            to_client.extend(self.serve(&out, split));
                        }
                        Step::Done(outcomes) => return outcomes,
                        step => panic!("{step:?}"),
                    }
                }
            }
            assert!(
                !to_client.is_empty() || std::mem::take(&mut first),
                "both sides wait"
            );
        }
    }
}

fn decide(address: &str) -> Result<(), Reply> {
    match address.split('-').next() {
        Some("no") => Err(replies::unknown_recipient(address)),
        Some("later") => Err(replies::greylisted(1)),
        _ => Ok(()),
    }
}

fn wire(pipelining: bool) -> Wire {
    let mut config = server::Config::new("mx.example");
    config.tls = server::Tls::Off;
    config.limits.errors = 1000;
    let client = Config {
        dialect: Dialect::Smtp,
        helo: "client.example".into(),
        tls: Tls::IfOffered,
        pipelining,
    };
    Wire {
        client: Session::new(client),
        server: server::Session::new(config),
        arrived: Vec::new(),
        content: Vec::new(),
        greeted: false,
        bdat: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_sent_arrives(
        sender in prop_oneof![5 => Just("a@b"), 1 => Just("no-a@b"), 1 => Just("")],
        kinds in proptest::collection::vec(prop_oneof![3 => Just("ok"), 1 => Just("no"), 1 => Just("later")], 1..50),
        lines in proptest::collection::vec("[.]{0,2}[ -~é]{0,30}", 0..20),
        pipelining: bool,
        chunks: bool,
        split in 1usize..200,
    ) {
        let addresses: Vec<String> = kinds.iter().enumerate().map(|(n, kind)| format!("{kind}-{n}@d")).collect();
        let content = lines.iter().map(|line| line.to_owned() + "\r\n").collect::<Vec<_>>().concat();
        let content = format!("Received: by us\r\n{content}");
        let mut envelope = envelope(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
        envelope.reverse_path = sender.parse().unwrap();
        envelope.size = content.len() as u64;
        envelope.eight_bit = !content.is_ascii();
        let mut wire = wire(pipelining);
        let outcomes = wire.deliver(&envelope, content.as_bytes(), split, chunks);

        prop_assert_eq!(outcomes.len(), addresses.len());
        let refused = sender.starts_with("no");
        for (outcome, kind) in outcomes.iter().zip(&kinds) {
            let expected = match (refused, *kind) {
                (true, _) | (_, "no") => matches!(outcome, Outcome::Permanent(_)),
                (_, "later") => matches!(outcome, Outcome::Transient(_)),
                _ => matches!(outcome, Outcome::Delivered(reply) if reply.text() == "queued as id"),
            };
            prop_assert!(expected, "{} {:?}", kind, outcome);
        }
        let accepted: Vec<String> = addresses.iter().filter(|a| a.starts_with("ok")).cloned().collect();
        let taken = !refused && !accepted.is_empty();
        let expected = if taken { vec![(accepted, content.clone().into_bytes())] } else { vec![] };
        prop_assert_eq!(&wire.arrived, &expected);

        // The next message over the same session: the server may have shown that it knows BDAT.
        let again = wire.deliver(&envelope, content.as_bytes(), split, chunks);
        prop_assert_eq!(again, outcomes);
        prop_assert_eq!(wire.arrived, [expected.clone(), expected].concat());
        prop_assert_eq!(wire.bdat, if chunks && taken && !lines.is_empty() { 2 } else { 0 });
    }
}
