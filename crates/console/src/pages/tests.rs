//! Every page as a snapshot, on the screen of a VT220.

use std::time::{Duration, Instant, UNIX_EPOCH};

use insta::assert_snapshot;
use ratatui::{Terminal, backend::TestBackend};

use super::{Moment, draw};
use crate::{
    app::{App, Page},
    model::{Event, Failure, Host, Link, Model, Queue, Record, Services, Unit, Update, Waiting},
    text::Text,
};

fn shown(app: &App, columns: u16, rows: u16, later: Duration) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let moment = Moment {
        now: Instant::now() + later,
        wall: UNIX_EPOCH + Duration::from_secs(1_767_225_599),
    };
    terminal.draw(|frame| draw(frame, app, moment)).unwrap();
    terminal.backend().to_string()
}

fn page(page: Page, model: Model) -> String {
    shown(
        &App {
            model,
            page,
            ..App::new(None)
        },
        80,
        24,
        Duration::ZERO,
    )
}

fn unit(id: &str, active: &str, sub: &str) -> Unit {
    let result = if active == "failed" {
        "exit-code"
    } else {
        "success"
    };
    let description = Text::new(&format!("What {id} does"));
    Unit {
        id: id.into(),
        description,
        active: active.into(),
        sub: sub.into(),
        result: result.into(),
        restarts: 1,
    }
}

fn host() -> Host {
    let link = |name: &str, up, addresses: &[&str]| Link {
        name: name.into(),
        up,
        addresses: addresses.iter().map(|a| Text::new(a)).collect(),
    };
    Host {
        node: Some("gateway".into()),
        role: Some("gateway".into()),
        mail_name: Some("mx1.example.org".into()),
        version: Some("0.1.0".into()),
        uptime: Duration::from_secs(93_784),
        links: vec![
            link("dmz", true, &["10.200.9.10/24", "fe80::1/64"]),
            link("outside", false, &[]),
        ],
    }
}

fn services(firewall: &str) -> Services {
    let units = vec![
        unit("postern-closed.service", "active", "exited"),
        unit("postern-firewall.service", firewall, "exited"),
        unit("postern-queue.service", "active", "running"),
        unit("postern-smtpd@public.service", "active", "running"),
    ];
    Services {
        units,
        blocking: Vec::new(),
    }
}

fn queue() -> Queue {
    let waiting = Waiting {
        id: "7f3a".into(),
        from: "a@example.net".into(),
        to: "b@example.org".into(),
        attempts: 2,
        next: "2025-12-31T23:59:59Z".into(),
        last_reply: "451 4.4.1 no answer from 10.200.1.25".into(),
    };
    Queue {
        role: "gateway".into(),
        messages: 1,
        recipients_due: 1,
        oldest: Duration::from_secs(125),
        spool_octets: 8192,
        waiting: vec![waiting],
        truncated: true,
        dkim: vec![Record {
            name: "postern-rsa._domainkey.example.org".into(),
            value: format!("v=DKIM1; k=rsa; p={}", "A".repeat(392)).into(),
        }],
    }
}

fn event(seconds: u64, priority: u8, text: &str) -> Event {
    Event {
        seconds,
        priority,
        source: "postern-smtpd@public".into(),
        text: text.into(),
    }
}

fn healthy() -> Model {
    let mut model = Model::new();
    let now = Instant::now();
    model.take(Update::Host(Ok(host())), now);
    model.take(Update::Services(Ok(services("active"))), now);
    model.take(Update::Queue(Ok(queue())), now);
    for i in 0..20 {
        model.take(
            Update::Event(event(
                1_767_225_000 + i,
                6,
                &format!("t{i} connection from 192.0.2.{i}"),
            )),
            now,
        );
    }
    model.take(
        Update::Event(event(
            1_767_225_030,
            4,
            "t21 refused at RCPT: 550 5.1.1 \u{1b}[2J\u{7}no such mailbox, and a text long enough to be cut",
        )),
        now,
    );
    model
}

