//! The site as it was read. All fields are private to the crate: outside it a [`Site`] only comes from
//! [`Site::parse`], checked.

use std::net::IpAddr;
use std::ops::{Deref, Range};

use ipnet::IpNet;

use crate::content::Content;
use crate::scanning::Scanning;
use crate::value::{Domain, Mac};

/// A value and where it stands in the file (a byte range).
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    value: T,
    span: Range<usize>,
}

impl<T> At<T> {
    pub(crate) fn new(value: T, span: Range<usize>) -> Self {
        Self { value, span }
    }

    /// A default, which stands nowhere.
    pub(crate) fn default_value(value: T) -> Self {
        Self { value, span: 0..0 }
    }

    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A checked site.
#[derive(Debug)]
pub struct Site {
    pub(crate) name: At<String>,
    pub(crate) domains: At<Vec<At<Domain>>>,
    pub(crate) postmaster: At<(String, Domain)>,
    pub(crate) dkim_selector: At<String>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) services: Vec<Service>,
    pub(crate) root: Option<PrivateRoot>,
    pub(crate) inbound_tls: InboundTls,
    pub(crate) outbound_tls: OutboundTls,
    pub(crate) tls_exceptions: Vec<TlsException>,
    pub(crate) smarthost: Option<Smarthost>,
    pub(crate) source_pools: Vec<SourcePool>,
    pub(crate) dns_lists: Vec<DnsList>,
    pub(crate) policy: Policy,
    pub(crate) options: Options,
    pub(crate) state: Option<StateHost>,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Firewall 1, mail gateway, IDS.
    Gateway,
    /// Firewall 2, mailboxes, mail platform.
    Internal,
}

impl Role {
    /// The word of the site file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Internal => "internal",
        }
    }
}

/// One machine of the site.
#[derive(Debug)]
pub struct Node {
    pub(crate) name: At<String>,
    pub(crate) role: At<Role>,
    pub(crate) hostname: At<Domain>,
    pub(crate) public_addresses: At<Vec<At<IpAddr>>>,
    pub(crate) links: Vec<Link>,
}

impl Node {
    /// The name that `--node` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the node is for.
    pub fn role(&self) -> Role {
        *self.role
    }

    /// The host name that the node's certificate carries.
    pub fn hostname(&self) -> &str {
        self.hostname.as_str()
    }

    pub(crate) fn link(&self, zone: Zone) -> Option<&Link> {
        self.links.iter().find(|link| link.zone == zone)
    }

    /// The node's addresses in a zone, in the order of the file.
    pub(crate) fn addresses(&self, zone: Zone) -> Vec<IpAddr> {
        self.link(zone)
            .map(|link| link.addresses.iter().map(|a| a.addr()).collect())
            .unwrap_or_default()
    }
}

/// The network that a link is in; also the link's name on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    Outside,
    Dmz,
    Internal,
}

impl Zone {
    pub(crate) const ALL: [Self; 3] = [Self::Outside, Self::Dmz, Self::Internal];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Dmz => "dmz",
            Self::Internal => "internal",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) zone: Zone,
    /// Where the link's table begins.
    pub(crate) span: Range<usize>,
    pub(crate) mac: At<Mac>,
    pub(crate) addresses: At<Vec<At<IpNet>>>,
    /// Next hops to everywhere else, at most one for each family; only on the outside link.
    pub(crate) gateways: Vec<At<IpAddr>>,
}

#[derive(Debug)]
pub(crate) struct Network {
    /// At most one network for each family.
    pub(crate) dmz: At<Vec<At<IpNet>>>,
    pub(crate) internal: At<Vec<At<IpNet>>>,
    pub(crate) app_servers: Vec<At<IpAddr>>,
    /// Addresses of the DMZ that no node may have.
    pub(crate) reserved: Vec<At<IpAddr>>,
}

/// A host and port of the internal network that the internal node may reach.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: At<String>,
    pub(crate) address: At<IpAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) port: At<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The host in the DMZ whose memory the gateways share: option `dmz-state`.
