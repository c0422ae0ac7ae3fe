//! `relay.toml`: all that the mail daemon knows. The exposed process never holds the whole site.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::{client, header, quoted, quoted_list, smarthost, source_pool};
use crate::model::{At, EncryptedArchives, InboundTls, Node, OutboundTls, Reports, Role, Site, Zone};

pub(super) fn render(site: &Site, node: &Node) -> String {
    let mut out = header(site, node.name());
    out += &common(site, node);
    out += &match node.role() {
        Role::Gateway => gateway(site) + &source_pool::pools(site, node) + &self_check(site, node),
        Role::Internal => internal(site),
    };
    out +=
        "\n[queue]\nretry = [60, 300, 900, 1800, 3600]\nexpire = 432000\nconcurrency-per-destination = 10\n";
    out
}

fn common(site: &Site, node: &Node) -> String {
    // Only the gateway counts messages per client address: the gateway itself is one address for many senders,
    // and so is the internal mail server to the gateway.
    let (per_hour, own) = match node.role() {
        Role::Gateway => (per_hour(site), site.mail_server_addresses()),
        Role::Internal => ("messages-per-hour = 0\n".to_owned(), Vec::new()),
    };
    let listed = own
        .iter()
        .map(ToString::to_string)
        .chain(site.policy.listed_peers.iter().map(peer));
    format!(
        "role = {role}
hostname = {hostname}
local-domains = {domains}
postmaster = {postmaster}
{sealers}state-directory = \"/var/lib/postern\"
runtime-directory = \"/run/postern\"

[resolver]
address = \"127.0.0.1:53\"

[limits]
max-message-size = {size}
max-recipients = {recipients}
max-connections = {connections}
max-connections-per-address = 50
{per_hour}command-timeout = 300
data-timeout = 600
max-errors = 10
max-hops = 50
listed-peers = {listed}
",
        role = quoted(node.role().as_str()),
        hostname = quoted(node.hostname()),
        domains = quoted_list(site.domains()),
        postmaster = quoted(&site.postmaster()),
        sealers = match node.role() {
            Role::Gateway => format!(
                "trusted-sealers = {}\n",
                quoted_list(site.policy.trusted_sealers.iter().map(|sealer| sealer.as_str()))
            ),
            Role::Internal => String::new(),
        },
        size = *site.policy.max_message_size,
        recipients = *site.policy.max_recipients,
        connections = *site.policy.max_connections,
        listed = quoted_list(listed),
    )
}

fn per_hour(site: &Site) -> String {
    let policy = &site.policy;
    format!(
        "messages-per-hour = {}
messages-per-hour-network = {}
messages-per-hour-sender = {}
messages-per-hour-recipient = {}
proven-factor = {}
",
        *policy.messages_per_hour,
        *policy.messages_per_hour_network,
        *policy.messages_per_hour_sender,
        *policy.messages_per_hour_recipient,
        *policy.proven_factor,
    )
}

fn proxies(site: &Site) -> String {
    let proxies = &site.policy.proxies;
    if proxies.is_empty() {
        return String::new();
    }
    format!(
        "proxy-protocol-from = {}\n",
        quoted_list(proxies.iter().map(peer))
    )
}

