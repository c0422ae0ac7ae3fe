//! The first page: the node, its links, firewall, services and queue, and the last events in what room is left.

use ratatui::text::Line;

use super::{BOLD, Moment, events, heading, paragraph, role};
use crate::{
    clock,
    model::{Firewall, Model, Seen, Services},
    text::Text,
};

pub(super) fn lines(model: &Model, moment: Moment, height: u16, width: usize) -> Vec<Line<'static>> {
    let mut lines = node(model, moment, width);
    lines.push(Line::default());
    lines.push(firewall(model.firewall()));
    lines.extend(services(&model.services, moment, width));
    lines.extend(queue(model, moment, width));
    lines.push(Line::default());
    lines.push(Line::styled("Last events", BOLD));
    let room = usize::from(height).saturating_sub(lines.len()).max(1);
    let events = events::lines(model, width);
    lines.extend(events.iter().skip(events.len().saturating_sub(room)).cloned());
    lines
}

fn node(model: &Model, moment: Moment, width: usize) -> Vec<Line<'static>> {
    let Some(host) = model.host.value() else {
        return heading("Node", &model.host, moment, width);
    };
    let text = |text: Option<&Text>, none: &str| text.map_or(none, Text::as_str).to_owned();
    let mut lines = vec![
        row(
            "Node",
            &text(host.node.as_ref(), "NOT KNOWN: no site was imported yet"),
        ),
        row("Host name", &text(host.mail_name.as_ref(), "-")),
        row("Role", &text(role(model), "NOT KNOWN: no site was rendered yet")),
        row("Version", &text(host.version.as_ref(), "-")),
        row("Running for", &clock::duration(host.uptime)),
    ];
    for link in &host.links {
        let state = if link.up { "up" } else { "DOWN" };
        let addresses: Vec<&str> = link.addresses.iter().map(Text::as_str).collect();
        let addresses = if addresses.is_empty() {
            "no address".to_owned()
        } else {
            addresses.join("  ")
        };
        lines.push(row("Link", &format!("{:<10} {state:<5} {addresses}", link.name)));
    }
    if host.links.is_empty() {
        lines.push(row(
            "Link",
            "NONE: this node has no network card, or its driver is missing",
        ));
    }
    lines
}

fn firewall(state: Firewall) -> Line<'static> {
    match state {
        Firewall::Loaded => row("Firewall", "loaded: the site's rules are in force"),
        Firewall::Closed => loud(
            "Firewall",
            "CLOSED: everything is dropped, the site's rules are not loaded",
        ),
        Firewall::Unknown => loud("Firewall", "NOT KNOWN: no rule set is reported as loaded"),
    }
}

fn services(seen: &Seen<Services>, moment: Moment, width: usize) -> Vec<Line<'static>> {
    let Some(services) = seen.value() else {
        return heading("Services", seen, moment, width);
    };
    let failed: Vec<&str> = services
        .units
        .iter()
        .filter(|u| u.is_failed())
        .map(|u| u.id.as_str())
        .collect();
    let running = services.units.iter().filter(|u| u.is_active()).count();
    if failed.is_empty() {
        return vec![row(
            "Services",
            &format!("{running} of {} active, none failed", services.units.len()),
        )];
    }
    let mut lines = vec![loud(
        "Services",
        &format!("{running} active, {} FAILED:", failed.len()),
    )];
    lines.extend(
        paragraph(&failed.join(" "), 13, width)
            .into_iter()
            .map(|line| line.style(BOLD)),
    );
    lines
}

fn queue(model: &Model, moment: Moment, width: usize) -> Vec<Line<'static>> {
    let Some(queue) = model.queue.value() else {
        return heading("Queue", &model.queue, moment, width);
    };
    let oldest = if queue.messages > 0 {
        format!(", oldest {}", clock::duration(queue.oldest))
    } else {
        String::new()
    };
    vec![row(
        "Queue",
        &format!(
            "messages {}, recipients due {}{oldest}",
            queue.messages, queue.recipients_due
        ),
    )]
}

fn row(name: &str, value: &str) -> Line<'static> {
    Line::from(format!("{name:<12} {value}"))
}

fn loud(name: &str, value: &str) -> Line<'static> {
    row(name, value).style(BOLD)
}
