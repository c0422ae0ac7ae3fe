//! Proving who we are to a server that asks it (RFC 4954): PLAIN (RFC 4616), else LOGIN, inside TLS only.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Extensions;

/// A name and a password. The `Debug` form does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: String,
}

/// Why a name and a password are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLogin {
    /// One of them is empty.
    #[error("user and password must not be empty")]
    Empty,
    /// RFC 4616 section 2 separates by NUL.
    #[error("user and password must not hold a NUL, CR or LF")]
    Control,
}

impl Login {
    /// A user's login.
    pub fn new(user: &str, password: &str) -> Result<Self, BadLogin> {
        if user.is_empty() || password.is_empty() {
            return Err(BadLogin::Empty);
        }
        if [user, password].concat().contains(['\0', '\r', '\n']) {
            return Err(BadLogin::Control);
        }
        Ok(Self {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What is to be said when the server asks on.
#[derive(Debug)]
pub(super) struct Saying {
    rest: std::vec::IntoIter<String>,
}

impl Saying {
    /// The first line, and what follows it; `None` where the server offers no mechanism of ours.
    pub(super) fn begin(login: &Login, offered: &Extensions) -> Option<(String, Self)> {
        let encode = |text: &str| STANDARD.encode(text);
        let (first, rest) = if offered.auth_plain {
            let message = encode(&format!("\0{}\0{}", login.user, login.password));
            (format!("AUTH PLAIN {message}"), Vec::new())
        } else if offered.auth_login {
            (
                "AUTH LOGIN".to_owned(),
                vec![encode(&login.user), encode(&login.password)],
            )
        } else {
            return None;
        };
        let rest = rest.into_iter();
        Some((first, Self { rest }))
    }

    /// The answer to a challenge; `*` gives up where there is nothing left to say (RFC 4954 section 4).
    pub(super) fn next(&mut self) -> String {
        self.rest.next().unwrap_or_else(|| "*".to_owned())
    }
}
