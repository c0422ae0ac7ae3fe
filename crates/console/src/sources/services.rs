//! The state of the product's units, from `systemctl show`, and the last words of those that failed and block the rest.

use super::{command::output, journal};
use crate::{
    model::{Failure, Services, Unit},
    text::Text,
};

/// Units without which the node does not work at all: what they said last is shown in large.
const BLOCKING: [&str; 3] = [
    "postern-import.service",
    "postern-render.service",
    "postern-firewall.service",
];

/// Asks the service manager.
pub(crate) fn read() -> Result<Services, Text> {
    let text = output(
        "systemctl",
        &[
            "show",
            "--no-pager",
            "--property=Id,Description,LoadState,ActiveState,SubState,Result,NRestarts",
            "postern-*.service",
            "postern-*.socket",
        ],
    )?;
    let mut units = parse(&text);
    if units.is_empty() {
        return Err(Text::new("the service manager knows no unit of Postern"));
    }
    units.sort_by(|a, b| a.id.cmp(&b.id));
    let failed = units
        .iter()
        .filter(|u| u.is_failed() && BLOCKING.contains(&u.id.as_str()));
    let blocking = failed
        .map(|u| Failure {
            unit: u.id.clone(),
            result: u.result.clone(),
            said: journal::last_words(u.id.as_str()),
        })
        .collect();
    Ok(Services { units, blocking })
}

/// Reads `systemctl show`: `Name=value` lines, an empty line between units. Sockets are kept only where they failed.
fn parse(text: &str) -> Vec<Unit> {
    let blocks = text.split("\n\n").map(|block| {
        let field = |name: &str| {
            block
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
        };
        (field("LoadState") == "loaded").then(|| Unit {
            id: Text::new(field("Id")),
            description: Text::new(field("Description")),
            active: Text::new(field("ActiveState")),
            sub: Text::new(field("SubState")),
            result: Text::new(field("Result")),
            restarts: field("NRestarts").parse().unwrap_or(0),
        })
    });
    blocks
        .flatten()
        .filter(|u| u.is_failed() || u.id.as_str().ends_with(".service"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "Id=postern-queue.service\nDescription=Mail queue\nLoadState=loaded\nActiveState=active\n\
        SubState=running\nResult=success\nNRestarts=2\n\nId=postern-queue@public.socket\nLoadState=loaded\nActiveState=active\n\
        SubState=running\nResult=success\n\nId=postern-smtpd@public-mx.socket\nLoadState=loaded\nActiveState=failed\n\
        Result=resources\n\nId=postern-none.service\nLoadState=not-found\nActiveState=inactive\n";

    #[test]
    fn services_and_failed_sockets_are_kept() {
        let units = parse(SHOWN);
        let ids: Vec<_> = units.iter().map(|u| u.id.as_str()).collect();
        assert_eq!(ids, ["postern-queue.service", "postern-smtpd@public-mx.socket"]);
        assert_eq!(units[0].restarts, 2);
        assert!(units[0].is_active() && units[1].is_failed());
    }

    #[test]
    fn nothing_is_made_of_nonsense() {
        assert!(parse("").is_empty() && parse("Failed to connect to bus\n").is_empty());
    }
}
