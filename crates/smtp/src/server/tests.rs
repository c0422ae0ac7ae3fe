use super::*;

mod auth;
mod content;
mod dialogue;
mod splits;
mod submission;

/// The transcript of a session: steps as text, decisions made by the name of the address.
///
/// `no-…` local parts are refused, `later-…` deferred, `silent-…` not decided at all.
struct Client {
    session: Session,
    steps: Vec<String>,
    content: Vec<u8>,
}

impl Client {
    fn new(config: Config) -> Self {
        Self {
            session: Session::new(config),
            steps: Vec::new(),
            content: Vec::new(),
        }
    }

    fn open() -> Self {
        Self::new(config(Tls::Off))
    }

    /// Sends octets and takes steps until there is nothing left to do; gives the new steps.
    fn send(&mut self, octets: impl AsRef<[u8]>) -> Vec<String> {
        let mut input = octets.as_ref();
        let before = self.steps.len();
        loop {
            let step = self.session.input(&mut input);
            let waits = matches!(step, Step::NeedInput | Step::Close(_) | Step::StartTls(_));
            self.take(step);
            if waits {
                return self.steps[before..].to_vec();
            }
        }
    }

    /// Sends lines, and gives the replies only.
    fn lines(&mut self, lines: &[&str]) -> Vec<String> {
        self.send(lines.join("\r\n") + "\r\n")
    }

    fn take(&mut self, step: Step<'_>) {
        let shown = match step {
            Step::NeedInput => return,
            Step::Chunk(octets) => return self.content.extend_from_slice(octets),
            Step::Reply(reply) => wire(&reply),
            Step::StartTls(reply) => format!("TLS {}", wire(&reply)),
            Step::Close(reply) => format!("CLOSE {}", wire(&reply)),
            Step::MessageRefused(reply) => {
                self.content.clear();
                format!("REFUSED {}", wire(&reply))
            }
            Step::MessageStarted => {
                self.content.clear();
                "STARTED".to_owned()
            }
            Step::Auth(credentials) => {
                let right = credentials.password == "right";
                self.session.authentication(if right {
                    Ok(())
                } else {
                    Err(replies::authentication_failed())
                });
                format!("AUTH {:?} {}", credentials.mechanism, credentials.user)
            }
            Step::Submit(submitter) => {
                self.session.submission(Ok(()));
                format!("SUBMIT {} {}", submitter.address, submitter.name)
            }
            Step::Mail(mail) => {
                if let Some(decision) = decide(&mail.path.to_string()) {
                    self.session.mail(decision);
                }
                format!("MAIL {}", mail.path)
            }
            Step::VerifyRecipient(recipient) => {
                if let Some(decision) = decide(&recipient.path.to_string()) {
                    self.session.recipient(decision);
                }
                format!("RCPT {}", recipient.path)
            }
            Step::MessageComplete(message) => {
                let recipients = message.transaction.recipients.len();
                assert_eq!(message.summary.size, self.content.len() as u64);
                self.session.verdict(replies::queued("id"));
                format!("MESSAGE {recipients} {}", self.content.escape_ascii())
            }
        };
        self.steps.push(shown);
    }
}

fn wire(reply: &Reply) -> String {
    String::from_utf8(reply.to_bytes()).unwrap().trim_end().to_owned()
}

fn decide(address: &str) -> Option<Result<(), Reply>> {
    match address.split('-').next() {
        Some("no") => Some(Err(replies::unknown_recipient(address))),
        Some("later") => Some(Err(replies::greylisted(300))),
        Some("silent") => None,
        _ => Some(Ok(())),
    }
}

fn config(tls: Tls) -> Config {
    Config {
        tls,
        ..Config::new("mx.example")
    }
}

fn tls() -> TlsInfo {
    TlsInfo {
        version: "TLSv1.3".into(),
        cipher: "TLS_AES_128_GCM_SHA256".into(),
    }
}

/// The reply code, with the enhanced one, of every step.
fn codes(steps: &[String]) -> Vec<String> {
    let code = |step: &String| -> String {
        let words: Vec<&str> = step.split([' ', '-']).collect();
        let is_code = |word: &&str| word.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !word.is_empty();
        let label = words.iter().take_while(|word| !is_code(word));
        let code = words
            .iter()
            .skip_while(|word| !is_code(word))
            .take_while(|word| is_code(word));
        label.chain(code).copied().collect::<Vec<_>>().join(" ")
    };
    let replies = steps.iter().filter(|step| {
        !["MAIL ", "RCPT ", "AUTH ", "STARTED", "MESSAGE"]
            .iter()
            .any(|label| step.starts_with(label))
    });
    replies.map(code).collect()
}
