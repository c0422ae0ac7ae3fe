//! Replies of policy: connection limits, relaying, recipients, checks of content, and the queue.

use std::time::Duration;

use crate::reply::Reply;

/// The queue has the message on stable storage.
pub fn queued(id: &str) -> Reply {
    Reply::new(250, (2, 0, 0), format!("queued as {id}"))
}

/// More connections than allowed, before the greeting.
pub fn too_many_connections() -> Reply {
    Reply::new(
        421,
        (4, 7, 0),
        "Too many connections from your address; close some and try again later",
    )
}

/// All connections of this server are taken, before the greeting.
pub fn server_busy() -> Reply {
    Reply::new(421, (4, 3, 2), "All connections are taken; try again later")
}

/// A proxy did not say whose connection it passes on.
pub fn no_proxy_header() -> Reply {
    Reply::new(
        421,
        (4, 3, 5),
        "Connections from this proxy must begin with a PROXY protocol header; have its administrator switch that on",
    )
}

/// The client spoke before the greeting.
pub fn early_talker() -> Reply {
    Reply::new(
        554,
        (5, 5, 1),
        "You spoke before the greeting; an SMTP client waits for 220 (RFC 5321 section 4.3.1)",
    )
}

/// The client was silent too long.
pub fn timeout() -> Reply {
    Reply::new(
        421,
        (4, 4, 2),
        "Nothing was heard for too long, so the connection closes; connect again",
    )
}

/// The client has been at it for too long.
pub fn session_too_long() -> Reply {
    Reply::new(
        421,
        (4, 4, 2),
        "This takes too long, so the connection closes; send messages without pauses, on a connection made for them",
    )
}

/// The server ends.
pub fn shutting_down() -> Reply {
    Reply::new(
        421,
        (4, 3, 2),
        "The server is going down; try again in a few minutes",
    )
}

/// More messages per hour than allowed, `of` whom; `wait` is how long until the next may come.
pub fn rate_limited(of: &str, per_hour: u32, wait: Duration) -> Reply {
    let minutes = wait.as_secs().div_ceil(60).max(1);
    Reply::new(
        451,
        (4, 7, 1),
        format!(
            "More than {per_hour} messages in an hour {of}; come again in {minutes} min, or ask the postmaster to list your address"
        ),
    )
}

/// The name in EHLO cannot be the client's.
pub fn bad_helo() -> Reply {
    Reply::new(
        550,
        (5, 7, 1),
        "The name in your EHLO cannot be yours; greet with the full domain name of your host, or its address in brackets",
    )
}

/// The address has no name that leads back to it (RFC 7372 section 3.3).
pub fn no_reverse_dns() -> Reply {
    Reply::new(
        550,
        (5, 7, 25),
        "Your address has no name in DNS that leads back to it; have whoever gave you the address set its PTR record",
    )
}

/// The address is on a list.
pub fn dns_listed(zone: &str) -> Reply {
    Reply::new(
        550,
        (5, 7, 1),
        format!("Your address is on the list {zone}; look it up there, and have it taken off"),
    )
}

/// A recipient elsewhere, and the client may not relay.
pub fn relay_denied(domain: &str) -> Reply {
    Reply::new(
        550,
        (5, 7, 1),
        format!(
            "Mail for {domain} is not relayed for you; send it to the MX of that domain, or authenticate"
        ),
    )
}

/// A recipient whose local part carries a route.
pub fn routed_address() -> Reply {
    Reply::new(
        550,
        (5, 7, 1),
        "A local part that carries a route (%, !, @ or :) is not relayed; give the address of the recipient itself",
    )
}

/// The client may not use this listener.
pub fn not_allowed_here() -> Reply {
    Reply::new(
        550,
        (5, 7, 1),
        "This port serves known hosts only; present a client certificate of this site, or be listed in its configuration",
    )
}

/// A sender that the authenticated user may not use.
pub fn sender_not_owned(user: &str) -> Reply {
    Reply::new(
        550,
        (5, 7, 1),
        format!("{user} may not send under this address; use your own"),
    )
}

/// No such mailbox.
pub fn unknown_recipient(address: &str) -> Reply {
    Reply::new(
        550,
        (5, 1, 1),
        format!("There is no mailbox {address} here; check the address"),
    )
}

/// A mailbox over its quota.
pub fn mailbox_full(address: &str) -> Reply {
    Reply::new(
        452,
        (4, 2, 2),
        format!("The mailbox {address} is full; try again later"),
    )
}

/// Whether a mailbox exists could not be found out.
pub fn recipient_unverifiable() -> Reply {
    Reply::new(
        451,
        (4, 4, 3),
        "The recipient cannot be verified now; try again later",
    )
}

