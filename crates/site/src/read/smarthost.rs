//! `[smarthost]`: the host of a provider that outward mail goes through.

use super::{or_default, or_empty};
use crate::diagnostic::Fault;
use crate::model::Smarthost;
use crate::reader::Reader;
use crate::value;

/// RFC 8314 section 3.3: on 465 TLS begins at once.
const IMPLICIT: u64 = 465;

fn implicit(text: &str) -> Result<bool, Fault> {
    match text {
        "starttls" => Ok(false),
        "implicit" => Ok(true),
        _ => Err(Fault::new(
            format!("TLS towards a smarthost cannot be `{text}`"),
            "use \"starttls\" or \"implicit\"; without TLS the password would be read on the way",
        )),
    }
}

pub(super) fn read(table: &mut Reader<'_, '_>) -> Option<Smarthost> {
    let host = table.required_text(
        "host",
        "add the name that its certificate carries, such as host = \"smtp.provider.example\"",
        value::domain,
    );
    let port = table.integer("port", 1..65_536);
    let port = or_default(table, "port", port, 587);
    let tls = table.text("tls", implicit);
    let by_port = port.as_ref().is_some_and(|port| **port == IMPLICIT);
    let tls = or_default(table, "tls", tls, by_port);
    let domains = table.list("domains", value::domain);
    let domains = or_empty(table, "domains", domains);
    let include = table.text("spf-include", value::domain);
    let faulty = include.is_none() && table.key_span("spf-include").is_some();
    (!faulty).then_some(())?;
    Some(Smarthost {
        host: host?,
        port: port?,
        implicit_tls: *tls?,
        domains: domains?,
        spf_include: include,
    })
}
