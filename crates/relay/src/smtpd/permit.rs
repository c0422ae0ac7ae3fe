//! Who may log in, send, and be sent to: the answers to AUTH, MAIL and RCPT.
//!
//! Relaying is refused unless the client proved itself and the instance relays for any domain (RFC 5321 section 7.1);
//! addresses that carry a route inside the local part are refused for everybody.

use std::net::IpAddr;

use postern_control::EventKind;
use postern_smtp::address::{ForwardPath, ReversePath};
use postern_smtp::replies;
use postern_smtp::reply::Reply;
use postern_smtp::server::{Credentials, MailCommand, Recipient};

use super::Server;
use super::body::Seen;
use super::connection::Connection;
use crate::checks::{Facts, Finding, Phase};
use crate::config::{Authentication, RelayFor};
use crate::verdict::{Policy, Refusal, judge};

/// A no, and why.
pub(super) struct Denial {
    pub(super) reply: Reply,
    pub(super) because: Option<Because>,
}

/// What the trace tells of a refusal beside the reply.
pub(super) struct Because {
    pub(super) check: Option<&'static str>,
    pub(super) evidence: String,
}

/// Whose mail was refused, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Parties {
    pub(super) from: Option<String>,
    pub(super) to: Vec<String>,
}

impl Denial {
    pub(super) fn plain(reply: Reply) -> Self {
        Self { reply, because: None }
    }

    pub(super) fn because(reply: Reply, evidence: String) -> Self {
        Self {
            reply,
            because: Some(Because {
                check: None,
                evidence,
            }),
        }
    }
}

impl From<&Refusal> for Denial {
    fn from(refusal: &Refusal) -> Self {
        let because = Because {
            check: Some(refusal.check.as_str()),
            evidence: refusal.evidence.clone(),
        };
        Self {
            reply: refusal.reply.clone(),
            because: Some(because),
        }
    }
}

impl Server {
    /// Whether nothing but its behaviour speaks for this client: neither one of ours nor a listed peer.
    pub(super) fn is_stranger(&self, peer: IpAddr) -> bool {
        self.instance.authentication == Authentication::None && !self.config.is_listed(peer)
    }

    /// Tells of a refusal.
    pub(super) fn refused(
        &self,
        trace: &str,
        stage: &str,
        reply: &Reply,
        because: Option<&Because>,
        parties: Parties,
    ) {
        let event = EventKind::Refused {
            stage: stage.to_owned(),
            code: reply.code.value(),
            enhanced: reply.enhanced.map_or(String::new(), |code| code.to_string()),
            text: reply.text(),
            check: because.and_then(|because| because.check).map(str::to_owned),
            evidence: because.map(|because| because.evidence.clone()),
            from: parties.from,
            to: parties.to,
        };
        self.events.emit(Some(trace), None, event);
    }

    /// What the verdict goes by, for a sender whose patience is known.
    pub(super) fn policy(&self, patience_over: bool) -> Policy {
        Policy::new(&self.config, patience_over)
    }

    /// The mailbox that a forward-path means: `postmaster` alone and at our domains is the site's postmaster
    /// (RFC 5321 section 4.5.1).
    pub(super) fn mailbox(&self, path: &ForwardPath) -> String {
        match path.mailbox() {
            None => self.config.postmaster.clone(),
            Some(mailbox)
                if mailbox.local().eq_ignore_ascii_case("postmaster")
                    && self.config.is_local(mailbox.domain().as_str()) =>
            {
                self.config.postmaster.clone()
            }
            Some(_) => path.to_string(),
        }
    }
}

impl Connection {
    pub(super) async fn may_log_in(&mut self, credentials: &Credentials) -> Result<(), Denial> {
        let user = &credentials.user;
        // Nobody acts for another (RFC 4616 section 2).
        if !credentials.authorization_id.is_empty() && credentials.authorization_id != *user {
            let evidence = format!("{user} wants to act for {}", credentials.authorization_id);
            return Err(Denial::because(replies::authentication_failed(), evidence));
        }
        if self.inward.is_some() {
            return self.log_in_inward(credentials).await;
        }
        let server = std::sync::Arc::clone(&self.server);
        let logins = match (&self.submitter, &server.outside) {
            (Some(_), Some((logins, _))) => Some(logins),
            _ => server.logins.as_ref(),
        };
        let Some(logins) = logins else {
            return Err(Denial::plain(replies::authentication_unavailable()));
        };
        let name = self.check_password(logins, credentials).await?;
        let event = EventKind::Authenticated { user: name.clone() };
        self.server.events.emit(Some(&self.trace), None, event);
        self.user = Some(name);
        Ok(())
    }