/// No route leads to the domain.
pub fn no_route(domain: &str) -> Reply {
    Reply::new(
        550,
        (5, 7, 1),
        format!("No route of this site leads to {domain} from here; ask the postmaster"),
    )
}

/// First sight of a triplet of address, sender and recipient.
pub fn greylisted(seconds: u64) -> Reply {
    Reply::new(
        451,
        (4, 7, 1),
        format!("Greylisted, as this sender is new here; try again in {seconds} seconds"),
    )
}

/// SPF says fail, and nothing else speaks for the message.
pub fn spf_failed(domain: &str, address: &str) -> Reply {
    Reply::new(
        550,
        (5, 7, 23),
        format!(
            "The SPF record of {domain} does not permit {address} to send for it; send through a server that it names, or mend the record"
        ),
    )
}

/// DMARC says reject.
pub fn dmarc_rejected(domain: &str) -> Reply {
    Reply::new(
        550,
        (5, 7, 26),
        format!(
            "The DMARC policy of {domain} rejects mail without aligned SPF or DKIM; sign it with DKIM as {domain}"
        ),
    )
}

/// A DNS failure stands between the message and a DMARC result.
pub fn authentication_temporary(domain: &str) -> Reply {
    Reply::new(
        451,
        (4, 7, 24),
        format!(
            "The SPF, DKIM or DMARC records of {domain} cannot be fetched now; try again later, and check its name servers"
        ),
    )
}

/// A virus.
pub fn virus(name: &str) -> Reply {
    Reply::new(
        554,
        (5, 7, 1),
        format!(
            "The message holds malware ({name}); it is not taken. If this is wrong, tell the postmaster by telephone"
        ),
    )
}

/// A part of the message that no scanner can look into.
pub fn unscannable(name: &str) -> Reply {
    Reply::new(
        554,
        (5, 7, 1),
        format!(
            "A part of the message is encrypted or beyond what can be scanned ({name}); nothing passes unscanned. Send it without a password, or another way"
        ),
    )
}

/// An attachment that this site does not take.
pub fn attachment_refused(attachment: &str, rule: &str) -> Reply {
    Reply::new(
        554,
        (5, 7, 1),
        format!("The attachment {attachment} is refused: {rule}. Send it another way, or ask the postmaster"),
    )
}

/// The structure or an archive passes a bound.
pub fn content_beyond(what: &str) -> Reply {
    Reply::new(
        554,
        (5, 6, 0),
        format!(
            "The message has {what}; this is more than is taken here. Send it in simpler or smaller pieces"
        ),
    )
}

/// What the message is depends on the program that reads it.
pub fn content_ambiguous(what: &str) -> Reply {
    Reply::new(
        554,
        (5, 6, 0),
        format!(
            "The message is malformed: {what}; programs read that in different ways. Write it with another program"
        ),
    )
}

/// Spam over the limit.
pub fn spam(score: f64, limit: f64) -> Reply {
    Reply::new(
        554,
        (5, 7, 1),
        format!(
            "The message looks like spam (score {score:.1}, limit {limit:.1}); if it is not, write it differently or tell the postmaster"
        ),
    )
}

/// A scanner does not answer: nothing passes unscanned.
pub fn scanner_unavailable(scanner: &str) -> Reply {
    Reply::new(
        451,
        (4, 7, 1),
        format!("The {scanner} does not answer, and nothing passes without it; try again later"),
    )
}

/// A scanner does not answer in time, and there is no room to wait for it.
pub fn hold_full() -> Reply {
    Reply::new(
        451,
        (4, 7, 1),
        "Not scanned in time, and no room to hold the message until it is; try again later",
    )
}

/// The header section of the message is not one.
pub fn malformed_header() -> Reply {
    Reply::new(
        554,
        (5, 6, 0),
        "The header section is malformed; it begins with a field and has one From field with an address (RFC 5322)",
    )
}

/// The recipients with their parameters are more than the queue takes at a time.
pub fn envelope_too_large() -> Reply {
    Reply::new(
        552,
        (5, 5, 3),
        "The recipients and their parameters are too much for one message; send it to fewer at a time",
    )
}

/// The queue does not answer.
pub fn queue_unavailable() -> Reply {
    Reply::new(451, (4, 3, 0), "The queue does not answer; try again later")
}

/// The spool is full.
pub fn queue_full() -> Reply {
    Reply::new(452, (4, 3, 1), "The queue's storage is full; try again later")
}

/// The spool has room, but not for a message of the size that MAIL declares (RFC 1870 section 6.1).
pub fn no_room(size: u64) -> Reply {
    let text = format!("The queue's storage has no room for {size} octets now; try again later");
    Reply::new(452, (4, 3, 1), text)
}

/// A wrong user or password.
pub fn authentication_failed() -> Reply {
    Reply::new(535, (5, 7, 8), "The user or the password is wrong")
}

