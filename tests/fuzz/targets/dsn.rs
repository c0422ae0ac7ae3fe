//! Notifications about anything: addresses, replies and reasons of others begin no line, field or part of their own.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use postern_relay::dsn::{Action, Report, Reported, Returned, write};

const TOKEN: &str = "00112233aabbccdd";
const FIELDS: [&str; 9] = [
    "From: ",
    "To: ",
    "Subject: ",
    "Date: ",
    "Message-ID: ",
    "Auto-Submitted: ",
    "MIME-Version: ",
    "Content-Type: ",
    "\tboundary=",
];

fn text(input: &mut Unstructured<'_>) -> Result<String> {
    let length = usize::from(input.arbitrary::<u16>()?) % 1500;
    let octets = input.bytes(length.min(input.len()))?;
    Ok(String::from_utf8_lossy(octets).into_owned())
}

fn maybe(input: &mut Unstructured<'_>) -> Result<Option<String>> {
    Ok(if input.arbitrary()? {
        Some(text(input)?)
    } else {
        None
    })
}

fn reported(input: &mut Unstructured<'_>) -> Result<Reported> {
    Ok(Reported {
        address: text(input)?,
        orcpt: maybe(input)?,
        status: text(input)?,
        remote: maybe(input)?,
        reply: text(input)?,
        action: match input.arbitrary::<u8>()? % 5 {
            0 => Action::Failed { expired: false },
            1 => Action::Failed { expired: true },
            2 => Action::Delayed {
                until: input.arbitrary()?,
            },
            3 => Action::Relayed,
            _ => Action::Delivered,
        },
    })
}

fn look(octets: &[u8]) -> Result<()> {
    let mut input = Unstructured::new(octets);
    let count = 1 + usize::from(input.arbitrary::<u8>()? % 4);
    let all: Vec<Reported> = (0..count).map(|_| reported(&mut input)).collect::<Result<_>>()?;
    let (reverse_path, to, envid, withheld) = (
        text(&mut input)?,
        text(&mut input)?,
        maybe(&mut input)?,
        maybe(&mut input)?,
    );
    let (time, arrived, whole): (u64, u64, bool) =
        (input.arbitrary()?, input.arbitrary()?, input.arbitrary()?);
    // What the spool holds has been checked when it came in.
    let content = input.take_rest();
    let content = if postern_smtp::data::check(content).is_ok() {
        content
    } else {
        b""
    };
    let message = write(&Report {
        reporting_mta: "mx1.example.org",
        postmaster: "postmaster@example.org",
        to: &to,
        token: TOKEN,
        time,
        reverse_path: &reverse_path,
        envid: envid.as_deref(),
        arrived,
        id: "0656c0aa4c6000",
        reported: &all,
        returned: if whole {
            Returned::Message(content)
        } else {
            Returned::Header(content)
        },
        withheld: withheld.as_deref(),
    });
    assert!(postern_smtp::data::check(&message).is_ok(), "not only CRLF");
    // RFC 5322 2.1.1: 998 octets and CRLF.
    let long = |octets: &[u8]| {
        octets
            .split_inclusive(|octet| *octet == b'\n')
            .any(|line| line.len() > 1000)
    };
    assert!(long(content) || !long(&message), "a line that no host takes");
    // Its token is random: nobody who wrote the rest has known it.
    if octets.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&message);
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let known = |line: &str| FIELDS.iter().any(|field| line.starts_with(field));
    assert!(head.split("\r\n").all(known), "a field of others in {head}");
    assert_eq!(head.split("\r\n").count(), FIELDS.len());
    let parts = text.matches(&format!("\r\n--={TOKEN}=")).count();
    assert_eq!(parts, 4, "three parts and their end");
    Ok(())
}

fuzz_target!(|octets: &[u8]| {
    let _ = look(octets);
});