#[test]
fn overview_of_a_healthy_node() {
    assert_snapshot!(page(Page::Overview, healthy()));
}

#[test]
fn overview_before_anything_answered() {
    assert_snapshot!(page(Page::Overview, Model::new()));
}

#[test]
fn overview_with_the_network_down_and_the_relay_dead() {
    let mut model = healthy();
    let now = Instant::now();
    model.take(
        Update::Queue(Err(
            "the queue process does not answer on /run/postern/control.sock: Connection refused".into(),
        )),
        now,
    );
    let mut services = services("active");
    services.units[2] = unit("postern-queue.service", "failed", "failed");
    model.take(Update::Services(Ok(services)), now);
    let links = host()
        .links
        .into_iter()
        .map(|l| Link { up: false, ..l })
        .collect();
    model.take(Update::Host(Ok(Host { links, ..host() })), now);
    assert_snapshot!(page(Page::Overview, model));
}

#[test]
fn overview_of_a_node_that_stays_closed() {
    let mut model = Model::new();
    let now = Instant::now();
    model.take(
        Update::Host(Ok(Host {
            version: Some("0.1.0".into()),
            ..Host::default()
        })),
        now,
    );
    model.take(Update::Services(Ok(services("inactive"))), now);
    model.take(Update::EventsFault("journalctl cannot be started".into()), now);
    assert_snapshot!(page(Page::Overview, model));
}

#[test]
fn a_failed_import_fills_the_screen() {
    let mut model = healthy();
    let said = vec![
        Text::new("postern node import: /run/credentials/postern.site:7:11: unknown zone \"outsid\""),
        Text::new(
            "    7 | [node.links.outsid]; did you mean `outside`? Zones are outside, dmz and internal, and a node has one link in each that it needs.",
        ),
    ];
    let failure = Failure {
        unit: "postern-import.service".into(),
        result: "exit-code".into(),
        said,
    };
    model.take(
        Update::Services(Ok(Services {
            blocking: vec![failure],
            ..services("inactive")
        })),
        Instant::now(),
    );
    assert_snapshot!(page(Page::Overview, model));
}

#[test]
fn what_is_out_of_date_says_so() {
    let app = App {
        model: healthy(),
        page: Page::Queue,
        ..App::new(None)
    };
    assert_snapshot!(shown(&app, 80, 12, Duration::from_secs(75)));
}

#[test]
fn services_page() {
    let mut model = healthy();
    model.take(Update::Services(Ok(services("failed"))), Instant::now());
    assert_snapshot!(page(Page::Services, model));
}

#[test]
fn queue_page() {
    assert_snapshot!(page(Page::Queue, healthy()));
}

#[test]
fn events_page_shows_the_newest_and_scrolls_back() {
    assert_snapshot!(
        "newest",
        shown(
            &App {
                model: healthy(),
                page: Page::Events,
                ..App::new(None)
            },
            80,
            12,
            Duration::ZERO
        )
    );
    assert_snapshot!(
        "back",
        shown(
            &App {
                model: healthy(),
                page: Page::Events,
                scroll: 5,
                ..App::new(None)
            },
            80,
            12,
            Duration::ZERO
        )
    );
}

#[test]
fn dns_page() {
    assert_snapshot!(page(Page::Dns, healthy()));
}

#[test]
fn help_page() {
    assert_snapshot!(page(Page::Help, healthy()));
}

#[test]
fn no_size_of_screen_breaks_a_page() {
    for page in Page::ALL {
        for (columns, rows) in [(1, 1), (2, 3), (20, 5), (79, 24), (132, 43), (500, 200)] {
            for scroll in [0, 7, 1000] {
                let app = App {
                    model: healthy(),
                    page,
                    scroll,
                    notice: Some("again"),
                };
                let text = shown(&app, columns, rows, Duration::ZERO);
                assert!(
                    text.bytes().all(|b| b == b'\n' || (0x20..=0x7e).contains(&b)),
                    "{page:?} {columns}x{rows}"
                );
            }
        }
    }
}
