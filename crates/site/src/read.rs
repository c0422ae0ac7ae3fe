//! From the text of a site file to the model: each section is read whole, each fault reported, and only a
//! file without a missing or malformed value becomes a [`Site`] for `check` to look at.

mod client;
mod nodes;
mod smarthost;
mod source_pool;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::content;
use crate::diagnostic::{Fault, Report};
use crate::model::{
    At, EncryptedArchives, InboundTls, Network, Options, OutboundTls, Policy, PrivateRoot, Protocol, Reports,
    Service, Site, StateHost, TlsException,
};
use crate::reader::Reader;
use crate::scanning;
use crate::value;

pub(crate) fn site(text: &str, report: &mut Report) -> Option<Site> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let remedy =
                "correct the TOML of this line; a string stands in double quotes, a list in square brackets";
            report.add(error.span().unwrap_or(0..0), error.message(), remedy);
        }
        return None;
    }
    let end = text.trim_end().len();
    let mut root = Reader::new("the file", end..end, document.get_ref(), report);

    let identity = required_section(&mut root, "site", identity);
    let nodes = nodes::read(&mut root);
    let network = required_section(&mut root, "network", network);
    let services = list_of_sections(&mut root, "service", service);
    let dns = optional_section(&mut root, "dns", private_root);
    let tls = optional_section(&mut root, "tls", tls);
    let exceptions = list_of_sections(&mut root, "tls-exception", tls_exception);
    let smarthost = optional_section(&mut root, "smarthost", smarthost::read);
    let source_pools = list_of_sections(&mut root, "source-pool", source_pool::read);
    let dns_lists = list_of_sections(&mut root, "dns-list", client::dns_list);
    let policy = optional_section(&mut root, "policy", policy);
    let options = optional_section(&mut root, "options", options);
    let state = optional_section(&mut root, "dmz-state", state_host);
    root.finish();

    let identity = identity?;
    let (inbound_tls, outbound_tls) = tls?.unwrap_or((InboundTls::Required, OutboundTls::Required));
    Some(Site {
        name: identity.name,
        domains: identity.domains,
        postmaster: identity.postmaster,
        dkim_selector: identity.dkim_selector,
        nodes: nodes?,
        network: network?,
        services: services?,
        root: dns?.flatten(),
        inbound_tls,
        outbound_tls,
        tls_exceptions: exceptions?,
        smarthost: smarthost?,
        source_pools: source_pools?,
        dns_lists: dns_lists?,
        policy: policy?.unwrap_or_default(),
        options: options?.unwrap_or_default(),
        state: state?,
    })
}

type Section<T> = fn(&mut Reader<'_, '_>) -> Option<T>;

fn read_section<T>(
    outer: &mut Reader<'_, '_>,
    name: String,
    value: &Spanned<DeValue<'_>>,
    read: Section<T>,
) -> Option<T> {
    let DeValue::Table(table) = value.get_ref() else {
        return None;
    };
    let mut inner = Reader::new(name, value.span(), table, outer.report);
    let section = read(&mut inner);
    inner.finish();
    section
}

fn required_section<T>(root: &mut Reader<'_, '_>, key: &'static str, read: Section<T>) -> Option<T> {
    if let Some(found) = root.table(key) {
        return read_section(root, format!("[{key}]"), found, read);
    }
    if root.key_span(key).is_none() {
        root.missing(
            &format!("[{key}]"),
            &format!("add a section [{key}]; docs/site.example.toml shows a whole file"),
        );
    }
    None
}

/// `None`: there and faulty; `Some(None)`: left out.
#[allow(clippy::option_option)]
fn optional_section<T>(root: &mut Reader<'_, '_>, key: &'static str, read: Section<T>) -> Option<Option<T>> {
    match root.table(key) {
        Some(found) => read_section(root, format!("[{key}]"), found, read).map(Some),
        None if root.key_span(key).is_some() => None,
        None => Some(None),
    }
}

/// A value that may be left out: `None` only where it is there and faulty.
fn or_default<T>(reader: &Reader<'_, '_>, key: &str, read: Option<At<T>>, default: T) -> Option<At<T>> {
    match (read, reader.key_span(key)) {
        (None, None) => Some(At::default_value(default)),
        (read, _) => read,
    }
}

