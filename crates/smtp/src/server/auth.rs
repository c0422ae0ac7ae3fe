//! AUTH PLAIN (RFC 4616) and LOGIN, inside TLS only (RFC 4954).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Decision, Session, State, Step, Tls};
use crate::replies;
use crate::reply::Reply;

/// A mechanism that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN.
    Plain,
    /// LOGIN.
    Login,
}

/// What a client claims to be. Its `Debug` form does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// How they came.
    pub mechanism: Mechanism,
    /// Whom the user wants to act for; empty for himself.
    pub authorization_id: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("mechanism", &self.mechanism)
            .field("authorization_id", &self.authorization_id)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What the client is to send next.
#[derive(Debug)]
pub(super) enum Dialogue {
    Plain,
    LoginUser,
    LoginPassword { user: String },
}

impl Session {
    pub(super) fn auth<'a>(&mut self, mechanism: &str, initial: Option<&str>) -> Option<Step<'a>> {
        if let Err(reply) = self.may_authenticate() {
            return self.say(reply);
        }
        let (dialogue, challenge) = match mechanism {
            "PLAIN" => (Dialogue::Plain, ""),
            "LOGIN" => (Dialogue::LoginUser, "VXNlcm5hbWU6"),
            _ => return self.say(replies::unknown_mechanism()),
        };
        self.state = State::Credentials(dialogue);
        match initial {
            // A single equals sign stands for an empty initial response.
            Some("=") => self.credentials(b""),
            Some(response) => self.credentials(response.as_bytes()),
            None => self.say(replies::challenge(challenge)),
        }
    }

    fn may_authenticate(&self) -> Result<(), Reply> {
        if !self.config.offer_auth || self.config.tls == Tls::Off {
            return Err(replies::authentication_not_offered());
        }
        if self.tls.is_none() {
            return Err(replies::authentication_needs_tls());
        }
        if !self.is_esmtp() {
            return Err(replies::bad_sequence("EHLO"));
        }
        if self.user.is_some() || self.transaction.is_some() {
            return Err(replies::authentication_misplaced());
        }
        Ok(())
    }

    /// A response of the client; an unreadable one ends the dialogue.
    pub(super) fn credentials<'a>(&mut self, response: &[u8]) -> Option<Step<'a>> {
        let State::Credentials(dialogue) = std::mem::replace(&mut self.state, State::Command) else {
            return None;
        };
        if response == b"*" {
            return self.say(replies::authentication_cancelled());
        }
        let decoded = STANDARD.decode(response).ok();
        let Some(text) = decoded.and_then(|octets| String::from_utf8(octets).ok()) else {
            return self.say(replies::authentication_syntax());
        };
        let credentials = match dialogue {
            Dialogue::Plain => plain(&text),
            Dialogue::LoginUser => {
                self.state = State::Credentials(Dialogue::LoginPassword { user: text });
                return self.say(replies::challenge("UGFzc3dvcmQ6"));
            }
            Dialogue::LoginPassword { user } => checked(Mechanism::Login, "", &user, &text),
        };
        match credentials {
            Some(credentials) => {
                let decision = Decision::Auth(credentials.clone());
                Some(self.ask(decision, Step::Auth(credentials)))
            }
            None => self.say(replies::authentication_syntax()),
        }
    }
}

/// `authorization-id NUL user NUL password`.
fn plain(message: &str) -> Option<Credentials> {
    let parts: Vec<&str> = message.split('\0').collect();
    match parts.as_slice() {
        [authorization_id, user, password] => checked(Mechanism::Plain, authorization_id, user, password),
        _ => None,
    }
}

fn checked(mechanism: Mechanism, authorization_id: &str, user: &str, password: &str) -> Option<Credentials> {
    let fits = |text: &str| !text.is_empty() && text.len() <= 255 && !text.contains('\0');
    let identity = authorization_id.len() <= 255;
    (fits(user) && fits(password) && identity).then(|| Credentials {
        mechanism,
        authorization_id: authorization_id.to_owned(),
        user: user.to_owned(),
        password: password.to_owned(),
    })
}
