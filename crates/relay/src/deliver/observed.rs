//! What came of TLS with the world's mail exchangers, for the reports to their domains (RFC 8460).
//!
//! Enters: which policy stood for a host, and how the session went. Leaves: a [`Seen`] for each session that came as far as TLS, and
//! for each policy that could not be applied. Sessions that broke before say nothing about TLS and are not counted (section 4.3.4);
//! a message that waives TLS is not counted at all, and our own reports are such messages.

use std::fmt::Display;
use std::io;
use std::net::IpAddr;

use mail_auth::report::tlsrpt::{FailureDetails, PolicyDetails, PolicyType, ResultType};
use postern_smtp::client::Failure;
use rustls::{CertificateError, Error};

use super::dane::{Published, Unmatched};
use super::mta_sts::policy::{Mode, Policy};
use super::tls::Watched;
use crate::reports::tls::Seen;

/// Takes what is to be reported.
pub type Observer = crate::queue::reports::tls::Collected;

/// Why a session, or a policy, failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    kind: ResultType,
    /// For people.
    reason: Option<String>,
}

/// What came of the encryption of one session.
#[derive(Debug, Default)]
pub struct Negotiation {
    /// What the host calls itself.
    pub helo: Option<String>,
    /// Absent where the session did not come so far, or was meant to be in clear.
    pub result: Option<Result<(), Fault>>,
}

/// With whom.
#[derive(Debug)]
pub struct Peer<'a> {
    host: &'a str,
    address: Option<IpAddr>,
    from: Option<IpAddr>,
}

/// How sessions with a host count.
#[derive(Debug, Clone)]
pub struct Judged {
    domain: String,
    policy: PolicyDetails,
    /// What is wrong with the policy, whatever the session brings.
    pub fault: Option<Fault>,
    /// What is wrong with the certificate, where mail goes all the same.
    pub certificate: Option<Watched>,
}

impl Fault {
    /// With a reason.
    pub fn new(kind: ResultType, reason: impl Display) -> Self {
        Self {
            kind,
            reason: Some(reason.to_string()),
        }
    }

    /// The host does not offer STARTTLS.
    pub fn not_offered() -> Self {
        Self {
            kind: ResultType::StartTlsNotSupported,
            reason: None,
        }
    }

    /// Why there was no handshake, where a session ended for that.
    pub fn of_refusal(failure: &Failure) -> Option<Self> {
        match failure {
            Failure::TlsNotOffered => Some(Self::not_offered()),
            Failure::StartTls(reply) => Some(Self::new(ResultType::StartTlsNotSupported, reply)),
            _ => None,
        }
    }

    /// Why a handshake failed (RFC 8460 4.3.1, 4.3.2.1).
    pub fn of_handshake(error: &io::Error) -> Self {
        tls_error(error).map_or_else(|| Self::new(ResultType::ValidationFailure, error), Self::of_tls)
    }

    fn of_tls(error: &Error) -> Self {
        use CertificateError as Bad;
        let kind = match error {
            Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
                ResultType::CertificateExpired
            }
            Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
                ResultType::CertificateHostMismatch
            }
            Error::InvalidCertificate(_) => ResultType::CertificateNotTrusted,
            Error::Other(other) if other.0.is::<Unmatched>() => ResultType::TlsaInvalid,
            _ => ResultType::ValidationFailure,
        };
        Self::new(kind, error)
    }
}

/// What TLS itself says of a connection's error.
pub fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

impl<'a> Peer<'a> {
    /// A host to which there was no connection.
    pub fn unmet(host: &'a str) -> Self {
        Self {
            host,
            address: None,
            from: None,
        }
    }

    /// A host at an address, reached from one of ours.
    pub fn met(host: &'a str, address: IpAddr, from: Option<IpAddr>) -> Self {
        Self {
            host,
            address: Some(address),
            from,
        }
    }
}

impl Judged {
    /// Sessions for mail to `domain` under this policy.
    pub fn new(domain: &str, policy: PolicyDetails) -> Self {
        Self {
            domain: domain.to_owned(),
            policy,
            fault: None,
            certificate: None,
        }
    }