    pub(super) async fn may_send(&mut self, mail: &MailCommand) -> Result<(), Denial> {
        self.sender = mail.path.to_string();
        if self.inward.is_some() {
            return self.mail_inward(mail).await;
        }
        if self.submitter.is_some() {
            self.owns(&mail.path)?;
            return self.has_room(mail);
        }
        match self.server.instance.authentication {
            Authentication::None => self.within_limits().await,
            Authentication::ClientCertificate if self.trusted => Ok(()),
            Authentication::ClientCertificate => Err(Denial::plain(replies::not_allowed_here())),
            Authentication::Sasl => self.owns(&mail.path),
        }?;
        self.has_room(mail)
    }

    /// A user sends under his own address, or none.
    fn owns(&self, path: &ReversePath) -> Result<(), Denial> {
        let Some(user) = &self.user else {
            return Err(Denial::plain(replies::authentication_required()));
        };
        let anybody = self
            .server
            .instance
            .send_as_any
            .iter()
            .any(|name| name.eq_ignore_ascii_case(user));
        let own = match path {
            ReversePath::Null => true,
            ReversePath::Mailbox(mailbox) => mailbox.to_string().eq_ignore_ascii_case(user),
        };
        if own || anybody {
            return Ok(());
        }
        Err(Denial::because(
            replies::sender_not_owned(user),
            format!("reverse-path {path}"),
        ))
    }

    pub(super) async fn may_be_sent_to(&mut self, recipient: &Recipient) -> Result<(), Denial> {
        let mut local = true;
        if let Some(mailbox) = recipient.path.mailbox() {
            if mailbox.route_in_local_part() {
                return Err(Denial::plain(replies::routed_address()));
            }
            local = self.server.config.is_local(mailbox.domain().as_str());
            let proved = self.trusted || self.user.is_some();
            let submitted = self.submitter.is_some() && self.user.is_some();
            let relayed = submitted || (proved && self.server.instance.relay_for == RelayFor::Any);
            if !local && !relayed && self.inward.is_none() {
                return Err(Denial::plain(replies::relay_denied(mailbox.domain().as_str())));
            }
        }
        if self.inward.is_some() {
            return self.rcpt_inward(recipient).await;
        }
        if !local {
            return Ok(());
        }
        self.client_may_go_on().await?;
        let server = &self.server;
        let address = server.mailbox(&recipient.path);
        self.may_reach(&address).await?;
        let mut facts = self.facts(&address, &[]);
        facts.listed |= self.is_vouched_for();
        for phase in [Phase::Recipient, Phase::FirstContact] {
            let findings = server.tools.run(phase, facts).await;
            self.tell_findings(&findings);
            if let Some(refusal) =
                judge(&server.policy(false), &recipient.path.to_string(), &findings).refusal()
            {
                return Err(refusal.into());
            }
        }
        Ok(())
    }

    pub(super) fn facts<'a>(&'a self, recipient: &'a str, message: &'a [u8]) -> Facts<'a> {
        Facts {
            peer: self.peer,
            listed: self.server.config.is_listed(self.peer),
            helo: self.session.helo().map_or("", |helo| helo.name.as_str()),
            reverse_path: &self.sender,
            recipient,
            message,
            memory: None,
        }
    }

    /// The facts of a whole message.
    pub(super) fn facts_of<'a>(&'a self, message: &'a Seen<'a>) -> Facts<'a> {
        Facts {
            memory: message.memory(),
            ..self.facts("", message)
        }
    }

    pub(super) fn tell_findings(&self, findings: &[Finding]) {
        for finding in findings {
            self.server.events.emit(Some(&self.trace), None, finding.event());
        }
    }
}