#[derive(Debug)]
pub(crate) struct StateHost {
    pub(crate) address: At<IpAddr>,
    pub(crate) port: At<u64>,
    /// What its certificate says.
    pub(crate) hostname: At<Domain>,
    /// Who the gateways are to it.
    pub(crate) user: At<String>,
}

/// A root zone other than the Internet's.
#[derive(Debug)]
pub(crate) struct PrivateRoot {
    pub(crate) servers: At<Vec<At<IpAddr>>>,
    pub(crate) trust_anchor: At<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InboundTls {
    Required,
    Offered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutboundTls {
    Required,
    Opportunistic,
}

/// What no scanner can look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EncryptedArchives {
    Refuse,
    Accept,
}

/// Whether reports of a kind go to domains that ask for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reports {
    Daily,
    Off,
}

/// A recipient domain whose hosts need not encrypt.
#[derive(Debug)]
pub(crate) struct TlsException {
    pub(crate) domain: At<Domain>,
    /// Why; it is only read by people.
    pub(crate) reason: At<String>,
}

/// Rows of the matrix that are off unless the site switches them on.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Internet to gateway, tcp/465.
    pub(crate) submissions: bool,
}

/// What goes first, and what then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailClass {
    Transactional,
    Bulk,
}

/// Addresses of gateways that some of the mail to the world leaves from.
#[derive(Debug)]
pub(crate) struct SourcePool {
    pub(crate) name: At<String>,
    pub(crate) addresses: At<Vec<At<IpAddr>>>,
    /// Name in EHLO; none is the node's.
    pub(crate) helo: Option<At<Domain>>,
    /// None is both.
    pub(crate) class: Option<MailClass>,
    /// Domains of reverse-paths; none is all.
    pub(crate) senders: Vec<At<Domain>>,
}

/// A provider's host that outward mail goes through, with a login.
#[derive(Debug)]
pub(crate) struct Smarthost {
    pub(crate) host: At<Domain>,
    pub(crate) port: At<u64>,
    /// TLS begins at once.
    pub(crate) implicit_tls: bool,
    /// Recipient domains; none is all.
    pub(crate) domains: Vec<At<Domain>>,
    /// Whose SPF record names the provider's addresses.
    pub(crate) spf_include: Option<At<Domain>>,
}

/// What follows from a bad sign of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attitude {
    Off,
    Mark,
    Reject,
}

impl Attitude {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Mark => "mark",
            Self::Reject => "reject",
        }
    }
}

/// A list of addresses in DNS.
#[derive(Debug)]
pub(crate) struct DnsList {
    pub(crate) zone: At<Domain>,
    pub(crate) action: At<ListAction>,
    /// Added to the spam score.
    pub(crate) weight: At<Option<f64>>,
    /// Answers that count; empty is all.
    pub(crate) codes: Vec<At<IpNet>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListAction {
    Reject,
    Mark,
    Score,
    Allow,
}

#[derive(Debug)]
pub(crate) struct Policy {
    /// Octets.
    pub(crate) max_message_size: At<u64>,
    pub(crate) max_recipients: At<u64>,
    /// Of each listening process.
    pub(crate) max_connections: At<u64>,
    /// For each client address; 0 is no limit.
    pub(crate) messages_per_hour: At<u64>,
    pub(crate) messages_per_hour_network: At<u64>,
    pub(crate) messages_per_hour_sender: At<u64>,
    pub(crate) messages_per_hour_recipient: At<u64>,
    /// Times these, for senders with a history of mail that passed DMARC.
    pub(crate) proven_factor: At<u64>,
    /// Percent of the capacity; 0 is never.
    pub(crate) stress_at: At<u64>,
    pub(crate) listed_peers: Vec<At<IpNet>>,
    /// Hosts before the gateway that name their clients by the PROXY protocol.
    pub(crate) proxies: Vec<At<IpNet>>,
    /// Logins that may write any sender address of the site.
    pub(crate) send_as_any: Vec<At<(String, Domain)>>,
    /// Domains whose ARC seals are believed where DMARC fails.
    pub(crate) trusted_sealers: Vec<At<Domain>>,
    /// Seconds; none is off.
    pub(crate) greylist_delay: At<Option<u64>>,
    pub(crate) reverse_dns: At<Attitude>,
    pub(crate) helo: At<Attitude>,
    pub(crate) mark_score: At<f64>,
    pub(crate) reject_score: At<f64>,
    pub(crate) encrypted_archives: At<EncryptedArchives>,
    pub(crate) content: Content,
    pub(crate) scanning: Scanning,
    pub(crate) dmarc_reports: At<Reports>,
    pub(crate) tls_reports: At<Reports>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_message_size: At::default_value(50 << 20),
            max_recipients: At::default_value(100),
            max_connections: At::default_value(1000),
            messages_per_hour: At::default_value(100),
            messages_per_hour_network: At::default_value(1000),
            messages_per_hour_sender: At::default_value(1000),
            messages_per_hour_recipient: At::default_value(1000),
            proven_factor: At::default_value(10),
            stress_at: At::default_value(80),
            listed_peers: Vec::new(),
            proxies: Vec::new(),
            send_as_any: Vec::new(),
            trusted_sealers: Vec::new(),
            greylist_delay: At::default_value(Some(300)),
            reverse_dns: At::default_value(Attitude::Mark),
            helo: At::default_value(Attitude::Mark),
            mark_score: At::default_value(5.0),
            reject_score: At::default_value(10.0),
            encrypted_archives: At::default_value(EncryptedArchives::Refuse),
            content: Content::default(),
            scanning: Scanning::default(),
            dmarc_reports: At::default_value(Reports::Daily),
            tls_reports: At::default_value(Reports::Daily),
        }
    }
}

