//! The policy file by HTTPS (RFC 8461 3.3): the certificate must be right for `mta-sts.DOMAIN`, the answer 200 and text/plain; no
//! redirects, no proxies, bounded in size and time. Nothing is said before the certificate is verified, so that an address that the DNS
//! makes up gets no request from us.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::policy::{Policy, PolicyError};
use crate::deliver::dns::Dns;

/// RFC 8461 3.3 suggests a minute for all of it.
const WAIT: Duration = Duration::from_mins(1);
/// Octets of a policy (RFC 8461 3.3).
const MAX_BODY: usize = 64 << 10;
/// Addresses tried.
const MAX_ADDRESSES: usize = 4;
const PATH: &str = "/.well-known/mta-sts.txt";

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The name cannot be one.
    #[error("{0} is no name of a web server")]
    Name(String),
    /// The DNS has no address.
    #[error("{0} has no address in the DNS")]
    NoAddress(String),
    /// No connection, or its certificate is not right.
    #[error("{0}: {1}")]
    Connection(SocketAddr, std::io::Error),
    /// It is not HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// Another answer than a policy.
    #[error("the answer was {0}")]
    Status(StatusCode),
    /// RFC 8461 3.2.
    #[error("the answer is not text/plain")]
    MediaType,
    /// Broken off, or too long.
    #[error("the body cannot be read: {0}")]
    Body(String),
    /// Not the text of a policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// It took too long.
    #[error("no answer in {} s", WAIT.as_secs())]
    Late,
}

/// Fetches policies.
pub struct Fetcher {
    /// With the authorities that web servers are believed by.
    pub client: Arc<ClientConfig>,
    /// 443 but in tests.
    pub port: u16,
}

impl Fetcher {
    /// Fetches the policy of `domain`, which is in A-labels.
    pub async fn fetch(&self, dns: Dns, domain: &str) -> Result<Policy, FetchError> {
        let host = format!("mta-sts.{domain}");
        let fetched = tokio::time::timeout(WAIT, self.body(dns, &host)).await;
        let body = fetched.unwrap_or(Err(FetchError::Late))?;
        Ok(Policy::parse(&String::from_utf8_lossy(&body))?)
    }

    async fn body(&self, dns: Dns, host: &str) -> Result<Bytes, FetchError> {
        let stream = self.connect(dns, host).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with this scope, whatever the server does.
        let mut background = JoinSet::new();
        background.spawn(connection);
        let authority = if self.port == 443 {
            host.to_owned()
        } else {
            format!("{host}:{}", self.port)
        };
        let request = Request::get(PATH)
            .header(HOST, authority)
            .body(Empty::<Bytes>::new());
        let request = request.map_err(|_| FetchError::Name(host.to_owned()))?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let kind = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        if !kind.trim().eq_ignore_ascii_case("text/plain") {
            return Err(FetchError::MediaType);
        }
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        body.map(http_body_util::Collected::to_bytes)
            .map_err(|error| FetchError::Body(error.to_string()))
    }

    async fn connect(
        &self,
        dns: Dns,
        host: &str,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, FetchError> {
        let wrong = |_| FetchError::Name(host.to_owned());
        let name = ServerName::try_from(host.to_owned()).map_err(wrong)?;
        let mut last = FetchError::NoAddress(host.to_owned());
        for address in addresses(dns, host).await.into_iter().take(MAX_ADDRESSES) {
            let to = SocketAddr::new(address, self.port);
            let connected = async {
                let stream = TcpStream::connect(to).await?;
                TlsConnector::from(self.client.clone())
                    .connect(name.clone(), stream)
                    .await
            };
            // Each address gets its share of the time.
            let share = WAIT / u32::try_from(MAX_ADDRESSES).unwrap_or(1);
            match tokio::time::timeout(share, connected).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = FetchError::Connection(to, error),
                Err(_) => last = FetchError::Connection(to, std::io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last)
    }
}

async fn addresses(dns: Dns, host: &str) -> Vec<IpAddr> {
    let Ok(name) = Name::from_ascii(format!("{host}.")) else {
        return Vec::new();
    };
    let (six, four) = tokio::join!(
        dns.ask(name.clone(), RecordType::AAAA),
        dns.ask(name.clone(), RecordType::A)
    );
    let answers = [six, four].into_iter().flatten();
    answers
        .flat_map(|answer| answer.data)
        .filter_map(|data| RData::ip_addr(&data))
        .collect()
}
