//! `[[source-pool]]`: addresses of a gateway that some of the mail to the world leaves from.

use super::or_empty;
use crate::diagnostic::Fault;
use crate::model::{MailClass, SourcePool};
use crate::reader::Reader;
use crate::value;

fn class(text: &str) -> Result<MailClass, Fault> {
    match text {
        "transactional" => Ok(MailClass::Transactional),
        "bulk" => Ok(MailClass::Bulk),
        _ => Err(Fault::new(
            format!("there is no class of mail called `{text}`"),
            "use \"transactional\" (somebody waits for it) or \"bulk\" (newsletters, lists, mass mail)",
        )),
    }
}

pub(super) fn read(table: &mut Reader<'_, '_>) -> Option<SourcePool> {
    let name = table.required_text(
        "name",
        "add a short name for the pool, such as name = \"news\"",
        value::label,
    );
    let addresses = table.list("addresses", value::address);
    if table.key_span("addresses").is_none() {
        table.missing(
            "addresses",
            "add addresses of a gateway's outside link, such as addresses = [\"203.0.113.11\"]",
        );
    }
    let helo = table.text("helo", value::domain);
    let only = table.text("class", class);
    let senders = table.list("senders", value::domain);
    let senders = or_empty(table, "senders", senders);
    let faulty = |key: &str, read: bool| !read && table.key_span(key).is_some();
    if faulty("helo", helo.is_some()) || faulty("class", only.is_some()) {
        return None;
    }
    Some(SourcePool {
        name: name?,
        addresses: addresses?,
        helo,
        class: only.map(|class| *class),
        senders: senders?,
    })
}
