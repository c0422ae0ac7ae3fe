//! Content inside a session: from DATA or BDAT to the verdict.

use super::{Framing, Session, State, Step, Tls};
use crate::content::ContentError;
use crate::replies;
use crate::reply::Reply;
use crate::{bdat, data};

impl Session {
    /// The caller has seen [`Step::MessageStarted`]; unless it refused, content begins.
    pub(super) fn begin_content<'a>(&mut self, input: &mut &'a [u8]) -> Option<Step<'a>> {
        let State::Starting(framing, refusal) = std::mem::replace(&mut self.state, State::Command) else {
            return None;
        };
        match (framing, refusal) {
            (Framing::Data, None) => {
                let limits = &self.config.limits;
                let receiver = data::Receiver::new(limits.content(), limits.discard);
                self.state = State::Data(Box::new(receiver));
                Some(Step::Reply(replies::start_data()))
            }
            (Framing::Data, Some(_)) if !input.is_empty() => Some(self.close(replies::data_pipelined())),
            (Framing::Data, Some(reply)) => {
                self.finished = true;
                self.say(reply)
            }
            (Framing::Bdat { size, last }, None) => {
                let mut receiver = bdat::Receiver::new(self.config.limits.content());
                receiver.chunk(size, last);
                self.chunks = Some(Box::new(receiver));
                self.state = State::Chunk;
                None
            }
            (Framing::Bdat { size, .. }, Some(reply)) => {
                self.finished = true;
                self.state = State::Swallow(size, reply);
                None
            }
        }
    }

    pub(super) fn data_content<'a>(&mut self, input: &mut &'a [u8]) -> Step<'a> {
        let State::Data(receiver) = &mut self.state else {
            return Step::NeedInput;
        };
        match receiver.input(input) {
            data::Event::NeedInput => Step::NeedInput,
            data::Event::Chunk(content) => Step::Chunk(content),
            data::Event::Complete(summary) => self.complete(summary),
            data::Event::Refused(error) => self.refuse_content(error),
            data::Event::Overrun(error) => self.close(replies::content_error(error)),
        }
    }

    /// BDAT. Its chunk follows in any case, and is never taken for commands (RFC 3030 section 2).
    pub(super) fn bdat_command<'a>(&mut self, size: u64, last: bool) -> Option<Step<'a>> {
        let limits = &self.config.limits;
        if size > limits.message_size.saturating_add(limits.discard) {
            let reply = replies::too_large(limits.message_size);
            return Some(self.close(reply));
        }
        if self.config.tls == Tls::Required && self.tls.is_none() {
            self.state = State::Swallow(size, replies::tls_required());
            return None;
        }
        if let Err(reply) = self.may_send_content() {
            self.state = State::Swallow(size, reply);
            return None;
        }
        if let Some(receiver) = &mut self.chunks {
            receiver.chunk(size, last);
            self.state = State::Chunk;
            return None;
        }
        self.state = State::Starting(Framing::Bdat { size, last }, None);
        Some(Step::MessageStarted)
    }

    pub(super) fn chunk_content<'a>(&mut self, input: &mut &'a [u8]) -> Step<'a> {
        let Some(receiver) = &mut self.chunks else {
            return self.close(replies::undecided());
        };
        match receiver.input(input) {
            bdat::Event::NeedInput => Step::NeedInput,
            bdat::Event::Chunk(content) => Step::Chunk(content),
            bdat::Event::ChunkDone(size) => {
                self.state = State::Command;
                Step::Reply(replies::chunk_ok(size))
            }
            bdat::Event::Complete(summary) => self.complete(summary),
            bdat::Event::Refused(error) => self.refuse_content(error),
        }
    }

    pub(super) fn swallow<'a>(&mut self, input: &mut &'a [u8]) -> Option<Step<'a>> {
        let State::Swallow(left, _) = &mut self.state else {
            return None;
        };
        bdat::take(input, left);
        if *left > 0 {
            return Some(Step::NeedInput);
        }
        if let State::Swallow(_, reply) = std::mem::replace(&mut self.state, State::Command) {
            self.answer(reply);
        }
        None
    }

    fn refuse_content(&mut self, error: ContentError) -> Step<'static> {
        let reply: Reply = replies::content_error(error);
        self.state = State::Command;
        self.finished = true;
        self.errors += 1;
        Step::MessageRefused(reply)
    }
}
