//! The policy file by HTTPS (RFC 8461 3.3): the certificate must be right for `mta-sts.DOMAIN`, the answer 200 and text/plain; no
//! redirects, no proxies, bounded in size and time. Nothing is said before the certificate is verified, so that an address that the DNS
//! makes up gets no request from us. TLS reports go to web servers by the same client, under the same rules.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::http::response::Parts;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use mail_auth::report::tlsrpt::ResultType;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::policy::{Policy, PolicyError};
use crate::deliver::dns::Dns;
use crate::deliver::observed::tls_error;
use crate::deliver::reach::Reach;

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
    /// Not a URL that is posted to.
    #[error("{0} is no https: URL of a named server at the usual port")]
    Url(String),
    /// The DNS has no address.
    #[error("{0} has no address in the DNS")]
    NoAddress(String),
    /// Where the DNS leads is no place for us to ask.
    #[error("{0} has no address of the public Internet that is not the site's own")]
    NotPublic(String),
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

impl FetchError {
    /// What a stranger may read of it in a report: nothing of what stands at an address that his own DNS names.
    pub fn told(&self) -> String {
        match self {
            Self::Connection(..) | Self::NotPublic(_) => {
                "no connection to the policy's host, or its certificate is not right".into()
            }
            _ => self.to_string(),
        }
    }

    /// What a TLS report calls it (RFC 8460 4.3.2.2).
    pub fn result_type(&self) -> ResultType {
        match self {
            Self::Connection(_, error) if rejected_certificate(error) => ResultType::StsWebpkiInvalid,
            Self::MediaType | Self::Policy(_) => ResultType::StsPolicyInvalid,
            _ => ResultType::StsPolicyFetchError,
        }
    }
}

fn rejected_certificate(error: &std::io::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// Fetches policies.
pub struct Fetcher {
    /// With the authorities that web servers are believed by.
    pub client: Arc<ClientConfig>,
    /// 443 but in tests.
    pub port: u16,
    /// Where requests may go.
    pub reach: Reach,
}

impl Fetcher {
    /// Fetches the policy of `domain`, which is in A-labels.
    pub async fn fetch(&self, dns: Dns, domain: &str) -> Result<Policy, FetchError> {
        let host = format!("mta-sts.{domain}");
        let fetched = tokio::time::timeout(WAIT, self.body(dns, &host)).await;
        let body = fetched.unwrap_or(Err(FetchError::Late))?;
        Ok(Policy::parse(&String::from_utf8_lossy(&body))?)
    }

    /// Posts a TLS report (RFC 8460 section 5.4). The server must prove itself as one of policies must: the RFC lets senders pass
    /// over that, but then a name that leads to one of our own hosts would get a request from us.
    pub async fn post(&self, dns: Dns, url: &str, kind: &str, octets: &[u8]) -> Result<(), FetchError> {
        let wrong = || FetchError::Url(url.chars().take(200).collect());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        let port = uri.port_u16().unwrap_or(443);
        let own = uri.scheme_str() == Some("https")
            && (port == self.port || uri.port().is_none())
            && matches!(ServerName::try_from(host), Ok(ServerName::DnsName(_)))
            && uri.authority().is_some_and(|whole| !whole.as_str().contains('@'));
        if !own {
            return Err(wrong());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path).header(CONTENT_TYPE, kind);
        let body = Bytes::copy_from_slice(octets);
        let posted = self.exchange(dns, host, request, body, |parts, _| async move {
            if parts.status.is_success() {
                Ok(())
            } else {
                Err(FetchError::Status(parts.status))
            }
        });
        let posted = tokio::time::timeout(WAIT, posted).await;
        posted.unwrap_or(Err(FetchError::Late))
    }

    async fn body(&self, dns: Dns, host: &str) -> Result<Bytes, FetchError> {
        let read = |parts: Parts, body| async move {
            if parts.status != StatusCode::OK {
                return Err(FetchError::Status(parts.status));
            }
            let kind = parts
                .headers
                .get(CONTENT_TYPE)
                .and_then(|kind| kind.to_str().ok());
            let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
            if !kind.trim().eq_ignore_ascii_case("text/plain") {
                return Err(FetchError::MediaType);
            }
            let body = Limited::new(body, MAX_BODY).collect().await;
            body.map(http_body_util::Collected::to_bytes)
                .map_err(|error| FetchError::Body(error.to_string()))
        };
        self.exchange(dns, host, Request::get(PATH), Bytes::new(), read)
            .await
    }

    /// One request, and what `read` makes of the answer.
    async fn exchange<T, F: Future<Output = Result<T, FetchError>>>(
        &self,
        dns: Dns,
        host: &str,
        request: Builder,
        body: Bytes,
        read: impl FnOnce(Parts, Incoming) -> F,
    ) -> Result<T, FetchError> {
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
        let request = request.header(HOST, authority).body(Full::new(body));
        let request = request.map_err(|_| FetchError::Name(host.to_owned()))?;
        let (parts, body) = sender.send_request(request).await?.into_parts();
        read(parts, body).await
    }

    async fn connect(
        &self,
        dns: Dns,
        host: &str,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, FetchError> {
        let wrong = |_| FetchError::Name(host.to_owned());
        let name = ServerName::try_from(host.to_owned()).map_err(wrong)?;
        let found = addresses(dns, host).await;
        let mut last = if found.is_empty() {
            FetchError::NoAddress(host.to_owned())
        } else {
            FetchError::NotPublic(host.to_owned())
        };
        let public = found.into_iter().filter(|address| self.reach.allows(*address));
        for address in public.take(MAX_ADDRESSES) {
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
