//! Why mail is not delivered, where no other host said so: replies in our own words, all in one place, each with its
//! enhanced status code (RFC 3463).

use std::fmt::Display;

use postern_smtp::reply::Reply;

/// RFC 7505 4.3.
pub fn null_mx(domain: &str) -> Reply {
    Reply::new(
        556,
        (5, 1, 10),
        format!("{domain} says in the DNS that it takes no mail"),
    )
}

/// The name is not in the DNS, or has neither MX nor address records.
pub fn no_mail_host(domain: &str) -> Reply {
    Reply::new(550, (5, 1, 2), format!("{domain} has no mail host in the DNS"))
}

/// The resolver has no answer now.
pub fn dns_failed(name: &str, error: impl Display) -> Reply {
    Reply::new(
        451,
        (4, 4, 3),
        format!("the DNS has no answer for {name}: {error}"),
    )
}

/// RFC 5321 5.1: we are the best mail exchanger ourselves, and have no route for the domain.
pub fn loops_back(domain: &str) -> Reply {
    Reply::new(
        554,
        (5, 4, 6),
        format!("the mail host of {domain} is this node, which has no mailboxes for it"),
    )
}

/// A mail exchanger without addresses, or whose name cannot be one.
pub fn no_address(host: &str) -> Reply {
    Reply::new(451, (4, 4, 4), format!("the mail host {host} has no address"))
}

/// The TCP connection failed.
pub fn cannot_connect(host: impl Display, error: impl Display) -> Reply {
    Reply::new(451, (4, 4, 1), format!("cannot connect to {host}: {error}"))
}

/// Mail leaves from its pool's addresses and from no other.
pub fn no_source(host: impl Display) -> Reply {
    Reply::new(
        451,
        (4, 4, 1),
        format!("the source pool has no address of the family of {host}"),
    )
}

/// RFC 5321 4.5.3.2.
pub fn timeout(seconds: u64) -> Reply {
    Reply::new(451, (4, 4, 2), format!("no answer in {seconds} s"))
}

/// The TLS handshake failed.
pub fn tls_failed(host: impl Display, error: impl Display) -> Reply {
    Reply::new(451, (4, 7, 5), format!("no TLS with {host}: {error}"))
}

/// RFC 8689 4.2.1: nothing proves that the host is the right one.
pub fn unproven(host: &str) -> Reply {
    Reply::new(
        550,
        (5, 7, 30),
        format!("the sender requires protected transport (REQUIRETLS), and nothing proves {host}"),
    )
}

/// RFC 8461 5: a host that the domain's policy does not name gets nothing.
pub fn not_in_policy(host: &str, domain: &str) -> Reply {
    Reply::new(
        451,
        (4, 7, 5),
        format!("the MTA-STS policy of {domain} does not name its mail host {host}"),
    )
}

/// The configuration has changed since the message was taken.
pub fn no_route(domain: &str) -> Reply {
    Reply::new(
        451,
        (4, 3, 5),
        format!("no route leads to {domain} since the configuration was changed"),
    )
}

/// A configured host name cannot be used.
pub fn unusable_next_hop(error: impl Display) -> Reply {
    Reply::new(451, (4, 3, 5), format!("the next hop cannot be used: {error}"))
}

/// The spool has lost the content.
pub fn damaged(error: impl Display) -> Reply {
    Reply::new(
        451,
        (4, 3, 0),
        format!("the message cannot be read from the spool: {error}"),
    )
}

/// The spool has lost the content, and it does not come back.
pub fn lost() -> Reply {
    Reply::new(
        554,
        (5, 3, 0),
        "the content of the message was damaged on the disk of this host; send it again if you have not done so",
    )
}

/// A fault of this program.
pub fn fault(error: impl Display) -> Reply {
    Reply::new(451, (4, 3, 0), format!("the attempt ended by a fault: {error}"))
}

/// Signing failed.
pub fn cannot_sign(error: impl Display) -> Reply {
    Reply::new(451, (4, 7, 5), format!("the message cannot be signed: {error}"))
}

/// The operator has given the message up.
pub fn cancelled(reason: Option<&str>) -> Reply {
    let why = reason.map_or(String::new(), |reason| format!(": {reason}"));
    Reply::new(554, (5, 3, 0), format!("cancelled by the operator{why}"))
}
