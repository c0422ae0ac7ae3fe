//! TLS reports to those who ask for them (RFC 8460).
//!
//! Enters: what came of TLS in each session of a delivery (`deliver/observed.rs`). Leaves: one report for each domain and period, as mail
//! and by HTTPS, to the `rua=` of the record at `_smtp._tls.DOMAIN` (section 3). The mail says `TLS-Required: No` (RFC 8689), so that
//! it leaves whatever is wrong with the domain's TLS, is not counted itself, and is carried so by others, too.

use std::time::{Duration, SystemTime};

use hickory_resolver::proto::rr::Name;
use hyper::Uri;
use mail_auth::report::tlsrpt::{DateRange, FailureDetails, Policy, Summary, TlsReport};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::desk::{Desk, is_mailbox};
use super::kept::{self, Due, Kept, Period};
use super::message::{self, Form};
use super::{ADDRESSES, Failure, Kind, now};
use crate::deliver::dns::Dns;
use crate::deliver::mta_sts::FetchError;
use crate::events::trace_id;
use crate::reports::tls::Seen;
use crate::reputation::Key;

/// Policies of one domain: each of its hosts may have TLSA records of its own.
const POLICIES: usize = 16;
/// Failures of one domain that are told apart; beyond that they are only told by type.
const FAILURES: usize = 100;
/// Octets of one domain.
const OF_DOMAIN: u64 = 64 << 10;
/// Octets of all that is collected in one period. Half of it is for domains of which there is no more than [`SMALL`], so that
/// some large ones do not shut out all others.
const OCTETS: u64 = 8 << 20;
/// Octets of a domain with a usual policy and a failure or two.
const SMALL: u64 = 2 << 10;
/// Reports of one period to one address: a provider may have one for all his domains, and whoever names another's address in
/// many domains shall not flood him.
const TO_ADDRESS: u32 = 100;
/// To all addresses of one domain, and to one web server.
const TO_HOST: u32 = 500;
/// For all web servers of one domain: other domains wait meanwhile.
const POSTS: Duration = Duration::from_mins(1);
/// Octets of a URL that is posted to.
const LONGEST_URL: usize = 2048;
/// Media type of a packed report (section 6.4).
const MEDIA_TYPE: &str = "application/tlsrpt+gzip";

/// What is collected.
pub type Collected = Kept<Content>;

/// What was seen of one domain in one period.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// With their counts.
    pub policies: Vec<Policy>,
    /// What that takes, about.
    #[serde(default)]
    pub octets: u64,
}

impl kept::Content for Content {
    const FILE: &'static str = "tls.json";
    const DOMAINS: usize = 10_000;
}

impl Collected {
    /// Adds what was seen just now.
    pub fn note(&self, seen: Seen) {
        self.note_at(seen, now());
    }

    fn note_at(&self, seen: Seen, now: u64) {
        if let Some(seen) = seen.bounded() {
            self.add(now, |period| add(period, seen));
        }
    }
}

fn add(period: &mut Period<Content>, seen: Seen) {
    let (domain, weight) = (seen.domain.clone(), seen.weight());
    let known = period.get(&domain).map(|content| content.octets);
    let octets = known.unwrap_or(0) + weight;
    let all = if octets <= SMALL { OCTETS } else { OCTETS / 2 };
    let room = octets <= OF_DOMAIN && period.octets + weight <= all;
    if !room && known.is_none() {
        return period.drop_one(&domain);
    }
    let Some(content) = period.of(&domain, Content::default) else {
        return;
    };
    match content.add(seen, room) {
        Added::Grown if room => {
            content.octets = octets;
            period.octets += weight;
        }
        // A row for a type alone is small, and there are few types.
        Added::Grown | Added::Counted => {}
        Added::NoRoom => period.drop_one(&domain),
    }
}

/// What came of one session.
enum Added {
    /// It is one more of what is there.
    Counted,
    /// It took room.
    Grown,
    /// There was none.
    NoRoom,
}

impl From<bool> for Added {
    fn from(grown: bool) -> Self {
        if grown { Self::Grown } else { Self::Counted }
    }
}

