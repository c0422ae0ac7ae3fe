//! One transaction of a client: which command comes next, whose the reply is, what became of each recipient.

use std::collections::VecDeque;

use super::types::counts_recipients;
use super::{Dialect, Envelope, Extensions, Outcome, Recipient};
use crate::bdat;
use crate::content::ContentError;
use crate::data::Stuffer;
use crate::dsn::xtext;
use crate::replies;
use crate::reply::Reply;

/// Commands without a reply, with PIPELINING: the replies must fit into the buffers of the connection,
/// or both sides would wait for each other to read (RFC 2920 section 3.1).
pub(super) const WINDOW: usize = 32;
/// Content of so many octets may share a flight with its envelope: if no recipient is accepted, little was sent in vain.
const TOGETHER: u64 = 64 << 10;

/// Whose reply is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Mail,
    Recipient(usize),
    Data,
    /// Of the first chunk, which shows whether the server knows BDAT.
    Opening,
    /// Of the last chunk: of every accepted recipient.
    Chunk,
    /// After the content: of every accepted recipient (SMTP).
    Content,
    /// After the content: of this recipient (LMTP).
    ContentFor(usize),
    /// After an empty message that stands for no recipient.
    Nobody,
}

/// Where the content stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Recipients are verified only.
    None,
    /// DATA or the first chunk is to be sent.
    Due,
    /// DATA or the first chunk was sent.
    Asked,
    /// The caller is to give it.
    Wanted,
    /// DATA was granted, but there is no recipient: a dot must end it.
    Unwanted,
    /// Nothing more is to be sent.
    Over,
}

/// The form of the content on the wire.
#[derive(Debug)]
pub(super) enum Form {
    /// There is none: recipients are verified only.
    None,
    /// DATA.
    Dots(Stuffer),
    /// BDAT, by a server that may not know it: this is the first chunk.
    Opened(bdat::Writer, Vec<u8>),
    /// BDAT, in one chunk.
    Chunk(bdat::Writer),
}

impl Form {
    /// Chunks for a message of `size` octets, the first of them `opening`.
    pub(super) fn opened(size: u64, opening: &[u8]) -> Self {
        let mut writer = bdat::Writer::new(size);
        let chunk = writer.open(opening);
        Self::Opened(writer, chunk)
    }
}

/// Whether a server that offers CHUNKING knows BDAT.
#[derive(Debug)]
pub(super) enum Bdat {
    Unproved,
    /// It has taken a chunk.
    Known,
    /// It has not: what it says from here on may be the answer to anything.
    Unknown(Reply),
}

#[derive(Debug)]
pub(super) struct Transaction {
    form: Form,
    /// The content goes without waiting for the replies to the envelope.
    together: bool,
    dialect: Dialect,
    window: usize,
    /// Lines of MAIL and RCPT, in order, that were not sent yet.
    lines: VecDeque<(Expect, String)>,
    awaiting: VecDeque<Expect>,
    content: Content,
    pub(super) mail_accepted: bool,
    pub(super) bdat: Bdat,
    /// The server is done with the envelope.
    data_granted: bool,
    accepted: Vec<usize>,
    outcomes: Vec<Option<Outcome>>,
}

impl Transaction {
    pub(super) fn new(
        envelope: Envelope,
        extensions: &Extensions,
        dialect: Dialect,
        form: Form,
        window: usize,
    ) -> Self {
        let pipelined = window > envelope.recipients.len() + 1;
        let together = matches!(form, Form::Chunk(_)) && pipelined && envelope.size <= TOGETHER;
        let mut outcomes = vec![None; envelope.recipients.len()];
        let mut lines = VecDeque::from([(Expect::Mail, mail_line(&envelope, extensions))]);
        let admitted = extensions.limits.admit(&envelope.recipients);
        for (at, (recipient, admitted)) in envelope.recipients.into_iter().zip(admitted).enumerate() {
            if admitted {
                lines.push_back((Expect::Recipient(at), rcpt_line(&recipient, extensions)));
            } else {
                outcomes[at] = Some(Outcome::Transient(replies::next_hop_recipients()));
            }
        }
        Self {
            content: if matches!(form, Form::None) {
                Content::None
            } else {
                Content::Due
            },
            form,
            together,
            dialect,
            window,
            lines,
            awaiting: VecDeque::new(),
            mail_accepted: false,
            bdat: Bdat::Unproved,
            data_granted: false,
            accepted: Vec::new(),
            outcomes,
        }
    }

