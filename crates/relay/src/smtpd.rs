//! The smtpd process: takes mail from clients of one instance and hands it to the queue.
//!
//! `main` is a checklist: sockets, credentials, sandbox, runtime, serve. Nothing is opened after the sandbox stands.

mod accept;
mod admission;
mod body;
mod client;
mod connection;
mod deliver;
mod figures;
mod headers;
mod hourly;
mod not_held;
mod permit;
mod proxied;
mod rescan;
mod room;
mod stress;
mod submission;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mail_auth::MessageAuthenticator;
use postern_sandbox::{Inherited, Policy};
use rustls::ServerConfig;
use tokio::sync::Semaphore;

use crate::checks::Tools;
use crate::checks::lists::Lists;
use crate::checks::recipient::{Oracle, Verifier};
use crate::checks::sender::Senders;
use crate::config::{
    Authentication, CheckName, Config, Instance, Recipient, RecipientVia, ScannerSocket, Submission,
};
use crate::deliver::dns::Dns;
use crate::events::Events;
use crate::handover;
use crate::queue::config::NextHop;
use crate::reports::observer::Observer;
use crate::reputation::Reputation;
use crate::reputation::hourly::Hourly;
use crate::reputation::keeper::Keeper;
use crate::reputation::shared::Shared;
use crate::sasl::{Logins, Service};
use crate::table::Table;
use admission::Admission;
use body::Memory;
use room::Room;
use stress::Stress;

/// Descriptor names in the socket units.
pub const MX: &str = "mx";
/// Port 587.
pub const SUBMISSION: &str = "submission";
/// Port 465.
pub const SUBMISSIONS: &str = "submissions";

const SCANS_AT_A_TIME: usize = 32;
const IMPATIENT_SENDERS: usize = 65_536;

/// What all connections of one instance share.
struct Server {
    name: String,
    config: Arc<Config>,
    instance: Instance,
    tls: Option<Arc<ServerConfig>>,
    events: Events,
    tools: Tools,
    hourly: Hourly,
    /// Sessions that one gateway may carry inward beside its own.
    carried: usize,
    logins: Option<Logins>,
    /// For sessions that a gateway passes on: app passwords, and the socket for what they submit.
    outside: Option<(Logins, handover::Client)>,
    queue: handover::Client,
    /// Of the queue's disk.
    room: Room,
    /// Takes what reports tell; absent where none are sent.
    observer: Option<Observer>,
    admission: Arc<Admission>,
    stress: Stress,
    /// Connections of proxies whose client is not known yet.
    unnamed: Semaphore,
    /// What messages may take of it.
    memory: Memory,
    /// Since when senders have been deferred for temporary DNS errors.
    deferred: Mutex<Table<Instant>>,
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Mail exchange, and on the inside submission too.
    Mx,
    /// Submission, TLS by STARTTLS (RFC 6409).
    Submission,
    /// Submission, TLS from the first octet (RFC 8314 section 3.3).
    Submissions,
}

/// A listening socket and what it is for.
struct Port {
    listener: TcpListener,
    purpose: Purpose,
}

/// The process: sockets, credentials, sandbox, runtime, serve.
pub fn main(config: Config, name: &str, passed: Vec<Inherited>) -> anyhow::Result<()> {
    let Some(instance) = config.instance.get(name).cloned() else {
        let known: Vec<&str> = config.instance.keys().map(String::as_str).collect();
        bail!(
            "there is no [instance.{name}] in the configuration; it has: {}",
            known.join(", ")
        );
    };
    let ports = ports(passed)?;
    let tls = crate::tls::acceptor(&config, name, &instance)?;
    let authenticator = crate::resolver::authenticator(config.resolver.address)?;
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let report = policy(&config, &instance)
        .enforce()
        .context("the sandbox does not stand")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let events = Events::stdout(&format!("smtpd/{name}"));
        let server = Arc::new(server(config, name, instance, tls, authenticator, events)?);
        server.say_what_is_off();
        server.events.gather(runtime.handle());
        server.try_lists().await;
        accept::serve(server, ports, &report.to_string()).await
    })
}

fn ports(passed: Vec<Inherited>) -> anyhow::Result<Vec<Port>> {
    let mut ports = Vec::new();
    for inherited in passed {
        let purpose = match inherited.name.as_str() {
            MX => Purpose::Mx,
            SUBMISSION => Purpose::Submission,
            SUBMISSIONS => Purpose::Submissions,
            other => bail!(
                "a socket named {other:?} was passed; set FileDescriptorName={MX}, {SUBMISSION} or {SUBMISSIONS} in the socket unit"
            ),
        };
        let listener = TcpListener::from(inherited.fd);
        listener
            .set_nonblocking(true)
            .context("a passed socket cannot be used")?;
        ports.push(Port { listener, purpose });
    }
    if ports.is_empty() {
        bail!("no socket was passed; start the process by its socket units, or use `run`");
    }
    Ok(ports)
}

/// TCP leads to the resolver, and to scanners where they are on TCP; to nothing else.
fn policy(config: &Config, instance: &Instance) -> Policy {
    let mut policy = Policy::smtpd().connect_tcp(config.resolver.address.port());
    let scanners = [
        (CheckName::Spam, config.spam.as_ref().map(|spam| &spam.socket)),
        (CheckName::Virus, config.virus.as_ref().map(|virus| &virus.socket)),
    ];
    for (check, socket) in scanners {
        if let (true, Some(ScannerSocket::Tcp(address))) = (instance.checks.contains(&check), socket) {
            policy = policy.connect_tcp(address.port());
        }
    }
    if let Some(crate::queue::config::LmtpSocket::Tcp(address)) = lmtp(config) {
        policy = policy.connect_tcp(address.port());
    }
    policy
}

