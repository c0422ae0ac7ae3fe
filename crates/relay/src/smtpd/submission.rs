//! Submission from outside (RFC 6409, RFC 8314): what the gateway passes inward, and what the internal node takes from it.
//!
//! On the gateway there is no user database. AUTH, MAIL and RCPT go inward by the proxy as they come and are answered in the
//! inside's words; the message goes when it is whole, judged and clean, and the client has its 250 only when the inside has said
//! so: nothing rests here. On the internal node a session of the gateway becomes a submission by XSUBMIT, believed over the
//! gateway's certificate alone; it needs the login of a user, who may do there what he may do on the inside.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use postern_control::EventKind;
use postern_smtp::client;
use postern_smtp::parameters::Body;
use postern_smtp::replies;
use postern_smtp::reply::Reply;
use postern_smtp::server::{Credentials, MailCommand, Recipient, Submitter};

use super::body::Seen;
use super::connection::Connection;
use super::permit::Denial;
use crate::checks::Finding;
use crate::config::CheckName;
use crate::proxy::submission::{Inward as Way, InwardError};
use crate::sasl::{Logins, SaslError};
use crate::throttle;
use crate::verdict::{Verdict, judge};

/// Wrong passwords in one session before it is closed.
const LAST_TRY: u32 = 3;

/// The gateway's side of a submission.
#[derive(Default)]
pub(super) struct Inward {
    /// The session inside, once the client has logged in.
    way: Option<Way>,
    wrong: u32,
}

impl Inward {
    fn way(&self) -> Result<&Way, Denial> {
        self.way
            .as_ref()
            .ok_or_else(|| Denial::plain(replies::inside_gone()))
    }

    /// The inside's word; without one there is no session inside any more.
    fn word(&mut self, answer: Result<Reply, InwardError>) -> Result<Reply, Denial> {
        match answer {
            Ok(reply) if reply.is_transient() || reply.is_permanent() => {
                let evidence = format!("the internal node said {reply}");
                Err(Denial::because(reply, evidence))
            }
            Ok(reply) if reply.is_positive() => Ok(reply),
            Ok(reply) => self.lost(format!("the internal node said {reply}")),
            Err(error) => self.lost(error.to_string()),
        }
    }

    fn lost(&mut self, evidence: String) -> Result<Reply, Denial> {
        self.way = None;
        Err(Denial::because(replies::inside_broke_off(), evidence))
    }
}

impl Connection {
    /// AUTH at the gateway: the inside is asked.
    pub(super) async fn log_in_inward(&mut self, credentials: &Credentials) -> Result<(), Denial> {
        let user = credentials.user.clone();
        let server = std::sync::Arc::clone(&self.server);
        let (reputation, attempt) = (&server.tools.reputation, throttle::from(self.peer));
        let delay = match throttle::attempt(reputation, &attempt).await {
            Ok(delay) => delay,
            Err(throttled) => {
                self.tell_failure(self.peer, &user, "too many wrong passwords from there");
                let reply = replies::logins_throttled(throttled.minutes);
                return Err(Denial::because(reply, format!("user {user}")));
            }
        };
        let name = self
            .session
            .helo()
            .map_or("unknown".to_owned(), |helo| helo.name.clone());
        let socket = self.server.config.proxy_socket();
        let asked = Way::log_in(&socket, (self.peer, &name), &user, &credentials.password);
        match asked.await {
            Ok((way, reply)) if reply.is_positive() => {
                throttle::succeeded(reputation, attempt).await;
                let event = EventKind::Authenticated { user: user.clone() };
                self.server.events.emit(Some(&self.trace), None, event);
                self.user = Some(user);
                if let Some(inward) = &mut self.inward {
                    inward.way = Some(way);
                }
                Ok(())
            }
            Ok((_, reply)) if reply.is_permanent() => Err(self.wrong_password(reply, &user, delay).await),
            Ok((_, reply)) => {
                throttle::unanswered(reputation, attempt).await;
                self.tell_failure(self.peer, &user, &format!("the internal node said {reply}"));
                let evidence = format!("user {user}: the internal node said {reply}");
                let reply = if reply.is_transient() {
                    reply
                } else {
                    replies::inside_unavailable()
                };
                Err(Denial::because(reply, evidence))
            }
            Err(error) => {
                throttle::unanswered(reputation, attempt).await;
                Err(Denial::because(
                    replies::inside_unavailable(),
                    format!("user {user}: {error}"),
                ))
            }
        }
    }

    async fn wrong_password(&mut self, reply: Reply, user: &str, delay: Duration) -> Denial {
        self.tell_failure(self.peer, user, "wrong user or password");
        tokio::time::sleep(delay).await;
        let wrong = self.inward.as_mut().map_or(LAST_TRY, |inward| {
            inward.wrong += 1;
            inward.wrong
        });
        let reply = if wrong >= LAST_TRY {
            replies::too_many_logins()
        } else {
            reply
        };
        Denial::because(reply, format!("user {user}"))
    }

