//! DMARC aggregate reports to those who ask for them (RFC 7489 section 7.2, RFC 9990 for the format).
//!
//! Enters: what smtpd saw, in batches. Leaves: one message for each domain and period, to the addresses in `rua=` of the record
//! that the domain publishes at that time, each of another domain only where that domain agrees (section 7.1).

use std::time::SystemTime;

use hickory_resolver::proto::rr::Name;
use mail_auth::dmarc::Dmarc;
use mail_auth::report::{PolicyPublished, Record, Report};
use serde::{Deserialize, Serialize};

use super::desk::{Desk, is_mailbox};
use super::kept::{self, Due, Kept, Period};
use super::message::{self, Form};
use super::{ADDRESSES, Failure, Kind, Reports, now};
use crate::events::trace_id;
use crate::queue::router::domain_of;
use crate::reports::observer::record_of;
use crate::reports::{BATCH, Batch, Seen};

/// Rows of one domain.
pub(super) const ROWS: usize = 500;
/// Rows of all domains in one period.
const ALL_ROWS: usize = 10_000;

/// What is collected.
pub type Collected = Kept<Content>;

/// What was seen of one domain in one period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// The newest that was applied.
    pub policy: PolicyPublished,
    /// With their counts.
    pub rows: Vec<Record>,
    /// Messages that found no row.
    pub dropped: u64,
}

impl kept::Content for Content {
    const FILE: &'static str = "dmarc.json";
    const DOMAINS: usize = 1000;
}

impl Collected {
    /// Adds what was seen at `now`.
    pub fn note(&self, batch: Batch, now: u64) {
        self.add(now, |period| {
            for seen in batch.seen.into_iter().take(BATCH) {
                add(period, seen.bounded());
            }
        });
    }
}

fn add(period: &mut Period<Content>, seen: Seen) {
    let Seen { policy, record } = seen;
    let rows: usize = period.contents().map(|content| content.rows.len()).sum();
    let new = || Content {
        policy: policy.clone(),
        rows: Vec::new(),
        dropped: 0,
    };
    let Some(content) = period.of(&policy.domain, new) else {
        return;
    };
    content.policy = policy;
    let same = |row: &&mut Record| {
        row.row.source_ip == record.row.source_ip
            && row.row.policy_evaluated == record.row.policy_evaluated
            && row.identifiers == record.identifiers
            && row.auth_results == record.auth_results
    };
    let has_room = content.rows.len() < ROWS && rows < ALL_ROWS;
    match content.rows.iter_mut().find(same) {
        Some(row) => row.row.count = row.row.count.saturating_add(1),
        None if has_room => content.rows.push(record.with_count(1)),
        None => content.dropped += 1,
    }
}

/// Makes these reports.
pub struct Aggregate;

impl Reports<Aggregate> {
    /// Takes what an smtpd saw.
    pub fn note(&self, batch: Batch) {
        self.kept.note(batch, now());
    }
}

impl Kind for Aggregate {
    type Content = Content;
    const NAME: &'static str = "DMARC";

    async fn report(&self, desk: &Desk, _: &Collected, due: &Due<Content>) -> Result<(), Failure> {
        let record = record_of(desk.dns, &due.domain).await.map_err(Failure::Later)?;
        let record = record.ok_or_else(|| Failure::Never("it publishes no record any more".into()))?;
        let id = format!("{}.{}", due.begin, trace_id());
        let hostname = desk.hostname();
        let never = |error: std::io::Error| Failure::Never(error.to_string());
        let packed = message::packed(content(desk, due, &id).to_xml().as_bytes()).map_err(never)?;
        let envelope = message::Envelope {
            hostname,
            from: &desk.from,
            id: &id,
            domain: &due.domain,
            begin: due.begin,
            end: due.end,
            time: SystemTime::now(),
            form: &Form {
                fields: "",
                media_type: "multipart/mixed",
                words: &format!(
                    "What {hostname} saw of mail that says it is from\r\n{},\r\nwhose DMARC record asks for this report.\r\n",
                    due.domain
                ),
                report_type: "application/gzip",
                extension: "xml.gz",
            },
        };
        let octets = message::write(&envelope, &packed);
        let addresses = addresses(desk, &due.domain, &record, octets.len()).await?;
        let head = message::to(&addresses);
        let octets = [head.as_bytes(), &octets].concat();
        desk.queue(Self::NAME, &due.domain, addresses, octets).await
    }
}

fn content(desk: &Desk, due: &Due<Content>, id: &str) -> Report {
    let mut report = Report::new()
        .with_version(1.0)
        .with_org_name(&desk.organization)
        .with_email(&desk.from)
        .with_report_id(id)
        .with_date_range_begin(due.begin)
        .with_date_range_end(due.end - 1)
        .with_generator(concat!("Postern ", env!("CARGO_PKG_VERSION")))
        .with_policy_published(due.content.policy.clone());
    if due.content.dropped > 0 {
        report = report.with_error(format!(
            "{} more messages are not listed: the report is full",
            due.content.dropped
        ));
    }
    for row in &due.content.rows {
        report.add_record(row.clone());
    }
    report
}

/// Those who may get a report of so many octets.
async fn addresses(desk: &Desk, domain: &str, record: &Dmarc, octets: usize) -> Result<Vec<String>, Failure> {
    let mut agreed = Vec::new();
    let mut reasons = Vec::new();
    for uri in record.rua.iter().take(ADDRESSES) {
        let address = uri.uri();
        if !is_mailbox(address) {
            reasons.push("an address in rua= is none".to_owned());
        } else if (1..octets).contains(&uri.max_size()) {
            reasons.push(format!("{octets} octets are more than {address} takes"));
        } else if !agrees(desk, domain, &domain_of(address))
            .await
            .map_err(Failure::Later)?
        {
            reasons.push(format!("the domain of {address} does not say that it wants them"));
        } else if !agreed.iter().any(|other| other == address) {
            agreed.push(address.to_owned());
        }
    }
    if agreed.is_empty() {
        return Err(Failure::Never(reasons.join("; ")));
    }
    Ok(agreed)
}

/// Whether reports about `domain` may go to `destination` (RFC 7489 section 7.1).
async fn agrees(desk: &Desk, domain: &str, destination: &str) -> Result<bool, String> {
    let below = destination
        .strip_suffix(domain)
        .is_some_and(|head| head.is_empty() || head.ends_with('.'));
    if below {
        return Ok(true);
    }
    let Ok(name) = Name::from_utf8(format!("{domain}._report._dmarc.{destination}.")) else {
        return Ok(false);
    };
    let texts = desk.dns.texts(name).await?;
    let agreement = |text: &Vec<u8>| {
        let tag = text.split(|octet| *octet == b';').next().unwrap_or_default();
        let tag: Vec<u8> = tag
            .iter()
            .copied()
            .filter(|octet| !octet.is_ascii_whitespace())
            .collect();
        tag == b"v=DMARC1"
    };
    Ok(texts.iter().any(agreement))
}
