//! A name server for the checks: records of one small world, over UDP on loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::arc::ArcSealer;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use mail_auth::hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use mail_auth::hickory_resolver::proto::rr::rdata::{A, PTR, TXT};
use mail_auth::hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mail_auth::{
    ArcOutput, AuthenticatedMessage, AuthenticationResults, DkimResult, DmarcOutput, DmarcResult,
};

/// Domains and what they publish. Whatever is not here does not exist; `temporary.example` fails to answer for SPF.
const WORLD: &[(&str, &str)] = &[
    ("pass.example", "v=spf1 ip4:127.0.0.0/8 -all"),
    ("_dmarc.pass.example", "v=DMARC1; p=reject"),
    ("reject.example", "v=spf1 -all"),
    ("_dmarc.reject.example", "v=DMARC1; p=reject"),
    ("quarantine.example", "v=spf1 -all"),
    ("_dmarc.quarantine.example", "v=DMARC1; p=quarantine"),
    ("watching.example", "v=spf1 -all"),
    ("_dmarc.watching.example", "v=DMARC1; p=none"),
    ("_dmarc.temporary.example", "v=DMARC1; p=reject"),
    (
        "_dmarc.reporting.example",
        "v=DMARC1; p=none; rua=mailto:reports@reporting.example",
    ),
    ("signed.example", "v=spf1 -all"),
    ("_dmarc.signed.example", "v=DMARC1; p=reject"),
];
const BROKEN: [&str; 2] = ["temporary.example", "arc._domainkey.temporary.example"];
/// The key of all sealers of the messages in `tests/protocol/arc`, below the name `arc`.
const SEALERS: &str = include_str!("../../../../tests/protocol/arc/key.txt");

/// Names and their addresses: hosts, and entries of the lists that the kind `client` asks. The lists `block`, `mark`, `allow` and
/// `silent` keep the promise of RFC 5782 section 5; `everybody` and `nobody` do not, and `refusing` does not serve us.
const HOSTS: &[(&str, [u8; 4])] = &[
    ("client.example", [127, 0, 44, 1]),
    ("elsewhere.example", [192, 0, 2, 1]),
    ("2.0.0.127.block.example", [127, 0, 0, 2]),
    ("1.41.0.127.block.example", [127, 0, 0, 3]),
    ("1.42.0.127.block.example", [127, 0, 0, 9]),
    ("1.43.0.127.block.example", [127, 0, 0, 2]),
    ("2.0.0.127.mark.example", [127, 0, 0, 2]),
    ("1.48.0.127.mark.example", [127, 0, 0, 2]),
    ("2.0.0.127.allow.example", [127, 0, 0, 2]),
    ("1.43.0.127.allow.example", [127, 0, 5, 2]),
    ("2.0.0.127.silent.example", [127, 0, 0, 2]),
];
/// Owners below these have this address, whatever they are.
const WILD: &[(&str, [u8; 4])] = &[
    (".everybody.example", [127, 0, 0, 2]),
    (".refusing.example", [127, 255, 255, 254]),
];
/// Addresses in the reverse DNS, and their names.
const NAMED: &[(&str, &str)] = &[
    ("1.44.0.127.in-addr.arpa", "client.example."),
    ("1.45.0.127.in-addr.arpa", "elsewhere.example."),
    ("1.48.0.127.in-addr.arpa", "nowhere.example."),
];

