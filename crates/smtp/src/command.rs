//! Commands (RFC 5321 section 4.1.1; RFC 2033 LHLO, RFC 3030 BDAT, RFC 3207 STARTTLS, RFC 4954 AUTH), and XSUBMIT, which
//! is our own: a gateway says by it for whom it passes a submission on.
//!
//! Enters: one command line without its CRLF. Leaves: a [`Command`] with its arguments read, or a [`CommandError`].

use std::net::IpAddr;

use crate::address::{self, AddressError, ForwardPath, ReversePath};
use crate::parameters::{self, MailParameters, ParameterError, RcptParameters};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// HELO with the client's name.
    Helo(String),
    /// EHLO with the client's name.
    Ehlo(String),
    /// LHLO, which belongs to LMTP.
    Lhlo,
    /// MAIL FROM.
    Mail(ReversePath, MailParameters),
    /// RCPT TO.
    Rcpt(ForwardPath, RcptParameters),
    /// DATA.
    Data,
    /// BDAT.
    Bdat {
        /// Octets that follow the command line.
        size: u64,
        /// Whether they are the message's last.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP; its argument means nothing.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY.
    Vrfy,
    /// EXPN.
    Expn,
    /// HELP.
    Help,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth {
        /// The mechanism, in upper case.
        mechanism: String,
        /// The initial response, as it was sent.
        initial: Option<String>,
    },
    /// XSUBMIT.
    Submit {
        /// The address of the client whose submission this is.
        address: IpAddr,
        /// What the client said in EHLO.
        name: String,
    },
}

/// Why a line is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The verb is not known.
    #[error("unknown command")]
    Unknown,
    /// The line speaks another protocol, such as HTTP: somebody made another program send it.
    #[error("this is an SMTP server, and the line is not SMTP")]
    OtherProtocol,
    /// A control character, a bare CR or a NUL.
    #[error("the command holds a control character")]
    Control,
    /// Not UTF-8.
    #[error("the command is neither ASCII nor UTF-8")]
    Encoding,
    /// Wrong arguments; how to write the command.
    #[error("wrong arguments; write {0}")]
    Usage(&'static str),
    /// BDAT whose size cannot be read: where the next command begins is not known.
    #[error("the size of BDAT cannot be read")]
    ChunkSize,
    /// The path.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A parameter.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A non-ASCII path without SMTPUTF8.
    #[error("the address is not ASCII, and SMTPUTF8 was not given with MAIL")]
    NeedsUtf8,
}

/// Most octets of the name in HELO and EHLO.
const MAX_NAME: usize = address::MAX_DOMAIN;

/// Reads a command line (without its CRLF).
pub fn parse(line: &[u8]) -> Result<Command, CommandError> {
    if line
        .iter()
        .any(|octet| octet.is_ascii_control() && *octet != b'\t')
    {
        return Err(CommandError::Control);
    }
    let text = std::str::from_utf8(line).map_err(|_| CommandError::Encoding)?;
    let text = text.trim_end_matches([' ', '\t']);
    let (verb, arguments) = text.split_once(' ').unwrap_or((text, ""));
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" => client_name(arguments, "EHLO name").map(Command::Ehlo),
        "HELO" => client_name(arguments, "HELO name").map(Command::Helo),
        "LHLO" => Ok(Command::Lhlo),
        "MAIL" => mail(arguments),
        "RCPT" => rcpt(arguments),
        "DATA" => bare(Command::Data, arguments, "DATA"),
        "BDAT" => bdat(arguments),
        "RSET" => bare(Command::Rset, arguments, "RSET"),
        "NOOP" => Ok(Command::Noop),
        "QUIT" => bare(Command::Quit, arguments, "QUIT"),
        "VRFY" if arguments.is_empty() => Err(CommandError::Usage("VRFY address")),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" => Ok(Command::Expn),
        "HELP" => Ok(Command::Help),
        "STARTTLS" => bare(Command::StartTls, arguments, "STARTTLS"),
        "AUTH" => auth(arguments),
        "XSUBMIT" => submit(arguments),
        "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "CONNECT" | "HOST:" | "USER-AGENT:" => {
            Err(CommandError::OtherProtocol)
        }
        _ => Err(CommandError::Unknown),
    }
}