    /// The commands that may be sent now.
    pub(super) fn commands(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.awaiting.len() < self.window {
            let (expect, line) = match self.lines.pop_front() {
                Some(next) => next,
                None if self.data_is_due() => match &self.form {
                    Form::Dots(_) => {
                        self.content = Content::Asked;
                        (Expect::Data, "DATA".to_owned())
                    }
                    Form::Opened(_, chunk) => {
                        self.content = Content::Asked;
                        out.extend_from_slice(chunk);
                        self.awaiting.push_back(Expect::Opening);
                        break;
                    }
                    Form::Chunk(_) | Form::None => {
                        if self.together || self.awaiting.is_empty() {
                            self.content = Content::Wanted;
                        }
                        break;
                    }
                },
                None => break,
            };
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
            self.awaiting.push_back(expect);
        }
        if self.content == Content::Unwanted {
            out.extend_from_slice(b".\r\n");
            self.content = Content::Over;
            // An LMTP server owes one reply for each recipient: none.
            if self.dialect == Dialect::Smtp {
                self.awaiting.push_back(Expect::Nobody);
            }
        }
        out
    }

    /// DATA may share a flight with the recipients; once their replies are in, one must have been accepted.
    fn data_is_due(&self) -> bool {
        let hopeful = !self.accepted.is_empty() || !self.awaiting.is_empty();
        self.content == Content::Due && hopeful
    }

    pub(super) fn wants_body(&self) -> bool {
        self.content == Content::Wanted && (self.together || self.awaiting.is_empty())
    }

    pub(super) fn body(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), ContentError> {
        match &mut self.form {
            Form::Dots(stuffer) => stuffer.push(piece, out),
            Form::Opened(writer, _) | Form::Chunk(writer) => writer.push(piece, out),
            Form::None => Ok(()),
        }
    }

    pub(super) fn end_body(&mut self, out: &mut Vec<u8>) -> Result<(), ContentError> {
        match &mut self.form {
            Form::Dots(stuffer) => drop(stuffer.finish(out)?),
            Form::Opened(writer, _) | Form::Chunk(writer) => drop(writer.finish(out)?),
            Form::None => {}
        }
        self.content = Content::Over;
        match self.dialect {
            _ if !matches!(self.form, Form::Dots(_)) => self.awaiting.push_back(Expect::Chunk),
            Dialect::Smtp => self.awaiting.push_back(Expect::Content),
            Dialect::Lmtp => self
                .awaiting
                .extend(self.accepted.iter().map(|at| Expect::ContentFor(*at))),
        }
        Ok(())
    }

    /// Takes a reply; false if none was to come.
    pub(super) fn reply(&mut self, reply: &Reply) -> bool {
        let Some(expect) = self.awaiting.pop_front() else {
            return false;
        };
        match expect {
            Expect::Mail if reply.is_positive() => self.mail_accepted = true,
            Expect::Mail => {
                self.lines.clear();
                // Those for whom there was no room in this transaction, too: it is about the sender.
                self.outcomes.fill(Some(Outcome::from(reply.clone())));
                if self.content == Content::Due {
                    self.content = Content::Over;
                }
            }
            Expect::Recipient(at) => self.recipient_reply(at, reply),
            Expect::Data => self.data_reply(reply),
            Expect::Opening => self.opening_reply(reply),
            Expect::Chunk => {
                // RFC 3030 section 2: after a chunk that failed the envelope is to be reset.
                self.data_granted = reply.is_positive();
                if self.data_granted {
                    self.bdat = Bdat::Known;
                }
                self.decide_accepted(&Outcome::from(reply.clone()));
            }
            Expect::Content => self.decide_accepted(&Outcome::from(reply.clone())),
            Expect::ContentFor(at) => self.decide(at, Outcome::from(reply.clone())),
            Expect::Nobody => {}
        }
        true
    }

    fn recipient_reply(&mut self, at: usize, reply: &Reply) {
        if !reply.is_positive() {
            self.decide(at, refused_recipient(reply));
        } else if self.content == Content::None {
            self.decide(at, Outcome::Delivered(reply.clone()));
        } else if self.mail_accepted {
            self.accepted.push(at);
        }
    }

