//! Mutual TLS towards a fixed host, and what happens where it cannot be had.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use postern_control::EventKind;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::process::{HEAD, Queue, envelope, hand_over};
use crate::sink::Sink;

/// An authority, and the certificates it made.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        self.issue_for(vec![name.to_owned()])
    }

    pub(crate) fn issue_for(&self, names: Vec<String>) -> (rcgen::Certificate, KeyPair) {
        self.sign(&CertificateParams::new(names).unwrap())
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Writes ca.crt, node.crt and node.key.
    fn credentials(&self, directory: &Path) {
        let (certificate, key) = self.issue("mail.example.org");
        std::fs::write(directory.join("ca.crt"), self.0.pem()).unwrap();
        std::fs::write(directory.join("node.crt"), certificate.pem()).unwrap();
        std::fs::write(directory.join("node.key"), key.serialize_pem()).unwrap();
    }

    /// A server that lets only holders of our certificates in.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .unwrap();
        let (certificate, key) = self.issue(name);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key.into());
        Arc::new(config.unwrap())
    }
}

/// An SMTP host with STARTTLS in front of a sink; without `tls` it does not offer it.
fn host(sink: &Sink, tls: Option<Arc<ServerConfig>>) -> SocketAddr {
    host_at("127.0.0.1:0".parse().unwrap(), sink, tls)
}

/// The same at this address.
pub(crate) fn host_at(address: SocketAddr, sink: &Sink, tls: Option<Arc<ServerConfig>>) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let sink = sink.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (sink, tls) = (sink.clone(), tls.clone());
            std::thread::spawn(move || session(stream, &sink, tls));
        }
    });
    address
}

fn session(mut stream: TcpStream, sink: &Sink, tls: Option<Arc<ServerConfig>>) -> std::io::Result<()> {
    stream.write_all(b"220 host\r\n")?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let Some(tls) = tls else {
        stream.write_all(b"250 host\r\n")?;
        // Its greeting goes nowhere, see below.
        return sink.session(
            &mut lines,
            &mut Half(std::rc::Rc::new(std::cell::RefCell::new(&mut stream)), true),
        );
    };
    stream.write_all(b"250-host\r\n250 STARTTLS\r\n")?;
    line.clear();
    lines.read_line(&mut line)?;
    assert_eq!(line, "STARTTLS\r\n");
    stream.write_all(b"220 2.0.0 go on\r\n")?;
    let mut encrypted = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    // The sink greets; a host behind STARTTLS does not. So its greeting goes nowhere.
    let (mut read, mut write) = halves(&mut encrypted);
    sink.session(&mut read, &mut write)
}

/// Both directions of one blocking TLS stream for the sink, without its greeting.
fn halves<S: Read + Write>(stream: &mut S) -> (impl BufRead, impl Write) {
    let stream = std::rc::Rc::new(std::cell::RefCell::new(stream));
    (BufReader::new(Half(stream.clone(), false)), Half(stream, true))
}

struct Half<'a, S>(std::rc::Rc<std::cell::RefCell<&'a mut S>>, bool);

impl<S: Read> Read for Half<'_, S> {
    fn read(&mut self, octets: &mut [u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().read(octets)
    }
}

impl<S: Write> Write for Half<'_, S> {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        if std::mem::take(&mut self.1) {
            return Ok(octets.len());
        }
        let mut stream = self.0.borrow_mut();
        stream.write_all(octets)?;
        stream.flush()?;
        Ok(octets.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn configuration(host: SocketAddr) -> String {
    format!(
        "{HEAD}
[next-hop.gateway]
kind = \"smtp\"
host = \"127.0.0.1\"
port = {}
tls = \"mutual\"
server-name = \"mx1.example.org\"
certificate = \"node.crt\"
key = \"node.key\"
ca = \"ca.crt\"
[[route]]
from = [\"inside\"]
domains = [\"*\"]
next-hop = \"gateway\"
sign = true
[dkim]
directory = \"dkim\"
selector = \"postern\"
domains = [\"example.org\"]
",
        host.port()
    )
}

const MESSAGE: &[u8] = b"From: <app@example.org>\r\nSubject: Hello\r\n\r\n.Hi.\r\n";

async fn send(queue: &Queue) {
    let envelope = envelope("app@example.org", &["b@far.example"], MESSAGE.len());
    hand_over(&queue.client("inside"), &envelope, MESSAGE)
        .await
        .unwrap();
}

#[tokio::test]
async fn signed_mail_leaves_over_mutual_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.credentials(directory.path());
    let sink = Sink::start();
    let host = host(&sink, Some(authority.server("mx1.example.org")));
    let mut queue = Queue::start(directory.path(), &configuration(host));
    send(&queue).await;
    let taken = sink.wait("the mail", |taken| !taken.is_empty());
    let (signatures, rest) = taken[0].content.split_at(taken[0].content.len() - MESSAGE.len());
    assert_eq!(rest.as_bytes(), MESSAGE);
    assert_eq!(signatures.matches("DKIM-Signature: ").count(), 2);
    let attempt = queue.wait("the attempt", |kind| matches!(kind, EventKind::Attempt { .. }));
    let EventKind::Attempt { tls, reply, .. } = attempt else {
        unreachable!()
    };
    assert!(
        tls.is_some_and(|tls| tls.starts_with("TLSv1.3 TLS_")),
        "not encrypted"
    );
    assert_eq!(reply, "250 2.0.0 queued as SINK");
    assert!(
        queue
            .events()
            .iter()
            .any(|kind| matches!(kind, EventKind::Signed { domain, .. } if domain == "example.org"))
    );
    let records = queue.ask(r#"{"request":"dkim-records"}"#);
    assert_eq!(
        records["records"][1]["name"],
        "postern-ed25519._domainkey.example.org"
    );
    queue.stop();
}

#[tokio::test]
async fn without_the_right_certificate_or_any_tls_nothing_leaves() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let cases = [
        (
            "of another authority",
            Some(theirs.server("mx1.example.org")),
            "451 4.7.5",
        ),
        (
            "with another name",
            Some(ours.server("evil.example")),
            "451 4.7.5",
        ),
        ("not offered", None, "4"),
    ];
    for (case, tls, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        ours.credentials(directory.path());
        let sink = Sink::start();
        let host = host(&sink, tls);
        let mut queue = Queue::start(directory.path(), &configuration(host));
        send(&queue).await;
        let deferred = queue.wait(case, |kind| {
            matches!(kind, EventKind::Deferred { .. } | EventKind::Bounced { .. })
        });
        let EventKind::Deferred { reply, .. } = deferred else {
            panic!("{case}: {deferred:?}")
        };
        assert!(reply.starts_with(expected), "{case}: {reply}");
        assert!(sink.taken().is_empty(), "{case}");
        queue.stop();
    }
}