impl Content {
    /// Counts one session.
    fn add(&mut self, seen: Seen, room: bool) -> Added {
        let Seen { policy, failure, .. } = seen;
        let failures: usize = self.policies.iter().map(|one| one.failure_details.len()).sum();
        let mut grows = false;
        let known = self.policies.iter().position(|one| one.policy == policy);
        let index = match known {
            Some(index) => index,
            None if room && self.policies.len() < POLICIES => {
                grows = true;
                self.policies.push(Policy {
                    policy,
                    summary: Summary {
                        total_success: 0,
                        total_failure: 0,
                    },
                    failure_details: Vec::new(),
                });
                self.policies.len() - 1
            }
            None => return Added::NoRoom,
        };
        let Policy {
            summary,
            failure_details,
            ..
        } = &mut self.policies[index];
        let Some(failure) = failure else {
            summary.total_success = summary.total_success.saturating_add(1);
            return grows.into();
        };
        summary.total_failure = summary.total_failure.saturating_add(1);
        let has_room = room && failures < FAILURES;
        let failure = if has_room || failure_details.iter().any(|one| is_same(one, &failure)) {
            failure
        } else {
            FailureDetails::new(failure.result_type)
        };
        (count(failure_details, failure) || grows).into()
    }
}

/// Whether that took a row of its own.
fn count(rows: &mut Vec<FailureDetails>, failure: FailureDetails) -> bool {
    if let Some(row) = rows.iter_mut().find(|row| is_same(row, &failure)) {
        row.failed_session_count = row.failed_session_count.saturating_add(1);
        return false;
    }
    rows.push(FailureDetails {
        failed_session_count: 1,
        ..failure
    });
    true
}

/// But for the count.
fn is_same(one: &FailureDetails, other: &FailureDetails) -> bool {
    one.result_type == other.result_type
        && one.sending_mta_ip == other.sending_mta_ip
        && one.receiving_mx_hostname == other.receiving_mx_hostname
        && one.receiving_mx_helo == other.receiving_mx_helo
        && one.receiving_ip == other.receiving_ip
        && one.failure_reason_code == other.failure_reason_code
}

/// Makes these reports.
pub struct Tls;

impl Kind for Tls {
    type Content = Content;
    const NAME: &'static str = "TLS";

    async fn report(&self, desk: &Desk, kept: &Collected, due: &Due<Content>) -> Result<(), Failure> {
        let domain = &due.domain;
        let receivers = receivers_of(desk.dns, domain).await.map_err(Failure::Later)?;
        let Receivers {
            mut addresses,
            mut urls,
        } = receivers.ok_or_else(|| Failure::Never("it does not ask for them".into()))?;
        // Tries count, too: a web server is connected to, whatever comes of it.
        let may_go = |receiver: &String| match kept.may_send(due.begin, &bounds_of(receiver)) {
            Ok(()) => true,
            Err(most) => {
                let reason = format!("{most} reports of this period have gone there, which is the most");
                desk.tell(Self::NAME, domain, vec![receiver.clone()], Some(reason));
                false
            }
        };
        addresses.retain(may_go);
        urls.retain(may_go);
        if addresses.is_empty() && urls.is_empty() {
            return Ok(());
        }
        let id = format!("{}.{}", due.begin, trace_id());
        let never = |error: std::io::Error| Failure::Never(error.to_string());
        let packed = message::packed(json(desk, due, &id).as_bytes()).map_err(never)?;
        let (mut sent, mut failed) = (false, None);
        if !addresses.is_empty() {
            let octets = mail(desk, due, &id, &addresses, &packed);
            match desk.queue(Self::NAME, domain, addresses.clone(), octets).await {
                Ok(()) => sent = true,
                Err(failure) => failed = Some((addresses, failure)),
            }
        }
        let until = Instant::now() + POSTS;
        for url in urls {
            let posted = timeout_at(until, post(desk, &url, &packed)).await;
            match posted.unwrap_or_else(|_| Err(Failure::Later("its servers take too long".into()))) {
                Ok(()) => {
                    desk.tell(Self::NAME, domain, vec![url], None);
                    sent = true;
                }
                Err(failure) => failed = Some((vec![url], failure)),
            }
        }
        match failed {
            // Somebody has it: another try would make a second one for him.
            Some((to, Failure::Later(reason) | Failure::Never(reason))) if sent => {
                desk.tell(Self::NAME, domain, to, Some(reason));
                Ok(())
            }
            Some((_, failure)) => Err(failure),
            None => Ok(()),
        }
    }
}

/// The message (section 5.3).
fn mail(desk: &Desk, due: &Due<Content>, id: &str, addresses: &[String], packed: &[u8]) -> Vec<u8> {
    let (domain, hostname) = (&due.domain, desk.hostname());
    let envelope = message::Envelope {
        hostname,
        from: &desk.from,
        id,
        domain,
        begin: due.begin,
        end: due.end,
        time: SystemTime::now(),
        form: &Form {
            fields: &format!(
                "TLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {hostname}\r\nTLS-Required: No\r\n"
            ),
            media_type: "multipart/report; report-type=\"tlsrpt\"",
            words: &format!(
                "How TLS went when {hostname} sent mail to\r\n{domain},\r\nwhose TLSRPT record asks for this report.\r\n"
            ),
            report_type: MEDIA_TYPE,
            extension: "json.gz",
        },
    };
    [
        message::to(addresses).into_bytes(),
        message::write(&envelope, packed),
    ]
    .concat()
}