fn gateway(site: &Site) -> String {
    let policy = &site.policy;
    let inbound = match site.inbound_tls {
        InboundTls::Required => "required",
        InboundTls::Offered => "offered",
    };
    let outbound = match site.outbound_tls {
        OutboundTls::Required => "required",
        OutboundTls::Opportunistic => "opportunistic",
    };
    let greylist = policy
        .greylist_delay
        .map_or(String::new(), |delay| format!("\n[greylist]\ndelay = {delay}\n"));
    let greylist_check = if greylist.is_empty() { "" } else { ", \"greylist\"" };
    let exceptions = tls_exceptions(site);
    let domains = quoted_list(site.domains());
    let (internal_host, internal_name) = internal_server(site);
    let app_servers = quoted_list(site.network.app_servers.iter().map(|a| a.to_string()));
    format!(
        "
[stress]
at-percent = {stress}

[instance.public]
tls = \"{inbound}\"
certificate = \"smtp.crt\"
key = \"smtp.key\"
{proxies}relay-for = \"local-domains\"
authentication = \"none\"
checks = [{client_checks}\"spf\", \"dkim\", \"arc\", \"dmarc\", \"content\", \"spam\", \"virus\"{greylist_check}, \"recipient\"]
submission = \"pass-inward\"

[instance.inside]
tls = \"required\"
certificate = \"node.crt\"
key = \"node.key\"
client-ca = \"ca.crt\"
trusted-addresses = {app_servers}
trusted-names = [{internal_name}]
relay-for = \"any\"
authentication = \"client-certificate\"
checks = [\"virus\"]
{client}{greylist}
[spam]
socket = \"/run/spamd/spamd.sock\"
timeout = 60
mark-score = {mark:?}
reject-score = {reject:?}

[virus]
socket = \"/run/clamav/clamd.sock\"
timeout = 60
encrypted = \"{encrypted}\"
{content}
[recipient]
via = \"proxy\"
cache-seconds = 300

[proxy]
next-hop = \"internal\"
{shared_state}{next_hop}
[next-hop.world]
kind = \"mx\"
tls = \"{outbound}\"
port = 25
{exceptions}
{mta_sts}{reports}[[route]]
from = [\"public\"]
domains = {domains}
next-hop = \"internal\"

[[route]]
from = [\"inside\"]
domains = {domains}
next-hop = \"internal\"
{smarthost}
[[route]]
from = [\"inside\"]
domains = [\"*\"]
next-hop = \"world\"
sign = true

[dkim]
directory = \"dkim\"
selector = {selector}
domains = {domains}
",
        stress = *policy.stress_at,
        proxies = proxies(site),
        client_checks = client::checks(site),
        client = client::render(site),
        mark = *policy.mark_score,
        reject = *policy.reject_score,
        encrypted = match *policy.encrypted_archives {
            EncryptedArchives::Refuse => "refuse",
            EncryptedArchives::Accept => "accept",
        },
        content = policy.scanning.render() + &policy.content.render(),
        mta_sts = mta_sts(site),
        reports = reports(site),
        shared_state = shared_state(site),
        next_hop = mutual_hop("internal", &internal_host, &internal_name),
        smarthost = smarthost::hop_and_route(site),
        selector = quoted(&site.dkim_selector),
    )
}

/// No web server of others is in our own networks.
fn mta_sts(site: &Site) -> String {
    let networks = site.network.dmz.iter().chain(site.network.internal.iter());
    let networks = networks.map(|network| network.to_string());
    let addresses = site.public_addresses();
    let own = networks.chain(addresses.iter().map(ToString::to_string));
    format!(
        "[mta-sts]\ndirectory = \"mta-sts\"\nport = 443\nown-networks = {}\n\n",
        quoted_list(own)
    )
}

fn reports(site: &Site) -> String {
    let (dmarc, tls) = (*site.policy.dmarc_reports, *site.policy.tls_reports);
    if (dmarc, tls) == (Reports::Off, Reports::Off) {
        return String::new();
    }
    let is_off = |key, reports| {
        if reports == Reports::Off {
            format!("{key} = false\n")
        } else {
            String::new()
        }
    };
    format!(
        "[reports]\nfrom = {}\n{}{}\n",
        quoted(&site.postmaster()),
        is_off("dmarc", dmarc),
        is_off("tls", tls)
    )
}

fn internal(site: &Site) -> String {
    let domains = quoted_list(site.domains());
    let mut gateways = site.gateways().map(|node| quoted(node.hostname()));
    let trusted: Vec<String> = gateways.by_ref().collect();
    let mut out = format!(
        "
[instance.dmz]
tls = \"required\"
certificate = \"node.crt\"
key = \"node.key\"
client-ca = \"ca.crt\"
trusted-names = [{trusted}]
relay-for = \"local-domains\"
authentication = \"client-certificate\"
checks = [\"recipient\"]
submission = \"from-gateway\"
send-as-any = {send_as_any}

[instance.inside]
tls = \"required\"
certificate = \"smtp.crt\"
key = \"smtp.key\"
relay-for = \"any\"
authentication = \"sasl\"
send-as-any = {send_as_any}
checks = [\"recipient\"]

[recipient]
via = \"lmtp\"
cache-seconds = 300

[sasl]
socket = \"/run/dovecot/auth-postern\"

[next-hop.mailboxes]
kind = \"lmtp\"
socket = \"/run/dovecot/lmtp\"
",
        trusted = trusted.join(", "),
        send_as_any = quoted_list(site.policy.send_as_any.iter().map(|a| format!("{}@{}", a.0, a.1))),
    );
    // Mail outward takes the first gateway of the file; the others only bring mail in.
    if let Some(first) = site.gateways().next() {
        let host = first
            .addresses(Zone::Dmz)
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        out += &mutual_hop("gateway", &quoted(&host), &quoted(first.hostname()));
    }
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "
[[route]]
from = [\"dmz\"]
domains = {domains}
next-hop = \"mailboxes\"

[[route]]
from = [\"inside\", \"submission\"]
domains = {domains}
next-hop = \"mailboxes\"

[[route]]
from = [\"inside\", \"submission\"]
domains = [\"*\"]
next-hop = \"gateway\"
"
    );
    out
}

/// What the gateways remember together; empty where the site names no host for it.
fn shared_state(site: &Site) -> String {
    let Some(state) = &site.state else {
        return String::new();
    };
    let address = SocketAddr::new(*state.address, u16::try_from(*state.port).unwrap_or_default());
    format!(
        "
[shared-state]
address = \"{address}\"
server-name = {name}
ca = \"ca.crt\"
certificate = \"node.crt\"
key = \"node.key\"
user = {user}
password = \"dmz-state.password\"
",
        name = quoted(state.hostname.as_str()),
        user = quoted(&state.user),
    )
}

/// The addresses are those that others see. Where all mail leaves by a smarthost, its own addresses count, which we do not know.
fn self_check(site: &Site, node: &Node) -> String {
    let elsewhere = site.smarthost.as_ref().is_some_and(|one| one.domains.is_empty());
    let own = node.public_addresses.iter().map(|address| address.to_string());
    let addresses: Vec<String> = own.filter(|_| !elsewhere).collect();
    format!(
        "\n[self-check]\naddresses = {}\nevery = 21600\n",
        quoted_list(addresses)
    )
}

/// Each domain with its reason, for who reads the file on the node; empty where there is none.
fn tls_exceptions(site: &Site) -> String {
    if site.tls_exceptions.is_empty() {
        return String::new();
    }
    let lines = site
        .tls_exceptions
        .iter()
        .map(|one| format!("    {}, # {}\n", quoted(one.domain.as_str()), *one.reason));
    format!("tls-exceptions = [\n{}]\n", lines.collect::<String>())
}

/// The internal mail server's address and certificate name, quoted.
fn internal_server(site: &Site) -> (String, String) {
    let host = site
        .mail_server_addresses()
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let name = site
        .internals()
        .next()
        .map(|node| node.hostname().to_owned())
        .unwrap_or_default();
    (quoted(&host), quoted(&name))
}

/// A next hop between our own nodes, both sides proved by certificates of the site's authority.
fn mutual_hop(name: &str, host: &str, server_name: &str) -> String {
    format!(
        "
[next-hop.{name}]
kind = \"smtp\"
host = {host}
port = 25
tls = \"mutual\"
server-name = {server_name}
certificate = \"node.crt\"
key = \"node.key\"
ca = \"ca.crt\"
"
    )
}

/// An address without its full prefix length, or a network.
pub(super) fn peer(net: &At<IpNet>) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}