fn lmtp(config: &Config) -> Option<&crate::queue::config::LmtpSocket> {
    config.next_hop.values().find_map(|hop| match hop {
        NextHop::Lmtp { socket } => Some(socket),
        _ => None,
    })
}

fn server(
    config: Config,
    name: &str,
    instance: Instance,
    tls: Option<Arc<ServerConfig>>,
    authenticator: MessageAuthenticator,
    events: Events,
) -> anyhow::Result<Server> {
    let config = Arc::new(config);
    let limits = &config.limits;
    let verifier = match &config.recipient {
        Some(recipient) if instance.checks.contains(&CheckName::Recipient) => verifier(&config, recipient)?,
        _ => None,
    };
    let greylist = config
        .greylist
        .as_ref()
        .filter(|_| instance.checks.contains(&CheckName::Greylist))
        .map(|greylist| Duration::from_secs(greylist.delay));
    let dns = Dns::new(config.resolver.address);
    let asks_lists = instance.checks.contains(&CheckName::DnsLists);
    let lists = Lists::new(if asks_lists { &config.dns_list } else { &[] }, dns);
    let logins = |service| {
        let socket = config
            .sasl
            .as_ref()
            .map(|sasl| config.directory.join(&sasl.socket));
        socket.map(|socket| Logins::new(socket, service, std::process::id()))
    };
    let inside = logins(Service::Inside).filter(|_| instance.authentication == Authentication::Sasl);
    let from_gateway = instance.submission == Submission::FromGateway;
    let outside = logins(Service::Outside).filter(|_| from_gateway).map(|logins| {
        (
            logins,
            handover::Client::new(config.handover_socket(Config::SUBMISSION)),
        )
    });
    // All submissions come from the gateway's one address.
    let carried = if from_gateway {
        crate::proxy::SUBMISSIONS
    } else {
        0
    };
    let observer = config.reports.as_ref().filter(|reports| reports.dmarc).map(|_| {
        Observer::start(
            dns,
            handover::Client::new(config.handover_socket(name)),
            events.clone(),
        )
    });
    let shared = config
        .shared_state
        .as_ref()
        .map(|_| Shared::new(config.proxy_socket(), events.clone()));
    Ok(Server {
        name: name.to_owned(),
        tls,
        events,
        tools: Tools {
            config: Arc::clone(&config),
            enabled: instance.checks.clone(),
            authenticator,
            dns,
            lists,
            verifier,
            greylist,
            reputation: Arc::new(Reputation::new().sharing(shared)),
            senders: Senders::default(),
            scans: Semaphore::new(SCANS_AT_A_TIME),
        },
        hourly: Hourly::new(limits),
        logins: inside,
        outside,
        queue: handover::Client::new(config.handover_socket(name)),
        room: Room::default(),
        observer,
        unnamed: Semaphore::new(proxied::AT_A_TIME),
        admission: Admission::new(limits.max_connections),
        carried,
        stress: Stress::new(config.stress.at_percent),
        memory: Memory::new(
            usize::try_from(limits.message_memory)?,
            usize::try_from(limits.max_message_size)?,
        ),
        deferred: Mutex::new(Table::new(IMPATIENT_SENDERS)),
        instance,
        config,
    })
}

fn verifier(config: &Config, recipient: &Recipient) -> anyhow::Result<Option<Verifier>> {
    let oracle = match recipient.via {
        RecipientVia::Off => return Ok(None),
        RecipientVia::Proxy => Oracle::Proxy(config.proxy_socket()),
        RecipientVia::Lmtp => {
            let socket = lmtp(config).context(
                "[recipient] via = \"lmtp\" needs a next hop of kind \"lmtp\"; add [next-hop.mailboxes]",
            )?;
            Oracle::Lmtp(socket.clone(), config.hostname.clone())
        }
    };
    Ok(Some(Verifier::new(
        oracle,
        Duration::from_secs(recipient.cache_seconds),
    )))
}

impl Server {
    /// What is switched off is said at start, so that nobody learns of it from an accident.
    fn say_what_is_off(&self) {
        let config = &self.config;
        let listed = |check| self.instance.checks.contains(&check);
        let mut off = Vec::new();
        if listed(CheckName::Spam)
            && config
                .spam
                .as_ref()
                .is_some_and(|spam| spam.socket == ScannerSocket::Off)
        {
            off.push("spam scanner");
        }
        if listed(CheckName::Virus)
            && config
                .virus
                .as_ref()
                .is_some_and(|virus| virus.socket == ScannerSocket::Off)
        {
            off.push("virus scanner");
        }
        if listed(CheckName::Recipient) && self.tools.verifier.is_none() {
            off.push("verification of recipients");
        }
        if listed(CheckName::Greylist) && self.tools.greylist.is_none() {
            off.push("greylist");
        }
        if self.tls.is_none() {
            off.push("TLS");
        }
        for what in off {
            self.events.warn(format!(
                "THE CONFIGURATION SWITCHES OFF: {what}, at instance {}",
                self.name
            ));
        }
    }

    /// What is known from before, where strangers come in here or passwords are tried; who keeps it from now on.
    async fn recall(&self) -> Option<Keeper> {
        let strangers = self.instance.authentication == Authentication::None;
        if !strangers && self.logins.is_none() && self.outside.is_none() {
            return None;
        }
        let socket = self.config.handover_socket(&self.name);
        let mut keeper = Keeper::new(socket, Arc::clone(&self.tools.reputation), self.events.clone());
        keeper.start().await;
        Some(keeper)
    }

    /// Before the first client comes, and from then on.
    async fn try_lists(self: &Arc<Self>) {
        self.tools.lists.try_at_start(&self.events).await;
        let server = Arc::clone(self);
        tokio::spawn(async move { server.tools.lists.keep_trying(&server.events).await });
    }
}