/// The password check does not answer.
pub fn authentication_unavailable() -> Reply {
    Reply::new(454, (4, 7, 0), "Passwords cannot be checked now; try again later")
}

/// Too many wrong passwords of an address or its network.
pub fn logins_throttled(minutes: u64) -> Reply {
    Reply::new(
        454,
        (4, 7, 0),
        format!(
            "Too many wrong passwords came from your address or its network; try again in {minutes} minutes, with the right one"
        ),
    )
}

/// Too many wrong passwords for an account.
pub fn account_throttled(minutes: u64) -> Reply {
    Reply::new(
        454,
        (4, 7, 0),
        format!(
            "Too many wrong passwords were tried for this account; try again in {minutes} minutes, or from a network where it logged in before"
        ),
    )
}

/// Too many wrong passwords in one session.
pub fn too_many_logins() -> Reply {
    Reply::new(
        421,
        (4, 7, 0),
        "The user or the password is wrong again, so the connection closes; outside, only an app password can log in",
    )
}

/// Submission from outside: all places are taken.
pub fn submissions_busy() -> Reply {
    Reply::new(
        454,
        (4, 7, 0),
        "Too many are sending mail through here now; try again in a minute",
    )
}

/// Submission from outside: the internal mail server does not answer, so that no password can be checked.
pub fn inside_unavailable() -> Reply {
    Reply::new(
        454,
        (4, 7, 0),
        "The internal mail server does not answer, and passwords are checked there alone; try again later",
    )
}

/// Submission from outside: the connection inward broke.
pub fn inside_broke_off() -> Reply {
    Reply::new(
        451,
        (4, 4, 2),
        "The internal mail server broke off before it answered, so the message is not known to be taken; send it again later",
    )
}

/// Submission from outside: the connection inward broke before this command.
pub fn inside_gone() -> Reply {
    Reply::new(
        421,
        (4, 4, 2),
        "The internal mail server broke off, so the connection closes; connect and log in again",
    )
}

/// The TLS handshake cannot be begun.
pub fn tls_unavailable() -> Reply {
    Reply::new(454, (4, 7, 0), "TLS is not available now; try again later")
}

/// Outbound: the connection broke before the reply came.
pub fn connection_lost() -> Reply {
    Reply::new(
        451,
        (4, 4, 2),
        "The connection to the next host broke before it answered",
    )
}

/// Outbound: what the next host said is not SMTP.
pub fn next_hop_protocol(error: &str) -> Reply {
    Reply::new(
        451,
        (4, 5, 0),
        format!("The next host broke the protocol: {error}"),
    )
}

/// Outbound: we cannot log in at the next host (RFC 5248: X.7.8).
pub fn next_hop_login(error: &str) -> Reply {
    Reply::new(
        454,
        (4, 7, 8),
        format!("The next host takes no mail from us: {error}"),
    )
}

/// Outbound: the next host offers no TLS, and the route requires it.
pub fn next_hop_without_tls() -> Reply {
    Reply::new(
        451,
        (4, 7, 4),
        "The next host offers no STARTTLS, and this route requires encryption",
    )
}

/// Outbound: the sender demands a protected way, and the next host does not promise to keep to it (RFC 8689).
pub fn next_hop_without_require_tls() -> Reply {
    Reply::new(
        550,
        (5, 7, 30),
        "The sender requires protected transport (REQUIRETLS), and the next host does not offer that",
    )
}

/// Outbound: an internationalised message, and the next host does not take such.
pub fn next_hop_without_utf8() -> Reply {
    Reply::new(
        550,
        (5, 6, 7),
        "The next host does not offer SMTPUTF8, and the message has a non-ASCII address or header",
    )
}

/// Outbound: an 8-bit message, and the next host does not take such.
pub fn next_hop_without_eight_bit() -> Reply {
    Reply::new(
        554,
        (5, 6, 3),
        "The next host does not offer 8BITMIME, and the message holds 8-bit content",
    )
}

/// Outbound: larger than the next host takes.
pub fn next_hop_size(limit: u64) -> Reply {
    Reply::new(
        552,
        (5, 3, 4),
        format!("The next host takes messages of at most {limit} octets"),
    )
}

/// Outbound: the next host says how many recipients it takes at a time, and this one is of the next lot (RFC 9422).
pub fn next_hop_recipients() -> Reply {
    Reply::new(
        452,
        (4, 5, 3),
        "The next host takes fewer recipients at a time; this one's turn comes next",
    )
}

/// Outbound: the content cannot be sent, since its line ends are not clean.
pub fn unsendable(error: &str) -> Reply {
    Reply::new(554, (5, 6, 0), format!("The message cannot be sent on: {error}"))
}
