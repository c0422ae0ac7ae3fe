//! Mail to the world: one recipient in each of several domains, and what became of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use postern_control::EventKind;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::process::{HEAD, Queue, envelope, hand_over};

const MESSAGE: &[u8] = b"From: <app@example.org>\r\nSubject: Hello\r\n\r\nHi.\r\n";

/// Recipients are named apart: what one start leaves behind, the next tries again.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A server that shows this chain to anyone.
pub(crate) fn server(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    Arc::new(config.unwrap())
}

/// Everything goes by MX, opportunistically encrypted.
pub(crate) fn configuration(resolver: SocketAddr, port: u16, more: &str) -> String {
    with_tls(resolver, port, "\"opportunistic\"", more)
}

/// The same with this TLS.
pub(crate) fn with_tls(resolver: SocketAddr, port: u16, tls: &str, more: &str) -> String {
    let head = HEAD.replace("127.0.0.1:9", &resolver.to_string());
    format!(
        "{head}
[next-hop.world]
kind = \"mx\"
tls = {tls}
port = {port}
[[route]]
from = [\"inside\"]
domains = [\"*\"]
next-hop = \"world\"
{more}
"
    )
}

/// [`try_mail`] with a message that says nothing special.
pub(crate) async fn try_all(
    directory: &Path,
    configuration: &str,
    domains: &[&str],
) -> (Vec<Result<String, String>>, Vec<EventKind>) {
    try_mail(directory, configuration, domains, MESSAGE, false).await
}

/// For each domain `Ok`: how the host proved itself and whether there was TLS, or `Err`: why the mail was deferred
/// or bounced.
pub(crate) async fn try_mail(
    directory: &Path,
    configuration: &str,
    domains: &[&str],
    message: &[u8],
    require_tls: bool,
) -> (Vec<Result<String, String>>, Vec<EventKind>) {
    let mut queue = Queue::start(directory, configuration);
    let mut results = Vec::new();
    for domain in domains {
        let to = format!("b{}@{domain}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut envelope = envelope("app@example.org", &[&to], message.len());
        envelope.require_tls = require_tls;
        hand_over(&queue.client("inside"), &envelope, message)
            .await
            .unwrap();
        let event = queue.wait(domain, |kind| match kind {
            EventKind::Delivered { recipient, .. }
            | EventKind::Deferred { recipient, .. }
            | EventKind::Bounced { recipient, .. } => *recipient == to,
            _ => false,
        });
        let tried = queue.events().into_iter().find_map(|kind| match kind {
            EventKind::Attempt {
                recipient,
                authentication,
                tls,
                ..
            } if recipient == to => {
                let tls = if tls.is_some() { "TLS" } else { "clear" };
                Some(format!("{} {tls}", authentication.unwrap_or_default()))
            }
            _ => None,
        });
        results.push(match event {
            EventKind::Delivered { .. } => Ok(tried.unwrap()),
            EventKind::Deferred { reply, .. } | EventKind::Bounced { reply, .. } => Err(reply),
            other => panic!("{domain}: {other:?}"),
        });
    }
    let events = queue.events();
    queue.stop();
    (results, events)
}

/// A domain, where its host is, what it publishes, and what is to become of mail: as in [`try_mail`], of a reason a part.
pub(crate) struct Case<T> {
    pub(crate) domain: &'static str,
    pub(crate) host: Ipv4Addr,
    pub(crate) published: T,
    expected: Result<&'static str, &'static str>,
}

pub(crate) fn taken<T>(domain: &'static str, host: Ipv4Addr, published: T, how: &'static str) -> Case<T> {
    let expected = Ok(how);
    Case {
        domain,
        host,
        published,
        expected,
    }
}

pub(crate) fn deferred<T>(domain: &'static str, host: Ipv4Addr, published: T, why: &'static str) -> Case<T> {
    let expected = Err(why);
    Case {
        domain,
        host,
        published,
        expected,
    }
}

/// Compares; how many were taken.
pub(crate) fn compare<T>(cases: &[Case<T>], results: &[Result<String, String>]) -> usize {
    assert_eq!(cases.len(), results.len());
    for (case, result) in cases.iter().zip(results) {
        let right = match (&case.expected, result) {
            (Ok(expected), Ok(got)) => expected == got,
            (Err(expected), Err(reply)) => reply.contains(expected) && reply.starts_with('4'),
            _ => false,
        };
        assert!(
            right,
            "{}: expected {:?}, got {result:?}",
            case.domain, case.expected
        );
    }
    cases.iter().filter(|case| case.expected.is_ok()).count()
}
