//! The sum in words: the sources that fail first, each with what to mend.

use std::io::{self, Write};

use super::{Sessions, Source, Sum};

/// Characters of a name that are shown.
const SHOWN: usize = 253;

/// Writes the sum, and what could not be read.
pub(super) fn write(sum: &Sum, unreadable: &[String], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} reports", sum.reports)?;
    let mut domain = None;
    let mut sources: Vec<_> = sum.dmarc.iter().collect();
    sources.sort_by_key(|((domain, _), source)| (domain.clone(), u64::MAX - source.failed));
    for ((of, address), source) in sources {
        if domain != Some(of) {
            writeln!(out, "\nDMARC {}", plain(of))?;
            domain = Some(of);
        }
        let address = address.map_or("no address".to_owned(), |address| address.to_string());
        writeln!(out, "  {address}: {}", counts(source))?;
        if source.failed > 0 {
            writeln!(out, "      mend: {}", remedy(of, source))?;
        }
    }
    for ((domain, policy), sessions) in &sum.tls {
        writeln!(out, "\nTLS {} ({})", plain(domain), plain(policy))?;
        write_sessions(sessions, out)?;
    }
    if sum.not_told_apart > 0 {
        writeln!(
            out,
            "\n{} more messages or sessions are not listed",
            sum.not_told_apart
        )?;
    }
    for reason in unreadable {
        writeln!(out, "\nnot read: {}", plain(reason))?;
    }
    Ok(())
}

fn counts(source: &Source) -> String {
    let mut parts = vec![format!("{} passed", source.passed)];
    for (count, what) in [
        (source.by_dkim, "by aligned DKIM"),
        (source.by_spf, "by aligned SPF"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.push(format!("{} failed", source.failed));
    for (count, what) in [
        (source.quarantined, "quarantined"),
        (source.rejected, "refused"),
        (source.excused, "excused by the receiver"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}

fn remedy(domain: &str, source: &Source) -> String {
    let domain = plain(domain);
    if source.passed > 0 {
        return "some of it passes: look for a second program there that does not sign, or for mail changed on its way".into();
    }
    if source.proved.is_empty() {
        return format!(
            "nothing proves it: if the host is yours, let it send through the gateway, which signs for {domain}; else it is forged"
        );
    }
    let proved: Vec<String> = source.proved.iter().map(|proved| plain(proved)).collect();
    format!(
        "it proves {} and not {domain}: if that service sends for you, have it sign with d={domain}; else it forwards or forges",
        proved.join(", ")
    )
}

fn write_sessions(sessions: &Sessions, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "  {} sessions encrypted, {} failed",
        sessions.succeeded, sessions.failed
    )?;
    for ((result, host), count) in &sessions.failures {
        writeln!(out, "  {count} at {}: {}", plain(host), plain(result))?;
        writeln!(out, "      mend: {}", tls_remedy(result))?;
    }
    Ok(())
}

/// By result type (RFC 8460 section 4.3).
fn tls_remedy(result: &str) -> &'static str {
    match result {
        "starttls-not-supported" => "the host did not offer STARTTLS, or somebody between took it away",
        "certificate-host-mismatch" => "its certificate has another name than the MX record",
        "certificate-expired" => "renew its certificate",
        "certificate-not-trusted" => {
            "its certificate is of an authority that senders do not know, or the chain is not complete"
        }
        "tlsa-invalid" => {
            "the TLSA records do not fit the key that the host shows: publish those of the new key"
        }
        "dnssec-invalid" => "the zone's DNSSEC signatures do not validate",
        "dane-required" => "a sender demands DANE: publish TLSA records in a signed zone",
        "sts-policy-fetch-error" => {
            "the MTA-STS policy could not be fetched: see that port 443 of the gateway answers"
        }
        "sts-policy-invalid" => "the MTA-STS policy cannot be read, or does not name this host",
        "sts-webpki-invalid" => {
            "the web server of the MTA-STS policy shows a certificate that is not believed"
        }
        _ => "see the report itself, or ask who sent it",
    }
}

/// Nothing that a terminal would obey.
fn plain(text: &str) -> String {
    let text = text.chars().take(SHOWN);
    text.map(|c| if c.is_control() { '?' } else { c }).collect()
}
