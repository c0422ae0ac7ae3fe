//! One handler per command (RFC 5321 section 4.1.1), after the line was read.

use super::{
    Config, Decision, Framing, Helo, MailCommand, Recipient, Session, State, Step, Submitter, Tls, TlsInfo,
};
use crate::address::{ForwardPath, ReversePath};
use crate::command::Command;
use crate::parameters::{MailParameters, RcptParameters};
use crate::replies;
use crate::reply::Reply;

impl Session {
    pub(super) fn command<'a>(&mut self, command: Command, input: &mut &[u8]) -> Option<Step<'a>> {
        if self.needs_tls(&command) {
            return self.say(replies::tls_required());
        }
        match command {
            Command::Helo(name) => self.greeted(name, false),
            Command::Ehlo(name) => self.greeted(name, true),
            Command::Lhlo => self.say(replies::not_lmtp()),
            Command::Mail(path, parameters) => self.mail_from(path, parameters),
            Command::Rcpt(path, parameters) => self.rcpt_to(path, parameters),
            Command::Data => self.data_command(input),
            Command::Bdat { size, last } => self.bdat_command(size, last),
            Command::Rset => {
                self.forget_transaction();
                self.say(replies::reset())
            }
            Command::Noop => self.say(replies::noop()),
            Command::Vrfy => self.say(replies::vrfy()),
            Command::Expn => self.say(replies::expn()),
            Command::Help => self.say(replies::help()),
            Command::StartTls => self.start_tls(input),
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial.as_deref()),
            Command::Submit { address, name } => self.submit(Submitter { address, name }),
            Command::Quit => {
                let reply = replies::quit(&self.config.hostname);
                Some(self.close(reply))
            }
        }
    }

    /// Whether a command has to wait for TLS. BDAT is judged where its chunk can be swallowed.
    fn needs_tls(&self, command: &Command) -> bool {
        let waits = matches!(
            command,
            Command::Mail(..) | Command::Rcpt(..) | Command::Data | Command::Vrfy | Command::Expn
        );
        waits && self.config.tls == Tls::Required && self.tls.is_none()
    }

    fn greeted<'a>(&mut self, name: String, esmtp: bool) -> Option<Step<'a>> {
        self.forget_transaction();
        self.helo = Some(Helo { name, esmtp });
        let reply = if esmtp {
            replies::ehlo(&self.config.hostname, keywords(&self.config, self.tls.as_ref()))
        } else {
            replies::helo(&self.config.hostname)
        };
        self.say(reply)
    }

    /// Where it is not offered it is a verb like any other that nobody knows.
    fn submit<'a>(&mut self, submitter: Submitter) -> Option<Step<'a>> {
        if !self.config.offer_submission || self.tls.is_none() {
            return self.say(replies::command_error(&crate::command::CommandError::Unknown));
        }
        if !self.is_esmtp() || self.transaction.is_some() {
            return self.say(replies::bad_sequence("EHLO, and no MAIL,"));
        }
        Some(self.ask(Decision::Submit, Step::Submit(submitter)))
    }

    fn mail_from<'a>(&mut self, path: ReversePath, parameters: MailParameters) -> Option<Step<'a>> {
        if let Err(reply) = self.may_mail(&parameters) {
            return self.say(reply);
        }
        let mail = MailCommand {
            path,
            size: parameters.size,
            body: parameters.body,
            smtputf8: parameters.smtputf8,
            require_tls: parameters.require_tls,
            ret: parameters.ret,
            envid: parameters.envid,
        };
        Some(self.ask(Decision::Mail(mail.clone()), Step::Mail(mail)))
    }

    fn may_mail(&self, parameters: &MailParameters) -> Result<(), Reply> {
        if self.helo.is_none() {
            return Err(replies::bad_sequence("EHLO"));
        }
        if self.config.require_auth && self.user.is_none() {
            return Err(replies::authentication_required());
        }
        if self.transaction.is_some() {
            return Err(replies::nested_mail());
        }
        if parameters.given && !self.is_esmtp() {
            return Err(replies::parameters_need_ehlo());
        }
        // RFC 8689 section 4.1: it came in clear, so it cannot be kept from that any more.
        if parameters.require_tls && self.tls.is_none() {
            return Err(replies::require_tls_in_clear());
        }
        // RFC 1870 section 6.1: before the content is sent.
        let limit = self.config.limits.message_size;
        match parameters.size {
            Some(size) if size > limit => Err(replies::too_large(limit)),
            _ => Ok(()),
        }
    }

    fn rcpt_to<'a>(&mut self, path: ForwardPath, parameters: RcptParameters) -> Option<Step<'a>> {
        if let Err(reply) = self.may_rcpt(&path, &parameters) {
            return self.say(reply);
        }
        let recipient = Recipient {
            path,
            notify: parameters.notify,
            orcpt: parameters.orcpt,
        };
        Some(self.ask(
            Decision::Recipient(recipient.clone()),
            Step::VerifyRecipient(recipient),
        ))
    }

    fn may_rcpt(&self, path: &ForwardPath, parameters: &RcptParameters) -> Result<(), Reply> {
        let Some(transaction) = &self.transaction else {
            return Err(replies::bad_sequence("MAIL"));
        };
        if self.chunks.is_some() {
            return Err(replies::bad_sequence("BDAT LAST or RSET"));
        }
        if parameters.given && !self.is_esmtp() {
            return Err(replies::parameters_need_ehlo());
        }
        // RFC 6531 section 3.4: MAIL says so for the whole transaction.
        if !path.is_ascii() && !transaction.mail.smtputf8 {
            return Err(replies::command_error(&crate::command::CommandError::NeedsUtf8));
        }
        let limit = self.config.limits.recipients;
        if transaction.recipients.len() >= limit {
            return Err(replies::too_many_recipients(limit));
        }
        Ok(())
    }

    /// Whether content may follow.
    pub(super) fn may_send_content(&self) -> Result<(), Reply> {
        match &self.transaction {
            None => Err(replies::bad_sequence("MAIL")),
            Some(transaction) if transaction.recipients.is_empty() => {
                Err(replies::bad_sequence("RCPT, and one that is taken,"))
            }
            Some(_) => Ok(()),
        }
    }

    fn data_command<'a>(&mut self, input: &mut &[u8]) -> Option<Step<'a>> {
        let allowed = match self.chunks {
            Some(_) => Err(replies::bad_sequence("BDAT LAST or RSET")),
            None => self.may_send_content(),
        };
        match allowed {
            Ok(()) => {
                self.state = State::Starting(Framing::Data, None);
                Some(Step::MessageStarted)
            }
            // No client may send on before DATA is answered; what came would be content taken for commands.
            Err(_) if !input.is_empty() => Some(self.close(replies::data_pipelined())),
            Err(reply) => self.say(reply),
        }
    }

    fn start_tls<'a>(&mut self, input: &mut &[u8]) -> Option<Step<'a>> {
        if self.config.tls == Tls::Off {
            return self.say(replies::tls_not_offered());
        }
        if self.tls.is_some() {
            return self.say(replies::tls_active());
        }
        if !input.is_empty() {
            return Some(self.close(replies::tls_pipelined()));
        }
        self.state = State::Handshake;
        Some(Step::StartTls(replies::start_tls()))
    }
}

/// What EHLO offers: RFC 2920, 6152, 6531, 2034, 3030 and 3461, then those with a value or a condition.
fn keywords(config: &Config, tls: Option<&TlsInfo>) -> Vec<String> {
    let mut keywords: Vec<String> = [
        "PIPELINING",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "DSN",
    ]
    .map(String::from)
    .to_vec();
    // RFC 1870 section 3.
    keywords.push(format!("SIZE {}", config.limits.message_size));
    // RFC 9422.
    keywords.push(format!("LIMITS RCPTMAX={}", config.limits.recipients));
    // RFC 3207 section 4.2: not once there is TLS.
    if tls.is_none() && config.tls != Tls::Off {
        keywords.push("STARTTLS".to_owned());
    }
    // RFC 8689 section 2: in TLS alone.
    if tls.is_some() {
        keywords.push("REQUIRETLS".to_owned());
    }
    if tls.is_some() && config.offer_submission {
        keywords.push("XSUBMIT".to_owned());
    }
    if tls.is_some() && config.offer_auth {
        keywords.push("AUTH PLAIN LOGIN".to_owned());
    }
    keywords
}