    fn data_reply(&mut self, reply: &Reply) {
        self.data_granted = reply.is_intermediate();
        self.content = match (self.data_granted, self.accepted.is_empty()) {
            (true, false) => Content::Wanted,
            (true, true) => Content::Unwanted,
            (false, _) => Content::Over,
        };
        if reply.is_positive() {
            // Nothing was sent, so nothing can have been taken.
            let error = replies::next_hop_protocol("DATA was answered with 2xx");
            self.decide_accepted(&error.into());
        } else if !self.data_granted {
            self.decide_accepted(&Outcome::from(reply.clone()));
        }
    }

    /// The reply to the first chunk. Where it has a recipient, only a server that does not know the command calls it wrong.
    fn opening_reply(&mut self, reply: &Reply) {
        self.content = Content::Over;
        if reply.is_positive() {
            self.bdat = Bdat::Known;
        }
        if self.accepted.is_empty() {
            return;
        }
        if reply.is_positive() {
            self.content = Content::Wanted;
        } else if (500..=504).contains(&reply.code.value()) || reply.is_intermediate() {
            self.bdat = Bdat::Unknown(reply.clone());
        } else {
            self.decide_accepted(&Outcome::from(reply.clone()));
        }
    }

    /// The outcomes, once nothing is to be sent or to come.
    pub(super) fn finished(&self) -> Option<Vec<Outcome>> {
        let idle = self.awaiting.is_empty() && self.lines.is_empty();
        if !idle || self.content == Content::Wanted {
            return None;
        }
        Some(self.outcomes_or(&replies::undecided()))
    }

    /// Whether the server still holds an envelope.
    pub(super) fn needs_reset(&self) -> bool {
        self.mail_accepted && !self.data_granted
    }

    /// The outcomes when the session ends early: recipients without one get that of `reply`, which is 4xx.
    pub(super) fn abandon(&self, reply: &Reply) -> Vec<Outcome> {
        self.outcomes_or(reply)
    }

    fn outcomes_or(&self, reply: &Reply) -> Vec<Outcome> {
        self.outcomes
            .iter()
            .map(|outcome| outcome.clone().unwrap_or_else(|| Outcome::from(reply.clone())))
            .collect()
    }

    fn decide(&mut self, at: usize, outcome: Outcome) {
        if let Some(slot) = self.outcomes.get_mut(at) {
            slot.get_or_insert(outcome);
        }
    }

    fn decide_accepted(&mut self, outcome: &Outcome) {
        for at in self.accepted.clone() {
            self.decide(at, outcome.clone());
        }
    }
}

/// 552 to RCPT means too many recipients, to be tried again (RFC 5321 section 4.5.3.1.10), unless the enhanced code says otherwise.
fn refused_recipient(reply: &Reply) -> Outcome {
    if reply.code.value() == 552 && counts_recipients(reply) {
        return Outcome::Transient(reply.clone());
    }
    Outcome::from(reply.clone())
}

/// MAIL with the parameters that the server offers, without CRLF.
pub fn mail_line(envelope: &Envelope, extensions: &Extensions) -> String {
    let mut words = vec![format!("MAIL FROM:<{}>", envelope.reverse_path)];
    // RFC 1870 section 6.
    if extensions.size.is_some() && envelope.size > 0 {
        words.push(format!("SIZE={}", envelope.size));
    }
    // RFC 6152 section 3.
    if extensions.eight_bit_mime && envelope.eight_bit {
        words.push("BODY=8BITMIME".to_owned());
    }
    // RFC 6531 section 3.4.
    if envelope.needs_utf8() {
        words.push("SMTPUTF8".to_owned());
    }
    // RFC 8689 section 4.2.1.
    if extensions.require_tls && envelope.require_tls {
        words.push("REQUIRETLS".to_owned());
    }
    // RFC 3461 sections 4.3 and 4.4.
    if extensions.dsn {
        words.extend(envelope.ret.map(|ret| format!("RET={ret}")));
        let envid = envelope.envid.as_deref();
        words.extend(envid.map(|envid| format!("ENVID={}", xtext::encode(envid))));
    }
    words.join(" ")
}

/// RCPT with the parameters that the server offers, without CRLF.
pub fn rcpt_line(recipient: &Recipient, extensions: &Extensions) -> String {
    let mut words = vec![format!("RCPT TO:<{}>", recipient.path)];
    // RFC 3461 sections 4.1 and 4.2.
    if extensions.dsn {
        words.extend(recipient.notify.map(|notify| format!("NOTIFY={notify}")));
        let orcpt = recipient.orcpt.as_ref();
        words.extend(orcpt.map(|orcpt| format!("ORCPT={orcpt}")));
    }
    words.join(" ")
}
