//! Every reply text, each with its reply code (RFC 5321 section 4.2.3) and enhanced status code (RFC 3463, RFC 5248).
//!
//! A text of refusal says what is refused, why, and how to mend it. Here are the replies of the session itself;
//! [`policy`] has those of the checks and of the queue.

pub mod policy;

pub use policy::*;

use crate::command::CommandError;
use crate::content::ContentError;
use crate::parameters::ParameterError;
use crate::reply::Reply;

/// The greeting.
pub fn greeting(hostname: &str) -> Reply {
    Reply::plain(220, format!("{hostname} ESMTP Postern"))
}

/// EHLO; the keywords follow the first line.
pub fn ehlo(hostname: &str, keywords: Vec<String>) -> Reply {
    let mut reply = Reply::plain(250, hostname);
    reply.lines.extend(keywords);
    reply
}

/// HELO.
pub fn helo(hostname: &str) -> Reply {
    Reply::plain(250, hostname)
}

/// STARTTLS is granted.
pub fn start_tls() -> Reply {
    Reply::new(220, (2, 0, 0), "Ready: begin the TLS handshake")
}

/// MAIL is taken.
pub fn sender_ok() -> Reply {
    Reply::new(250, (2, 1, 0), "Sender taken")
}

/// RCPT is taken.
pub fn recipient_ok() -> Reply {
    Reply::new(250, (2, 1, 5), "Recipient taken")
}

/// DATA is granted.
pub fn start_data() -> Reply {
    Reply::plain(
        354,
        "Send the message; end it with a line that holds a single dot",
    )
}

/// A chunk of a message is taken.
pub fn chunk_ok(octets: u64) -> Reply {
    Reply::new(250, (2, 0, 0), format!("{octets} octets taken"))
}

/// NOOP.
pub fn noop() -> Reply {
    Reply::new(250, (2, 0, 0), "Nothing done")
}

/// RSET.
pub fn reset() -> Reply {
    Reply::new(250, (2, 0, 0), "The transaction is forgotten")
}

/// QUIT.
pub fn quit(hostname: &str) -> Reply {
    Reply::new(221, (2, 0, 0), format!("{hostname} closes the connection"))
}

/// VRFY.
pub fn vrfy() -> Reply {
    Reply::new(
        252,
        (2, 7, 0),
        "Addresses are not verified here; send mail and RCPT will tell",
    )
}

/// EXPN.
pub fn expn() -> Reply {
    Reply::new(502, (5, 7, 0), "EXPN is not offered: lists are not shown here")
}

/// HELP.
pub fn help() -> Reply {
    let commands =
        "Commands: EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT (RFC 5321)";
    Reply::new(214, (2, 0, 0), commands)
}

/// LHLO.
pub fn not_lmtp() -> Reply {
    Reply::new(
        500,
        (5, 5, 1),
        "LHLO belongs to LMTP and this is SMTP; greet with EHLO",
    )
}

/// AUTH goes on: the server's challenge, in base64 already.
pub fn challenge(text: &str) -> Reply {
    Reply::plain(334, text)
}

/// AUTH succeeded.
pub fn authenticated() -> Reply {
    Reply::new(235, (2, 7, 0), "Authenticated")
}

/// XSUBMIT is granted.
pub fn submission_ok() -> Reply {
    Reply::new(250, (2, 0, 0), "Go on with AUTH")
}

/// The client gave AUTH up with `*`.
pub fn authentication_cancelled() -> Reply {
    Reply::new(501, (5, 7, 0), "Authentication given up, as asked")
}

/// A response of AUTH cannot be read.
pub fn authentication_syntax() -> Reply {
    Reply::new(
        501,
        (5, 5, 2),
        "The response is not what the mechanism asks for; send it in base64 (RFC 4954)",
    )
}

/// A mechanism that is not offered.
pub fn unknown_mechanism() -> Reply {
    Reply::new(
        504,
        (5, 5, 4),
        "This mechanism is not offered; use PLAIN or LOGIN",
    )
}

/// AUTH where none is offered.
pub fn authentication_not_offered() -> Reply {
    Reply::new(502, (5, 5, 1), "AUTH is not offered on this port")
}

/// AUTH before TLS.
pub fn authentication_needs_tls() -> Reply {
    Reply::new(
        538,
        (5, 7, 11),
        "Passwords travel only inside TLS here; issue STARTTLS first",
    )
}

/// MAIL before AUTH, where that is required.
pub fn authentication_required() -> Reply {
    Reply::new(
        530,
        (5, 7, 0),
        "Authentication is required on this port; issue AUTH first, or deliver mail for our domains on port 25",
    )
}

/// A command before STARTTLS, where TLS is required.
pub fn tls_required() -> Reply {
    Reply::new(
        530,
        (5, 7, 0),
        "Encryption is required here; issue STARTTLS first",
    )
}

/// MAIL with REQUIRETLS, in clear (RFC 8689 section 4.1).
pub fn require_tls_in_clear() -> Reply {
    Reply::new(
        530,
        (5, 7, 10),
        "REQUIRETLS needs an encrypted session: give STARTTLS first",
    )
}

/// STARTTLS where none is offered.
pub fn tls_not_offered() -> Reply {
    Reply::new(502, (5, 5, 1), "STARTTLS is not offered here")
}

/// STARTTLS within TLS.
pub fn tls_active() -> Reply {
    Reply::new(503, (5, 5, 1), "TLS is active already")
}

