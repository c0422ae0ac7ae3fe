//! Questions to the node's own validating resolver, whose word on DNSSEC counts.
//!
//! The AD bit of an answer (RFC 4035 3.2.3, asked for as in RFC 6840 5.7) is believed because the resolver is the node's unbound
//! on loopback: nobody is between us and it (RFC 7672 2.2 asks for exactly that). Bogus answers come as SERVFAIL and
//! are errors here, never "nothing there". The resolver caches; this client does not.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsHandle as _, DnsRequestSender as _, FirstAnswer as _};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

/// A resolver on the same node answers at once or is asking others: those may take this long.
const WAIT: Duration = Duration::from_secs(10);
/// Aliases followed within one answer.
const MAX_ALIASES: usize = 16;

/// The resolver.
#[derive(Debug, Clone, Copy)]
pub struct Dns {
    address: SocketAddr,
}

/// What the resolver said; without records of the kind asked for, that there are none.
#[derive(Debug)]
pub struct Answer {
    /// Data of the kind asked for, of the name or of what it is an alias of.
    pub data: Vec<RData>,
    /// Whether every record of the answer was validated, or its absence.
    pub authentic: bool,
    /// Whether the name does not exist at all.
    pub no_such_name: bool,
    /// The name at the end of the aliases; the one asked for where it is none.
    pub canonical: Name,
}

impl Dns {
    /// Asks the resolver at `address` and nobody else.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Asks one question. The error says why there is no answer now.
    pub async fn ask(&self, name: Name, kind: RecordType) -> Result<Answer, String> {
        let response = self
            .exchange(&name, kind)
            .await
            .map_err(|error| error.to_string())?;
        let no_such_name = match response.metadata.response_code {
            ResponseCode::NoError => false,
            ResponseCode::NXDomain => true,
            code => return Err(code.to_string()),
        };
        let mut canonical = name;
        for _ in 0..MAX_ALIASES {
            let alias = response.answers.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if record.name == canonical && kind != RecordType::CNAME => {
                    Some(&target.0)
                }
                _ => None,
            });
            match alias {
                Some(target) => canonical = target.clone(),
                None => break,
            }
        }
        let data = response
            .answers
            .iter()
            .filter(|record| record.record_type() == kind && record.name == canonical)
            .map(|record| record.data.clone());
        Ok(Answer {
            data: data.collect(),
            authentic: response.metadata.authentic_data,
            no_such_name,
            canonical,
        })
    }

    /// All TXT records of a name, each with its strings joined (RFC 7208 section 3.3); empty where there are none.
    pub async fn texts(&self, name: Name) -> Result<Vec<Vec<u8>>, String> {
        let answer = self.ask(name, RecordType::TXT).await?;
        let texts = answer.data.iter().filter_map(|data| match data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        });
        Ok(texts.collect())
    }

    /// UDP first, TCP where the answer was cut short.
    async fn exchange(&self, name: &Name, kind: RecordType) -> Result<DnsResponse, NetError> {
        let provider = TokioRuntimeProvider::default();
        let mut datagrams = UdpClientStream::builder(self.address, provider.clone())
            .with_timeout(Some(WAIT))
            .with_os_port_selection(true)
            .build();
        let response = datagrams.send_message(request(name, kind)).first_answer().await?;
        if !response.metadata.truncation {
            return Ok(response);
        }
        let stream = TcpClientStream::exchange(self.address, None, WAIT, None, provider).await?;
        stream.send(request(name, kind)).first_answer().await
    }
}

fn request(name: &Name, kind: RecordType) -> DnsRequest {
    let query = Query::query(name.clone(), kind);
    let mut request = DnsRequest::from_query(query, DnsRequestOptions::default());
    request.metadata.authentic_data = true;
    request
}

/// A domain in A-labels and lower case, without the trailing dot; none of what cannot be one.
pub fn a_labels(domain: &str) -> Option<String> {
    let name = Name::from_utf8(domain).ok()?;
    Some(name.to_ascii().trim_end_matches('.').to_ascii_lowercase())
}