/// A list that may be left out.
fn or_empty<T>(reader: &Reader<'_, '_>, key: &str, read: Option<At<Vec<At<T>>>>) -> Option<Vec<At<T>>>
where
    At<T>: Clone,
{
    or_default(reader, key, read, Vec::new()).map(|list| list.to_vec())
}

struct Identity {
    name: At<String>,
    domains: At<Vec<At<value::Domain>>>,
    postmaster: At<(String, value::Domain)>,
    dkim_selector: At<String>,
}

fn identity(table: &mut Reader<'_, '_>) -> Option<Identity> {
    let name = table.required_text(
        "name",
        "add a short name for the site, such as name = \"example\"",
        value::label,
    );
    let domains = table.list("domains", value::domain);
    if table.key_span("domains").is_none() {
        table.missing(
            "domains",
            "add the mail domains of the site, such as domains = [\"example.org\"]",
        );
    }
    let postmaster = table.required_text(
        "postmaster",
        "add the address that gets the mail for postmaster, such as postmaster = \"postmaster@example.org\"",
        value::mail_address,
    );
    let selector = table.text("dkim-selector", value::label);
    let dkim_selector = or_default(table, "dkim-selector", selector, "postern".to_owned());
    Some(Identity {
        name: name?,
        domains: domains?,
        postmaster: postmaster?,
        dkim_selector: dkim_selector?,
    })
}

fn network(table: &mut Reader<'_, '_>) -> Option<Network> {
    let dmz = table.one_or_list("dmz", value::network);
    if table.key_span("dmz").is_none() {
        table.missing(
            "dmz",
            "add the network between the nodes, such as dmz = \"10.200.9.0/24\"",
        );
    }
    let internal = table.one_or_list("internal", value::network);
    if table.key_span("internal").is_none() {
        table.missing(
            "internal",
            "add the internal network, such as internal = \"10.200.1.0/24\"",
        );
    }
    let app_servers = table.list("app-servers", value::address);
    let app_servers = or_empty(table, "app-servers", app_servers);
    let reserved = table.list("reserved", value::address);
    let reserved = or_empty(table, "reserved", reserved);
    Some(Network {
        dmz: dmz?,
        internal: internal?,
        app_servers: app_servers?,
        reserved: reserved?,
    })
}

/// Tables of one kind, `[[key]]`; none where the key is left out.
fn list_of_sections<T>(root: &mut Reader<'_, '_>, key: &'static str, read: Section<T>) -> Option<Vec<T>> {
    if root.key_span(key).is_none() {
        root.allow(key);
        return Some(Vec::new());
    }
    let sections: Vec<_> = root
        .tables(key)?
        .iter()
        .map(|table| read_section(root, format!("[[{key}]]"), table, read))
        .collect();
    sections.into_iter().collect()
}

fn protocol(text: &str) -> Result<Protocol, Fault> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(Fault::new(
            format!("there is no protocol `{text}` here"),
            "use \"tcp\" or \"udp\"",
        )),
    }
}

fn service(table: &mut Reader<'_, '_>) -> Option<Service> {
    let name = table.required_text(
        "name",
        "add the service's name, such as name = \"ldap\"",
        value::label,
    );
    let address = table.required_text(
        "address",
        "add the address of its host, such as address = \"10.200.1.30\"",
        value::address,
    );
    let protocol = table.text("protocol", protocol);
    let protocol = or_default(table, "protocol", protocol, Protocol::Tcp);
    let port = table.integer("port", 1..65_536);
    if table.key_span("port").is_none() {
        table.missing("port", "add its port, such as port = 636");
    }
    Some(Service {
        name: name?,
        address: address?,
        protocol: *protocol?,
        port: port?,
    })
}

fn state_host(table: &mut Reader<'_, '_>) -> Option<StateHost> {
    let address = table.required_text(
        "address",
        "add the address of the Valkey host, such as address = \"10.200.9.20\"",
        value::address,
    );
    let hostname = table.required_text(
        "hostname",
        "add the name that its certificate carries, such as hostname = \"state.example.org\"",
        value::domain,
    );
    let port = table.integer("port", 1..65_536);
    let port = or_default(table, "port", port, 6379);
    let user = table.text("user", value::label);
    let user = or_default(table, "user", user, "postern".to_owned());
    Some(StateHost {
        address: address?,
        port: port?,
        hostname: hostname?,
        user: user?,
    })
}

