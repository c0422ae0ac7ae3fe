//! The accept loop: admission, one task for each connection, orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use postern_control::EventKind;
use postern_smtp::replies;
use postern_smtp::reply::Reply;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::admission::Full;
use super::connection::Connection;
use super::permit::{Because, Parties};
use super::{Port, Purpose, Server, proxied};
use crate::events::trace_id;

/// How long connections may finish what they are at after a request to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// Serves until asked to stop.
pub(super) async fn serve(server: Arc<Server>, ports: Vec<Port>, sandbox: &str) -> anyhow::Result<()> {
    let mut stop = crate::service::stop_signal()?;
    let (stopping, stopped) = watch::channel(false);
    let keeper = server.recall().await;
    let keeping = keeper.map(|keeper| {
        let interval = Duration::from_secs(server.config.reputation.snapshot_interval);
        tokio::spawn(keeper.run(interval, stopped.clone()))
    });
    let mut listeners = Vec::new();
    for port in ports {
        let listener = TcpListener::from_std(port.listener).context("a passed socket cannot be served")?;
        listeners.push(tokio::spawn(accept(
            Arc::clone(&server),
            listener,
            port.purpose,
            stopped.clone(),
        )));
    }
    let reporting = tokio::spawn(super::figures::report(Arc::clone(&server)));
    let rescans = super::rescan::start(&server);
    server.events.started();
    crate::service::ready(sandbox);
    stop.wait().await;
    crate::service::stopping();
    server.events.emit(
        None,
        None,
        EventKind::Stopping {
            reason: "asked to".into(),
        },
    );
    reporting.abort();
    drop(rescans);
    stopping.send_replace(true);
    for listener in listeners {
        let _ = listener.await;
    }
    let drained = async {
        while server.admission.count() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if let Some(keeping) = keeping {
        let _ = keeping.await;
    }
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        server.events.warn(format!(
            "{} connections were cut off after {} s; their clients will try again",
            server.admission.count(),
            DRAIN.as_secs()
        ));
    }
    Ok(())
}

async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    purpose: Purpose,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let stopped = stopped.clone();
                let accepted = Accepted {
                    stream,
                    peer,
                    proxy: None,
                    purpose,
                    stopped,
                };
                begin(&server, accepted);
            }
            Err(error) => {
                // Out of descriptors or memory: others must end first.
                server
                    .events
                    .warn(format!("a connection could not be accepted: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A connection that was accepted.
struct Accepted {
    stream: TcpStream,
    /// The client.
    peer: SocketAddr,
    /// The proxy that named it.
    proxy: Option<SocketAddr>,
    purpose: Purpose,
    stopped: watch::Receiver<bool>,
}

fn begin(server: &Arc<Server>, mut accepted: Accepted) {
    // Dual-stack sockets show IPv4 peers as ::ffff:a.b.c.d; everything after knows canonical addresses only.
    accepted.peer.set_ip(accepted.peer.ip().to_canonical());
    // Replies are gathered by the session, so that waiting for more to send would only delay them.
    let _ = accepted.stream.set_nodelay(true);
    let address = accepted.peer.ip();
    let proxies = &server.instance.proxy_protocol_from;
    if proxies.iter().any(|network| network.contains(address)) {
        tokio::spawn(named(Arc::clone(server), accepted));
    } else {
        admit(server, accepted);
    }
}

/// A proxy's connection: it says who the client is, and that one is served, or nobody.
async fn named(server: Arc<Server>, mut accepted: Accepted) {
    let refused = {
        let Ok(_place) = server.unnamed.try_acquire() else {
            refuse(&server, accepted, replies::server_busy(), None);
            return;
        };
        match proxied::client(&mut accepted.stream).await {
            Ok(Some(client)) => {
                accepted.proxy = Some(std::mem::replace(&mut accepted.peer, client));
                None
            }
            // It speaks for itself, to see whether we are here.
            Ok(None) => None,
            Err(error) => Some(error),
        }
    };
    match refused {
        None => admit(&server, accepted),
        Some(error) => refuse(
            &server,
            accepted,
            replies::no_proxy_header(),
            Some(error.to_string()),
        ),
    }
}

fn admit(server: &Arc<Server>, accepted: Accepted) {
    let address = accepted.peer.ip();
    match server
        .admission
        .admit(address, server.per_address(server.is_stranger(address)))
    {
        Ok(place) => {
            server.note_stress();
            let trace = connected(server, &accepted);
            let server = Arc::clone(server);
            let connection = Connection::new(Arc::clone(&server), address, trace, accepted.purpose);
            tokio::spawn(async move {
                connection.run(accepted.stream, accepted.stopped).await;
                drop(place);
                server.note_stress();
            });
        }
        Err(Full::Server) => refuse(server, accepted, replies::server_busy(), None),
        Err(Full::Address) => refuse(server, accepted, replies::too_many_connections(), None),
    }
}

/// Tells of the connection; its trace id.
fn connected(server: &Server, accepted: &Accepted) -> String {
    let trace = trace_id();
    let event = EventKind::Connected {
        peer: accepted.peer.ip().to_string(),
        port: Some(accepted.peer.port()),
        proxy: accepted.proxy.map(|proxy| proxy.to_string()),
    };
    server.events.emit(Some(&trace), None, event);
    trace
}

fn refuse(server: &Server, accepted: Accepted, reply: Reply, evidence: Option<String>) {
    let trace = connected(server, &accepted);
    let because = evidence.map(|evidence| Because {
        check: None,
        evidence,
    });
    server.refused(&trace, "connect", &reply, because.as_ref(), Parties::default());
    tokio::spawn(async move {
        let mut stream = accepted.stream;
        let farewell = async {
            stream.write_all(&reply.to_bytes()).await?;
            stream.shutdown().await?;
            // What has come already is read: a reset because of unread octets would destroy the reply.
            let mut rest = [0; 1024];
            for _ in 0..16 {
                if because.is_none() || stream.read(&mut rest).await? == 0 {
                    break;
                }
            }
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), farewell).await;
    });
}