/// Whom a domain's record names.
#[derive(Debug, Default, PartialEq)]
struct Receivers {
    addresses: Vec<String>,
    urls: Vec<String>,
}

/// What the one record of the domain says; those that do not begin as one are passed over, and of several none counts (section 3).
async fn receivers_of(dns: Dns, domain: &str) -> Result<Option<Receivers>, String> {
    let Ok(name) = Name::from_ascii(format!("_smtp._tls.{domain}.")) else {
        return Ok(None);
    };
    Ok(receivers_among(&dns.texts(name).await?))
}

fn receivers_among(texts: &[Vec<u8>]) -> Option<Receivers> {
    let mut records = texts.iter().filter_map(|text| {
        let rest = std::str::from_utf8(text).ok()?.strip_prefix("v=TLSRPTv1")?;
        rest.trim_start().strip_prefix(';')
    });
    let record = records.next().filter(|_| records.next().is_none())?;
    let mut lists = record
        .split(';')
        .filter_map(|field| field.trim().strip_prefix("rua="));
    let list = lists.next().filter(|_| lists.next().is_none())?;
    let mut found = Receivers::default();
    for uri in list.split(',').take(ADDRESSES) {
        let Some((scheme, rest)) = uri.trim().split_once(':') else {
            continue;
        };
        let (kind, told) = match scheme.to_ascii_lowercase().as_str() {
            "mailto" if is_mailbox(rest) => (&mut found.addresses, rest),
            "https" if uri.len() <= LONGEST_URL => (&mut found.urls, uri.trim()),
            _ => continue,
        };
        if !kind.iter().any(|other| other == told) {
            kind.push(told.to_owned());
        }
    }
    (found != Receivers::default()).then_some(found)
}

/// Whom a report to this address or URL reaches, and how many of one period may. Names of one mailbox that only differ in case
/// or behind a `+` are one.
fn bounds_of(receiver: &str) -> Vec<(Key, u32)> {
    let lower = |host: &str| host.trim_end_matches('.').to_ascii_lowercase();
    let host = |host: &str| (Key::new("reports to a host", &[&lower(host)]), TO_HOST);
    let url = receiver.parse::<Uri>().ok();
    if let Some(server) = url
        .as_ref()
        .filter(|url| url.scheme().is_some())
        .and_then(Uri::host)
    {
        return vec![host(server)];
    }
    let (local, domain) = receiver.rsplit_once('@').unwrap_or((receiver, ""));
    let local = lower(local.split('+').next().unwrap_or_default());
    let address = Key::new("reports to an address", &[&local, &lower(domain)]);
    vec![(address, TO_ADDRESS), host(domain)]
}

/// By the client that fetches MTA-STS policies.
async fn post(desk: &Desk, url: &str, packed: &[u8]) -> Result<(), Failure> {
    let Some((mta_sts, _)) = &desk.worker.courier.policies.mta_sts else {
        return Err(Failure::Never("nothing is sent by HTTPS from here".into()));
    };
    let posted = mta_sts.fetcher().post(desk.dns, url, MEDIA_TYPE, packed).await;
    posted.map_err(|error| match error {
        FetchError::Url(_) | FetchError::Name(_) | FetchError::NotPublic(_) => {
            Failure::Never(error.to_string())
        }
        _ => Failure::Later(error.to_string()),
    })
}

/// Section 4.4. What is not known is left out.
fn json(desk: &Desk, due: &Due<Content>, id: &str) -> String {
    let second = |second: u64| i64::try_from(second).unwrap_or(i64::MAX);
    let report = TlsReport {
        organization_name: Some(desk.organization.clone()),
        date_range: DateRange::from_timestamps(second(due.begin), second(due.end - 1)),
        contact_info: Some(desk.from.clone()),
        report_id: format!("{id}@{}", desk.hostname()),
        policies: due.content.policies.clone(),
    };
    let mut value = serde_json::to_value(report).unwrap_or_default();
    prune(&mut value);
    value.to_string()
}

/// Takes out what is empty.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields
                .retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
            fields.values_mut().for_each(prune);
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