/// `Some(None)`: the section is empty, the Internet's root is used.
#[allow(clippy::option_option)]
fn private_root(table: &mut Reader<'_, '_>) -> Option<Option<PrivateRoot>> {
    let servers = table.list("root-servers", value::address);
    let trust_anchor = table.text("trust-anchor", value::trust_anchor);
    let span_of = |key| table.key_span(key);
    match (span_of("root-servers"), span_of("trust-anchor")) {
        (None, None) => Some(None),
        (Some(_), Some(_)) => Some(Some(PrivateRoot {
            servers: servers?,
            trust_anchor: trust_anchor?,
        })),
        (Some(span), None) => {
            table.report.add(
                span,
                "a root of your own has no trust anchor, so its answers could not be validated",
                "add trust-anchor = \". IN DS …\" with the DS record of that root's key",
            );
            None
        }
        (None, Some(span)) => {
            table.report.add(
                span,
                "a trust anchor without root-servers",
                "add the root-servers that this key belongs to, or remove the line: the Internet's own key is built in",
            );
            None
        }
    }
}

fn inbound(text: &str) -> Result<InboundTls, Fault> {
    match text {
        "required" => Ok(InboundTls::Required),
        "offered" => Ok(InboundTls::Offered),
        _ => Err(Fault::new(
            format!("inbound TLS cannot be `{text}`"),
            "use \"required\" (no mail without TLS) or \"offered\"",
        )),
    }
}

fn outbound(text: &str) -> Result<OutboundTls, Fault> {
    match text {
        "required" => Ok(OutboundTls::Required),
        "opportunistic" => Ok(OutboundTls::Opportunistic),
        _ => Err(Fault::new(
            format!("outbound TLS cannot be `{text}`"),
            "use \"required\" (no mail without TLS) or \"opportunistic\"",
        )),
    }
}

fn tls(table: &mut Reader<'_, '_>) -> Option<(InboundTls, OutboundTls)> {
    let read_in = table.text("inbound", inbound);
    let read_out = table.text("outbound", outbound);
    let inbound = or_default(table, "inbound", read_in, InboundTls::Required);
    let outbound = or_default(table, "outbound", read_out, OutboundTls::Required);
    Some((*inbound?, *outbound?))
}

fn encrypted_archives(text: &str) -> Result<EncryptedArchives, Fault> {
    match text {
        "refuse" => Ok(EncryptedArchives::Refuse),
        "accept" => Ok(EncryptedArchives::Accept),
        _ => Err(Fault::new(
            format!("encrypted archives cannot be `{text}`"),
            "use \"refuse\" (nothing passes unscanned) or \"accept\" (they pass unread)",
        )),
    }
}

fn dmarc_reports(text: &str) -> Result<Reports, Fault> {
    reports("DMARC", text)
}

fn tls_reports(text: &str) -> Result<Reports, Fault> {
    reports("TLS", text)
}

fn reports(kind: &str, text: &str) -> Result<Reports, Fault> {
    match text {
        "daily" => Ok(Reports::Daily),
        "off" => Ok(Reports::Off),
        _ => Err(Fault::new(
            format!("{kind} reports cannot be sent `{text}`"),
            "use \"daily\" (to domains that ask for them) or \"off\"",
        )),
    }
}

fn tls_exception(table: &mut Reader<'_, '_>) -> Option<TlsException> {
    let domain = table.required_text(
        "domain",
        "add the recipient domain, such as domain = \"partner.example\"",
        value::domain,
    );
    let reason = table.required_text(
        "reason",
        "say why its mail may go in clear and until when, such as reason = \"no TLS before their move in March\"",
        value::reason,
    );
    Some(TlsException {
        domain: domain?,
        reason: reason?,
    })
}