/// The world and the key of `signed.example`.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    key: Vec<u8>,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let key = Ed25519Key::generate_pkcs8().expect("a key");
        let public = Ed25519Key::from_pkcs8_der(&key)
            .expect("our key is one")
            .public_key();
        let record = format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(public));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        std::thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut packet) {
                if let Some(answer) = answer(&packet[..length], &record) {
                    // A lost answer is what UDP may do; the client asks again.
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self { address, key }
    }

    /// `message` with the signature of `signed.example` in front.
    pub(crate) fn signed(&self, message: &str) -> String {
        let key = Ed25519Key::from_pkcs8_der(&self.key).expect("our key is one");
        let signature = DkimSigner::from_key(key)
            .domain("signed.example")
            .selector("s")
            .headers(["From", "Subject"])
            .sign(message.as_bytes())
            .expect("it can be signed");
        signature.to_header() + message
    }

    /// `message` with an ARC set of `signed.example` in front, which saw DMARC pass.
    pub(crate) fn sealed(&self, message: &str) -> String {
        let key = Ed25519Key::from_pkcs8_der(&self.key).expect("our key is one");
        let passed = DmarcOutput::new("reject.example".to_owned()).with_dkim_result(DmarcResult::Pass);
        let results = AuthenticationResults::new("signed.example").with_dmarc_result(&passed);
        let original = AuthenticatedMessage::parse(message.as_bytes()).expect("a header");
        let set = ArcSealer::from_key(key)
            .domain("signed.example")
            .selector("s")
            .headers(["From", "Subject"])
            .seal(&original, &results, &ArcOutput::default())
            .expect("it can be sealed");
        set.to_header() + message
    }

    /// Whether a message that went through still has a valid signature.
    pub(crate) fn verifies(&self, message: &str) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(async {
            let authenticator =
                postern_relay::resolver::authenticator(self.address).map_err(|error| error.to_string())?;
            let message = AuthenticatedMessage::parse(message.as_bytes()).ok_or("no header")?;
            let outputs = authenticator.verify_dkim(&message).await;
            let results: Vec<String> = outputs.iter().map(|output| output.result().to_string()).collect();
            let passed = outputs.iter().any(|output| *output.result() == DkimResult::Pass);
            if passed {
                Ok(())
            } else {
                Err(format!("signatures: {results:?}"))
            }
        })
    }
}

fn answer(packet: &[u8], dkim_record: &str) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(packet).ok()?;
    let query = message.queries.first()?.clone();
    let name = query.name().to_string().trim_end_matches('.').to_lowercase();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    let text = match name.as_str() {
        "s._domainkey.signed.example" => Some(dkim_record),
        name if name.starts_with("arc._domainkey.") => Some(SEALERS.trim_end()),
        _ => WORLD
            .iter()
            .find(|(owner, _)| *owner == name)
            .map(|(_, text)| *text),
    };
    let host = HOSTS.iter().find(|(owner, _)| *owner == name);
    let host = host.or(WILD.iter().find(|(end, _)| name.ends_with(end)));
    let named = NAMED.iter().find(|(owner, _)| *owner == name);
    // It keeps its promise, and then says nothing of anybody.
    let silent = name.ends_with(".silent.example") && !name.ends_with(".0.0.127.silent.example");
    message.metadata.response_code = match text {
        _ if BROKEN.contains(&name.as_str()) || silent => ResponseCode::ServFail,
        None if host.is_some() || named.is_some() => {
            let data = match query.query_type() {
                RecordType::A => host.map(|(_, address)| RData::A(A(Ipv4Addr::from(*address)))),
                RecordType::PTR => {
                    named.and_then(|(_, host)| Some(RData::PTR(PTR(Name::from_ascii(host).ok()?))))
                }
                _ => None,
            };
            if let Some(data) = data {
                message.add_answer(Record::from_rdata(query.name().clone(), 60, data));
            }
            ResponseCode::NoError
        }
        Some(text) => {
            if query.query_type() == RecordType::TXT {
                // A string has 255 octets at most (RFC 1035 section 3.3.14); a record may have several.
                let strings = text.as_bytes().chunks(255).map(String::from_utf8_lossy);
                let data = RData::TXT(TXT::new(strings.map(Into::into).collect()));
                message.add_answer(Record::from_rdata(query.name().clone(), 60, data));
            }
            ResponseCode::NoError
        }
        None => ResponseCode::NXDomain,
    };
    message.to_vec().ok()
}
