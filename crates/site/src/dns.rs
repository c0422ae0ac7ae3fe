//! The records that the site's domains need in the public DNS, in zone-file form (RFC 1035 section 5):
//! MX, SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 7489), MTA-STS (RFC 8461), TLS-RPT (RFC 8460).

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::model::{Node, Site};

/// A DKIM key's public record, as the gateway's queue reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimRecord {
    /// Such as `postern-rsa._domainkey.example.org`.
    pub name: String,
    /// Such as `v=DKIM1; k=rsa; p=…`.
    pub value: String,
}

/// The zone-file lines for all of the site's domains and gateways. Where no `dkim` record of a key is given, a
/// comment says how to get it.
pub fn zone_lines(site: &Site, dkim: &[DkimRecord]) -> String {
    let mut out = format!(
        "; Public DNS records of the site {}. Names are absolute.\n",
        site.name()
    );
    for gateway in site.gateways() {
        out += "\n";
        addresses(&mut out, gateway.hostname(), gateway);
    }
    let domains: Vec<&str> = site.domains().collect();
    for domain in domains {
        let _ = writeln!(out, "\n; {domain}");
        domain_records(&mut out, site, domain, dkim);
    }
    out
}

// Writing to a string cannot fail, here and below.
fn line(out: &mut String, name: &str, kind: &str, data: &str) {
    let _ = writeln!(out, "{:<47} 3600 IN {kind:<4} {data}", format!("{name}."));
}

fn addresses(out: &mut String, name: &str, gateway: &Node) {
    for address in gateway.public_addresses.iter() {
        line(
            out,
            name,
            if address.is_ipv4() { "A" } else { "AAAA" },
            &address.to_string(),
        );
    }
}

fn domain_records(out: &mut String, site: &Site, domain: &str, dkim: &[DkimRecord]) {
    for gateway in site.gateways() {
        line(out, domain, "MX", &format!("10 {}.", gateway.hostname()));
    }
    let sources: Vec<String> = site
        .public_addresses()
        .iter()
        .map(|address| match address {
            IpAddr::V4(v4) => format!("ip4:{v4}"),
            IpAddr::V6(v6) => format!("ip6:{v6}"),
        })
        .chain(smarthost_include(site))
        .collect();
    if site.smarthost.is_some() && smarthost_include(site).is_none() {
        let _ = writeln!(
            out,
            "; SPF: the smarthost sends from addresses of its own; put its provider's record into spf-include of [smarthost]"
        );
    }
    line(
        out,
        domain,
        "TXT",
        &text(&format!("v=spf1 {} -all", sources.join(" "))),
    );
    for key in ["rsa", "ed25519"] {
        let name = format!("{}-{key}._domainkey.{domain}", *site.dkim_selector);
        match dkim
            .iter()
            .find(|record| record.name.trim_end_matches('.').eq_ignore_ascii_case(&name))
        {
            Some(record) => line(out, &name, "TXT", &text(&record.value)),
            None => {
                let _ = writeln!(
                    out,
                    "; {name}. TXT: the gateway makes this key at its first start; give its record with --dkim-records"
                );
            }
        }
    }
    let reports = site.postmaster();
    line(
        out,
        &format!("_dmarc.{domain}"),
        "TXT",
        &text(&format!("v=DMARC1; p=reject; rua=mailto:{reports}")),
    );
    line(
        out,
        &format!("_mta-sts.{domain}"),
        "TXT",
        &text(&format!("v=STSv1; id={}", policy_id(site))),
    );
    for gateway in site.gateways() {
        addresses(out, &format!("mta-sts.{domain}"), gateway);
    }
    line(
        out,
        &format!("_smtp._tls.{domain}"),
        "TXT",
        &text(&format!("v=TLSRPTv1; rua=mailto:{reports}")),
    );
}

/// The SPF mechanism by which the smarthost's addresses are permitted.
fn smarthost_include(site: &Site) -> Option<String> {
    let include = site.smarthost.as_ref()?.spf_include.as_ref()?;
    Some(format!("include:{}", include.as_str()))
}

/// A name for the MTA-STS policy that changes when the hosts in it change (RFC 8461 section 3.1: up to 32
/// letters and digits): FNV-1a of the host names, which is stable over versions.
fn policy_id(site: &Site) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in site
        .gateways()
        .flat_map(|node| node.hostname().bytes().chain([b'\n']))
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// TXT data: strings of at most 255 octets (RFC 1035 section 3.3.14), in quotes.
fn text(value: &str) -> String {
    let escaped = |part: &[u8]| {
        let part = String::from_utf8_lossy(part)
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        format!("\"{part}\"")
    };
    let parts: Vec<String> = value.as_bytes().chunks(255).map(escaped).collect();
    if parts.len() == 1 {
        parts.concat()
    } else {
        format!("( {} )", parts.join(" "))
    }
}