/// TCP ports that the matrix opens from the gateway to the Internet, always.
const GATEWAY_TO_WORLD: [u64; 4] = [25, 53, 80, 443];

/// The site has no node of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the site {site} has no node `{node}`; its nodes are: {known}")]
pub struct UnknownNode {
    site: String,
    node: String,
    known: String,
}

impl Site {
    /// The site's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mail domains of the site, in the order of the file.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().map(|domain| domain.as_str())
    }

    /// The postmaster's address.
    pub fn postmaster(&self) -> String {
        format!("{}@{}", self.postmaster.0, self.postmaster.1)
    }

    /// All nodes, in the order of the file.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Result<&Node, UnknownNode> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .ok_or_else(|| UnknownNode {
                site: self.name().to_owned(),
                node: name.to_owned(),
                known: self.nodes.iter().map(Node::name).collect::<Vec<_>>().join(", "),
            })
    }

    /// The host name of the shared state, where the site names one; its certificate carries it.
    pub fn state_hostname(&self) -> Option<&str> {
        self.state.as_ref().map(|state| state.hostname.as_str())
    }

    pub(crate) fn gateways(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role() == Role::Gateway)
    }

    pub(crate) fn internals(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role() == Role::Internal)
    }

    /// All gateways' addresses in the DMZ.
    pub(crate) fn gateway_addresses(&self) -> Vec<IpAddr> {
        self.gateways()
            .flat_map(|node| node.addresses(Zone::Dmz))
            .collect()
    }

    /// The internal mail server's addresses: those of the internal node on its inside link.
    pub(crate) fn mail_server_addresses(&self) -> Vec<IpAddr> {
        self.internals()
            .flat_map(|node| node.addresses(Zone::Internal))
            .collect()
    }

    /// Whether outward mail goes through a provider's host, so that a login is needed there.
    pub fn has_smarthost(&self) -> bool {
        self.smarthost.is_some()
    }

    /// The port that the firewall opens for the smarthost, where no row of the matrix has it.
    pub(crate) fn smarthost_port(&self) -> Option<u64> {
        let port = *self.smarthost.as_ref()?.port;
        (!GATEWAY_TO_WORLD.contains(&port)).then_some(port)
    }

    /// What MX and SPF publish.
    pub(crate) fn public_addresses(&self) -> Vec<IpAddr> {
        self.gateways()
            .flat_map(|node| node.public_addresses.iter().map(|a| **a))
            .collect()
    }
}