    /// MAIL at the gateway.
    pub(super) async fn mail_inward(&mut self, mail: &MailCommand) -> Result<(), Denial> {
        self.within_limits().await?;
        let envelope = client::Envelope {
            reverse_path: mail.path.clone(),
            recipients: Vec::new(),
            size: mail.size.unwrap_or(0),
            eight_bit: mail.body == Body::EightBitMime,
            smtputf8: mail.smtputf8,
            require_tls: mail.require_tls,
            ret: mail.ret,
            envid: mail.envid.clone(),
        };
        let Some(inward) = &mut self.inward else {
            return Err(Denial::plain(replies::authentication_required()));
        };
        let answer = inward.way()?.mail(&envelope).await;
        inward.word(answer).map(drop)
    }

    /// RCPT at the gateway.
    pub(super) async fn rcpt_inward(&mut self, recipient: &Recipient) -> Result<(), Denial> {
        let recipient = client::Recipient {
            path: recipient.path.clone(),
            notify: recipient.notify,
            orcpt: recipient.orcpt.clone(),
        };
        let Some(inward) = &mut self.inward else {
            return Err(Denial::plain(replies::authentication_required()));
        };
        let answer = inward.way()?.rcpt(&recipient).await;
        inward.word(answer).map(drop)
    }

    /// The message, whole: the inside's answer is the client's.
    pub(super) async fn message_inward(&mut self, message: OwnedFd, size: u64) -> Result<Reply, Denial> {
        let Some(inward) = &mut self.inward else {
            return Err(Denial::plain(replies::authentication_required()));
        };
        let answer = inward.way()?.message(&message, size).await;
        inward.word(answer)
    }

    /// A user's message is looked into like others for structure, attachments and viruses; where it comes from, his login says.
    pub(super) async fn judged_submission(&self, octets: &Seen<'_>) -> (Vec<Finding>, Verdict) {
        let mut findings = Vec::new();
        let mut verdict = Verdict::Accept;
        for check in [CheckName::Content, CheckName::Virus] {
            let found = self.server.tools.run_one(check, self.facts_of(octets)).await;
            self.tell_findings(&found);
            findings.extend(found);
            verdict = judge(&self.server.policy(false), "", &findings);
            if verdict.refusal().is_some() {
                break;
            }
        }
        (findings, verdict)
    }

    /// XSUBMIT at the internal node: from now on this is the session of one user who is outside.
    pub(super) fn submits(&mut self, submitter: Submitter) {
        let submitter = Submitter {
            address: submitter.address.to_canonical(),
            ..submitter
        };
        let event = EventKind::OnBehalf {
            peer: submitter.address.to_string(),
            helo: submitter.name.clone(),
        };
        self.server.events.emit(Some(&self.trace), None, event);
        self.submitter = Some(submitter);
    }

    /// The client's own address, where a gateway passes its mail on.
    pub(super) fn origin(&self) -> IpAddr {
        self.submitter
            .as_ref()
            .map_or(self.peer, |submitter| submitter.address)
    }

    /// AUTH where passwords are checked: Dovecot is asked, unless the account has been guessed at too much.
    pub(super) async fn check_password(
        &mut self,
        logins: &Logins,
        credentials: &Credentials,
    ) -> Result<String, Denial> {
        let (user, from) = (&credentials.user, self.origin());
        let (reputation, attempt) = (&self.server.tools.reputation, throttle::at(user, from));
        if let Err(throttled) = throttle::attempt(reputation, &attempt).await {
            self.tell_failure(from, user, "too many wrong passwords for the account");
            let reply = replies::account_throttled(throttled.minutes);
            return Err(Denial::because(reply, format!("user {user}")));
        }
        match logins.check(user, &credentials.password, from).await {
            Ok(name) => {
                throttle::succeeded(reputation, attempt).await;
                Ok(name)
            }
            Err(SaslError::Denied) => {
                self.tell_failure(from, user, "wrong user or password");
                Err(Denial::because(
                    replies::authentication_failed(),
                    format!("user {user}"),
                ))
            }
            Err(error) => {
                throttle::unanswered(reputation, attempt).await;
                Err(Denial::because(
                    replies::authentication_unavailable(),
                    error.to_string(),
                ))
            }
        }
    }

    pub(super) fn tell_failure(&self, peer: IpAddr, account: &str, reason: &str) {
        let event = EventKind::AuthenticationFailed {
            peer: peer.to_string(),
            account: account.to_owned(),
            instance: self.server.name.clone(),
            reason: reason.to_owned(),
        };
        self.server.events.emit(Some(&self.trace), None, event);
    }
}
