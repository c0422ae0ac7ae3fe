//! `scanning` of `[policy]` and what goes with it: whether a client waits for the scanners, or its mail is held until they have
//! answered. Read here, checked here, rendered here: nothing else of the site depends on it.

use crate::diagnostic::{Fault, Report};
use crate::model::At;
use crate::reader::Reader;

/// Seconds for a scanner, as `relay.toml` is rendered; the deadline is below it.
const SCANNER_TIMEOUT: u64 = 60;

/// What the site says of scanning.
#[derive(Debug)]
pub(crate) struct Scanning {
    hybrid: At<bool>,
    /// Seconds.
    deadline: At<u64>,
    /// Seconds.
    lifetime: At<u64>,
    messages: At<u64>,
    /// Octets.
    size: At<u64>,
}

impl Default for Scanning {
    fn default() -> Self {
        Self {
            hybrid: At::default_value(false),
            deadline: At::default_value(10),
            lifetime: At::default_value(86_400),
            messages: At::default_value(1000),
            size: At::default_value(1 << 30),
        }
    }
}

/// A key that may be left out: `None` only where it is there and faulty.
fn or<T>(table: &Reader<'_, '_>, key: &str, read: Option<At<T>>, default: At<T>) -> Option<At<T>> {
    read.or_else(|| table.key_span(key).is_none().then_some(default))
}

pub(crate) fn read(table: &mut Reader<'_, '_>) -> Option<Scanning> {
    let default = Scanning::default();
    let hybrid = table.text("scanning", scanning);
    let hybrid = or(table, "scanning", hybrid, default.hybrid);
    let deadline = table.integer("hybrid-deadline", 1..SCANNER_TIMEOUT);
    let deadline = or(table, "hybrid-deadline", deadline, default.deadline);
    let lifetime = table.text("hold-lifetime", lifetime);
    let lifetime = or(table, "hold-lifetime", lifetime, default.lifetime);
    let messages = table.integer("hold-messages", 1..10_001);
    let messages = or(table, "hold-messages", messages, default.messages);
    let size = table.text("hold-size", size);
    let size = or(table, "hold-size", size, default.size);
    Some(Scanning {
        hybrid: hybrid?,
        deadline: deadline?,
        lifetime: lifetime?,
        messages: messages?,
        size: size?,
    })
}

fn scanning(text: &str) -> Result<bool, Fault> {
    match text {
        "inline" => Ok(false),
        "hybrid" => Ok(true),
        _ => Err(Fault::new(
            format!("mail cannot be scanned `{text}`"),
            "use \"inline\" (the client waits for the scanners) or \"hybrid\" (what they do not answer for in time is held)",
        )),
    }
}

fn lifetime(text: &str) -> Result<u64, Fault> {
    let number = |unit: &str, factor: u64| {
        let number = text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?;
        number.checked_mul(factor)
    };
    let seconds = number("m", 60)
        .or_else(|| number("h", 3600))
        .or_else(|| number("d", 86_400));
    match seconds {
        Some(seconds) if (60..=30 * 86_400).contains(&seconds) => Ok(seconds),
        _ => Err(Fault::new(
            format!("`{text}` is not a time that mail may be held"),
            "write a time from \"1m\" to \"30d\", such as \"24h\"",
        )),
    }
}

fn size(text: &str) -> Result<u64, Fault> {
    let number = |unit: &str, shift: u32| {
        let number = text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?;
        number.checked_mul(1 << shift)
    };
    match number("MiB", 20).or_else(|| number("GiB", 30)) {
        Some(octets) if (1 << 20..=1 << 40).contains(&octets) => Ok(octets),
        _ => Err(Fault::new(
            format!("`{text}` is not a size of the hold"),
            "write a size from \"1MiB\" to \"1024GiB\", such as \"1GiB\"",
        )),
    }
}

impl Scanning {
    /// The largest message must have room.
    pub(crate) fn check(&self, largest: u64, report: &mut Report) {
        if *self.size < largest {
            report.add(
                self.size.span(),
                "hold-size is below max-message-size, so the largest message could never be held",
                "make hold-size a few times max-message-size",
            );
        }
    }

    /// The table `[hybrid]` of `relay.toml`; empty where the client waits.
    pub(crate) fn render(&self) -> String {
        if !*self.hybrid {
            return String::new();
        }
        format!(
            "
[hybrid]
deadline = {}
lifetime = {}
max-messages = {}
max-octets = {}
",
            *self.deadline, *self.lifetime, *self.messages, *self.size
        )
    }
}