fn options(table: &mut Reader<'_, '_>) -> Option<Options> {
    let submissions = table.flag("submissions");
    let submissions = or_default(table, "submissions", submissions, false);
    Some(Options {
        submissions: *submissions?,
    })
}

fn policy(table: &mut Reader<'_, '_>) -> Option<Policy> {
    let default = Policy::default();
    let size = table.text("max-message-size", value::size);
    let size = or_default(table, "max-message-size", size, *default.max_message_size);
    let recipients = table.integer("max-recipients", 1..1001);
    let recipients = or_default(table, "max-recipients", recipients, *default.max_recipients);
    // The unit of smtpd lets it have 16,384 descriptors; scanners and lists are asked over some of them.
    let connections = table.integer("max-connections", 100..12_001);
    let connections = or_default(table, "max-connections", connections, *default.max_connections);
    let per_hour = table.integer("messages-per-hour", 0..1_000_001);
    let per_hour = or_default(table, "messages-per-hour", per_hour, *default.messages_per_hour);
    // One number scales them all.
    let ten_times = per_hour.as_ref().map_or(0, |per_hour| **per_hour * 10);
    let mut per_hour_of = |key| {
        let read = table.integer(key, 0..10_000_001);
        or_default(table, key, read, ten_times)
    };
    let of_network = per_hour_of("messages-per-hour-network");
    let of_sender = per_hour_of("messages-per-hour-sender");
    let of_recipient = per_hour_of("messages-per-hour-recipient");
    let factor = table.integer("proven-factor", 1..1001);
    let factor = or_default(table, "proven-factor", factor, *default.proven_factor);
    let stress = table.integer("stress-at", 0..101);
    let stress_at = or_default(table, "stress-at", stress, *default.stress_at);
    let listed = table.list("listed-peers", value::peer);
    let listed = or_empty(table, "listed-peers", listed);
    let proxies = table.list("proxy-protocol-from", value::peer);
    let proxies = or_empty(table, "proxy-protocol-from", proxies);
    let senders = table.list("send-as-any", value::mail_address);
    let senders = or_empty(table, "send-as-any", senders);
    let sealers = table.list("trusted-sealers", value::domain);
    let sealers = or_empty(table, "trusted-sealers", sealers);
    let delay = table.text("greylist-delay", value::delay);
    let delay = or_default(table, "greylist-delay", delay, *default.greylist_delay);
    let reverse_dns = client::attitude_of(table, "reverse-dns", *default.reverse_dns);
    let helo = client::attitude_of(table, "helo", *default.helo);
    let mark = table.decimal("mark-score");
    let mark = or_default(table, "mark-score", mark, *default.mark_score);
    let reject = table.decimal("reject-score");
    let reject = or_default(table, "reject-score", reject, *default.reject_score);
    let read = table.text("encrypted-archives", encrypted_archives);
    let encrypted = or_default(table, "encrypted-archives", read, *default.encrypted_archives);
    let content = match table.table("content") {
        Some(found) => read_section(table, "[policy.content]".into(), found, content::read),
        None => table.key_span("content").is_none().then(Default::default),
    };
    let scanning = scanning::read(table);
    let read = table.text("dmarc-reports", dmarc_reports);
    let dmarc_reports = or_default(table, "dmarc-reports", read, *default.dmarc_reports);
    let read = table.text("tls-reports", tls_reports);
    let tls_reports = or_default(table, "tls-reports", read, *default.tls_reports);
    Some(Policy {
        max_message_size: size?,
        max_recipients: recipients?,
        max_connections: connections?,
        messages_per_hour: per_hour?,
        messages_per_hour_network: of_network?,
        messages_per_hour_sender: of_sender?,
        messages_per_hour_recipient: of_recipient?,
        proven_factor: factor?,
        stress_at: stress_at?,
        listed_peers: listed?,
        proxies: proxies?,
        send_as_any: senders?,
        trusted_sealers: sealers?,
        greylist_delay: delay?,
        reverse_dns: reverse_dns?,
        helo: helo?,
        mark_score: mark?,
        reject_score: reject?,
        encrypted_archives: encrypted?,
        content: content?,
        scanning: scanning?,
        dmarc_reports: dmarc_reports?,
        tls_reports: tls_reports?,
    })
}