    /// The policy itself has a fault.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..self
        }
    }

    /// What is told of it. What the session met goes before what was known without it.
    pub fn seen(&self, peer: &Peer<'_>, negotiation: &Negotiation) -> Seen {
        let met = negotiation.result.clone().and_then(Result::err);
        let watched = self.certificate.as_ref().and_then(|seen| seen.get());
        let fault = met
            .or_else(|| self.fault.clone())
            .or_else(|| watched.map(Fault::of_tls));
        let failure = fault.map(|fault| FailureDetails {
            result_type: fault.kind,
            sending_mta_ip: peer.from,
            receiving_mx_hostname: Some(peer.host.to_owned()),
            receiving_mx_helo: negotiation.helo.clone(),
            receiving_ip: peer.address,
            failed_session_count: 1,
            additional_information: None,
            failure_reason_code: fault.reason,
        });
        Seen {
            domain: self.domain.clone(),
            policy: self.policy.clone(),
            failure,
        }
    }
}

/// The records of a host; the domain is that of the records (RFC 8460 1.1).
pub fn tlsa(published: Published) -> PolicyDetails {
    PolicyDetails {
        policy_string: published.records,
        ..PolicyDetails::new(PolicyType::Tlsa, published.base)
    }
}

/// An MTA-STS policy, as its file would say it.
pub fn sts(domain: &str, policy: &Policy) -> PolicyDetails {
    let mode = match policy.mode {
        Mode::Enforce => "enforce",
        Mode::Testing => "testing",
        Mode::None => "none",
    };
    let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {mode}")];
    lines.extend(policy.hosts.iter().map(|host| format!("mx: {host}")));
    lines.push(format!("max_age: {}", policy.max_age));
    PolicyDetails {
        policy_string: lines,
        mx_host: policy.hosts.clone(),
        ..PolicyDetails::new(PolicyType::Sts, domain)
    }
}

/// Neither.
pub fn none(domain: &str) -> PolicyDetails {
    PolicyDetails::new(PolicyType::NoPolicyFound, domain)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::OtherError;

    use super::*;

    fn kind(error: Error) -> ResultType {
        Fault::of_handshake(&io::Error::new(io::ErrorKind::InvalidData, error)).kind
    }

    #[test]
    fn the_type_of_a_failure_is_that_of_its_cause() {
        let certificate = |error| kind(Error::InvalidCertificate(error));
        assert_eq!(
            certificate(CertificateError::Expired),
            ResultType::CertificateExpired
        );
        assert_eq!(
            certificate(CertificateError::NotValidForName),
            ResultType::CertificateHostMismatch
        );
        for other in [CertificateError::UnknownIssuer, CertificateError::NotValidYet] {
            assert_eq!(certificate(other), ResultType::CertificateNotTrusted);
        }
        assert_eq!(
            kind(Error::Other(OtherError(Arc::new(Unmatched)))),
            ResultType::TlsaInvalid
        );
        assert_eq!(kind(Error::DecryptError), ResultType::ValidationFailure);
        let closed = Fault::of_handshake(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(closed.kind, ResultType::ValidationFailure);
        assert!(closed.reason.is_some(), "the RFC asks for one");
        let greeting = Failure::Greeting(postern_smtp::replies::connection_lost());
        assert_eq!(Fault::of_refusal(&greeting), None, "it says nothing about TLS");
    }

    #[test]
    fn what_the_session_met_goes_before_what_was_known() {
        let peer = Peer::met("mx.example", [192, 0, 2, 1].into(), None);
        let session = |result| Negotiation {
            helo: None,
            result: Some(result),
        };
        let kind = |judged: &Judged, result| {
            let failure = judged.seen(&peer, &session(result)).failure;
            failure.map(|failure| failure.result_type)
        };
        let judged = Judged::new("d.example", none("d.example"));
        assert_eq!(kind(&judged, Ok(())), None);
        let judged = judged.with(Fault::new(ResultType::TlsaInvalid, "none can be used"));
        assert_eq!(kind(&judged, Ok(())), Some(ResultType::TlsaInvalid));
        let failed = kind(&judged, Err(Fault::not_offered()));
        assert_eq!(failed, Some(ResultType::StartTlsNotSupported));
    }
}
