//! One SMTP session of the self-test: octets out exactly as given, replies in, STARTTLS when it is offered.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use postern_smtp::reply::{Parser, Reply, ReplyError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// Where the node is, and how long it may take to answer.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) name: ServerName<'static>,
    pub(super) timeout: Duration,
    tls: Arc<ClientConfig>,
}

impl Target {
    pub(super) fn new(
        address: SocketAddr,
        name: ServerName<'static>,
        timeout: Duration,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Ok(Self {
            address,
            name,
            timeout,
            tls: Arc::new(tls),
        })
    }
}

/// Why no reply came.
#[derive(Debug)]
pub(super) enum Ended {
    /// The node closed or reset the connection.
    Closed,
    /// It did not answer in time.
    Silent,
    /// What it sent is not a reply.
    Garbled(ReplyError),
    /// TLS or the network failed otherwise.
    Failed(io::Error),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the node closed the connection"),
            Self::Silent => f.write_str("the node did not answer in time"),
            Self::Garbled(error) => error.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof, WouldBlock,
        };
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof => Self::Closed,
            TimedOut | WouldBlock => Self::Silent,
            _ => Self::Failed(error),
        }
    }
}

enum Stream {
    Clear(TcpStream),
    Encrypted(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A session, in clear until [`Session::encrypt`].
pub(super) struct Session {
    stream: Stream,
    parser: Parser,
    unread: Vec<u8>,
}

impl Session {
    /// A connection on which nothing was said or read.
    pub(super) fn connect(target: &Target) -> Result<Self, Ended> {
        let stream = TcpStream::connect_timeout(&target.address, target.timeout)?;
        stream.set_read_timeout(Some(target.timeout))?;
        stream.set_write_timeout(Some(target.timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: Stream::Clear(stream),
            parser: Parser::default(),
            unread: Vec::new(),
        })
    }

    /// A session that has said EHLO, encrypted where the node offers that. The EHLO reply is given with it.
    pub(super) fn ready(target: &Target) -> Result<(Self, Reply), Ended> {
        let mut session = Self::connect(target)?;
        session.reply()?;
        let offered = session.command(EHLO)?;
        if !offers(&offered, "STARTTLS") || !session.command("STARTTLS")?.is_positive() {
            return Ok((session, offered));
        }
        let mut session = session.encrypt(target)?;
        let offered = session.command(EHLO)?;
        Ok((session, offered))
    }

    /// The same connection inside TLS; the handshake happens with the first octets.
    pub(super) fn encrypt(self, target: &Target) -> Result<Self, Ended> {
        let Stream::Clear(stream) = self.stream else {
            return Ok(self);
        };
        let client = ClientConnection::new(Arc::clone(&target.tls), target.name.clone())
            .map_err(|error| Ended::Failed(io::Error::other(error)))?;
        Ok(Self {
            stream: Stream::Encrypted(Box::new(StreamOwned::new(client, stream))),
            parser: Parser::default(),
            unread: Vec::new(),
        })
    }

    pub(super) fn send(&mut self, octets: &[u8]) -> Result<(), Ended> {
        let stream: &mut dyn Write = match &mut self.stream {
            Stream::Clear(stream) => stream,
            Stream::Encrypted(stream) => stream,
        };
        stream.write_all(octets)?;
        Ok(stream.flush()?)
    }

    pub(super) fn reply(&mut self) -> Result<Reply, Ended> {
        let mut piece = [0; 4096];
        loop {
            let mut input = self.unread.as_slice();
            let reply = self.parser.input(&mut input).map_err(Ended::Garbled)?;
            self.unread = input.to_vec();
            if let Some(reply) = reply {
                return Ok(reply);
            }
            let stream: &mut dyn Read = match &mut self.stream {
                Stream::Clear(stream) => stream,
                Stream::Encrypted(stream) => stream,
            };
            match stream.read(&mut piece)? {
                0 => return Err(Ended::Closed),
                count => self.unread.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// Sends a line and waits for its reply.
    pub(super) fn command(&mut self, line: &str) -> Result<Reply, Ended> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Says QUIT and gives every reply that comes until the node closes, at most `most`.
    pub(super) fn rest(mut self, most: usize) -> Vec<Reply> {
        let mut replies = Vec::new();
        if self.send(b"NOOP\r\nQUIT\r\n").is_ok() {
            while replies.len() < most
                && let Ok(reply) = self.reply()
            {
                replies.push(reply);
            }
        }
        replies
    }
}

pub(super) const EHLO: &str = "EHLO postern-selftest.invalid";

/// Whether an EHLO reply names this extension (RFC 5321 section 4.1.1.1).
pub(super) fn offers(ehlo: &Reply, keyword: &str) -> bool {
    ehlo.lines.iter().skip(1).any(|line| {
        line.split([' ', '='])
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    })
}

/// Takes any certificate: the self-test asks how a node behaves, not who it is, and sends it nothing that is secret.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