/// Octets came after STARTTLS without waiting for its reply (RFC 3207 section 4.2, RFC 2920 section 3.1).
pub fn tls_pipelined() -> Reply {
    Reply::new(
        421,
        (4, 7, 0),
        "Commands came together with STARTTLS and would bypass TLS; wait for the reply to STARTTLS",
    )
}

/// A command out of its place.
pub fn bad_sequence(first: &str) -> Reply {
    Reply::new(503, (5, 5, 1), format!("Out of sequence; {first} first"))
}

/// MAIL inside a transaction.
pub fn nested_mail() -> Reply {
    Reply::new(
        503,
        (5, 5, 1),
        "A transaction is open already; end it with DATA or RSET",
    )
}

/// AUTH inside a transaction or a second time.
pub fn authentication_misplaced() -> Reply {
    Reply::new(503, (5, 5, 1), "AUTH comes once, after EHLO and before MAIL")
}

/// Octets of a message came before DATA was answered, and DATA was refused.
pub fn data_pipelined() -> Reply {
    Reply::new(
        421,
        (4, 5, 0),
        "The message was sent before DATA was answered, and DATA is refused; wait for 354",
    )
}

/// More recipients than the limit.
pub fn too_many_recipients(limit: usize) -> Reply {
    Reply::new(
        452,
        (4, 5, 3),
        format!("A message may have {limit} recipients here; send to the others in a further transaction"),
    )
}

/// SIZE over the limit, or a message that grew over it.
pub fn too_large(limit: u64) -> Reply {
    Reply::new(
        552,
        (5, 3, 4),
        format!("Messages may have {limit} octets here; send a smaller one"),
    )
}

/// A parameter in a session that began with HELO.
pub fn parameters_need_ehlo() -> Reply {
    Reply::new(
        555,
        (5, 5, 4),
        "Parameters need EHLO; greet with EHLO or leave them out",
    )
}

/// A command line over the limit.
pub fn line_too_long(limit: usize) -> Reply {
    Reply::new(
        500,
        (5, 5, 2),
        format!("A command line may have {limit} octets; shorten it"),
    )
}

/// A command line that has no end.
pub fn line_endless() -> Reply {
    Reply::new(
        421,
        (4, 5, 2),
        "No end of the command line in sight; end lines with CRLF",
    )
}

/// A bare LF in a command: the connection closes after it.
pub fn bare_line_feed() -> Reply {
    Reply::new(
        500,
        (5, 5, 2),
        "A line feed without carriage return was received; end every line with CRLF",
    )
}

/// Too many errors: the connection closes.
pub fn too_many_errors() -> Reply {
    Reply::new(
        421,
        (4, 7, 0),
        "Too many errors; mend the client and connect again",
    )
}

/// The caller of the session gave no decision: the safe answer.
pub fn undecided() -> Reply {
    Reply::new(451, (4, 3, 0), "No decision could be made here; try again later")
}

/// A command line that cannot be read.
pub fn command_error(error: &CommandError) -> Reply {
    let (code, enhanced) = match error {
        CommandError::Unknown | CommandError::Control | CommandError::Encoding => (500, (5, 5, 2)),
        CommandError::OtherProtocol => (421, (4, 7, 0)),
        CommandError::Address(_) => (501, (5, 1, 3)),
        CommandError::NeedsUtf8 => (553, (5, 6, 7)),
        CommandError::Parameter(ParameterError::Unknown(_)) => (555, (5, 5, 4)),
        CommandError::Usage(_) | CommandError::ChunkSize | CommandError::Parameter(_) => (501, (5, 5, 4)),
    };
    let text = match error {
        CommandError::Unknown => "Unknown command; HELP lists those that are known".to_owned(),
        CommandError::Control => {
            "The command holds a control character (a bare CR or NUL?); end lines with CRLF".to_owned()
        }
        CommandError::Encoding => "The command is neither ASCII nor UTF-8; encode it in UTF-8".to_owned(),
        CommandError::OtherProtocol => "This is SMTP, and that was not".to_owned(),
        CommandError::ChunkSize => {
            "The size of BDAT cannot be read, so the connection closes; write BDAT octets [LAST]".to_owned()
        }
        CommandError::NeedsUtf8 => {
            "The address is not ASCII; give SMTPUTF8 with MAIL, or an ASCII address".to_owned()
        }
        other => capitalised(&other.to_string()),
    };
    Reply::new(code, enhanced, text)
}

/// Content that is refused.
pub fn content_error(error: ContentError) -> Reply {
    match error {
        ContentError::TooLarge(limit) => too_large(limit),
        ContentError::HeaderTooLarge(limit) => Reply::new(
            552,
            (5, 3, 4),
            format!("The header section may have {limit} octets here; shorten it"),
        ),
        ContentError::TooManyHops(limit) => Reply::new(
            554,
            (5, 4, 6),
            format!(
                "The message has more than {limit} Received fields: it is going in circles; look for a forwarding loop"
            ),
        ),
        ContentError::LineTooLong(limit) => Reply::new(
            554,
            (5, 6, 0),
            format!(
                "The message holds a line of more than {limit} octets; encode it with quoted-printable or base64"
            ),
        ),
        // A fault of ours: the message itself may be good.
        ContentError::NotAsAnnounced(_) => Reply::new(451, (4, 3, 0), capitalised(&error.to_string())),
        ContentError::BareCr | ContentError::BareLf | ContentError::Nul => Reply::new(
            554,
            (5, 6, 0),
            format!(
                "{}; lines must end with CRLF, and CR, LF and NUL stand nowhere else (RFC 5321 section 2.3.8)",
                capitalised(&error.to_string())
            ),
        ),
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().chain(characters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