fn bare(command: Command, arguments: &str, usage: &'static str) -> Result<Command, CommandError> {
    if arguments.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Usage(usage))
    }
}

/// The name may be wrong, and is only ever quoted (RFC 5321 section 4.1.4); it must be one word of bounded length.
fn client_name(arguments: &str, usage: &'static str) -> Result<String, CommandError> {
    let name = arguments.trim_matches(' ');
    if name.is_empty() || name.len() > MAX_NAME || name.contains([' ', '\t']) {
        return Err(CommandError::Usage(usage));
    }
    Ok(name.to_owned())
}

fn mail(arguments: &str) -> Result<Command, CommandError> {
    let usage = "MAIL FROM:<address> [parameters]";
    let (path, rest) = path(arguments, "FROM:", usage)?;
    let path: ReversePath = path.parse()?;
    let parameters = parameters::parse_mail(rest)?;
    // RFC 6531 section 3.4.
    if !path.is_ascii() && !parameters.smtputf8 {
        return Err(CommandError::NeedsUtf8);
    }
    Ok(Command::Mail(path, parameters))
}

fn rcpt(arguments: &str) -> Result<Command, CommandError> {
    let usage = "RCPT TO:<address> [parameters]";
    let (path, rest) = path(arguments, "TO:", usage)?;
    if path.is_empty() {
        return Err(AddressError::Empty.into());
    }
    Ok(Command::Rcpt(path.parse()?, parameters::parse_rcpt(rest)?))
}

/// Splits `FROM:<path> rest`. White space after the colon is no part of the grammar, but common and harmless.
fn path<'a>(
    arguments: &'a str,
    keyword: &str,
    usage: &'static str,
) -> Result<(&'a str, &'a str), CommandError> {
    let arguments = arguments.trim_start_matches(' ');
    let rest = match arguments.get(..keyword.len()) {
        Some(start) if start.eq_ignore_ascii_case(keyword) => &arguments[keyword.len()..],
        _ => return Err(CommandError::Usage(usage)),
    };
    let (path, rest) = address::split_brackets(rest.trim_start_matches(' '))?;
    if !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return Err(CommandError::Usage(usage));
    }
    Ok((path, rest))
}

fn bdat(arguments: &str) -> Result<Command, CommandError> {
    let mut words = arguments.split(' ').filter(|word| !word.is_empty());
    let digits = words.next().unwrap_or_default();
    let well_formed = (1..=19).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let last = match (words.next(), words.next()) {
        (None, _) => false,
        (Some(word), None) if word.eq_ignore_ascii_case("LAST") => true,
        _ => return Err(CommandError::ChunkSize),
    };
    match digits.parse() {
        Ok(size) if well_formed => Ok(Command::Bdat { size, last }),
        _ => Err(CommandError::ChunkSize),
    }
}

fn auth(arguments: &str) -> Result<Command, CommandError> {
    let mut words = arguments.split(' ').filter(|word| !word.is_empty());
    let usage = CommandError::Usage("AUTH mechanism [initial response]");
    let Some(mechanism) = words.next() else {
        return Err(usage);
    };
    let initial = words.next().map(str::to_owned);
    if words.next().is_some() {
        return Err(usage);
    }
    Ok(Command::Auth {
        mechanism: mechanism.to_ascii_uppercase(),
        initial,
    })
}

fn submit(arguments: &str) -> Result<Command, CommandError> {
    let usage = "XSUBMIT address name";
    let (address, name) = arguments.split_once(' ').ok_or(CommandError::Usage(usage))?;
    Ok(Command::Submit {
        address: address.parse().map_err(|_| CommandError::Usage(usage))?,
        name: client_name(name, usage)?,
    })
}

#[cfg(test)]
mod tests;
