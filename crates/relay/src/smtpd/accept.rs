//! The accept loop: admission, one task for each connection, orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use postern_control::EventKind;
use postern_smtp::replies;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::admission::Full;
use super::connection::Connection;
use super::permit::Parties;
use super::{Port, Purpose, Server};
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
            Ok((stream, peer)) => begin(&server, stream, peer, purpose, stopped.clone()),
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

fn begin(
    server: &Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    purpose: Purpose,
    stopped: watch::Receiver<bool>,
) {
    // Dual-stack sockets show IPv4 peers as ::ffff:a.b.c.d; everything after knows canonical addresses only.
    let address = peer.ip().to_canonical();
    let trace = trace_id();
    server.events.emit(
        Some(&trace),
        None,
        EventKind::Connected {
            peer: address.to_string(),
            port: Some(peer.port()),
        },
    );
    // Replies are gathered by the session, so that waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    match server.admission.admit(address) {
        Ok(place) => {
            let connection = Connection::new(Arc::clone(server), address, trace, purpose);
            tokio::spawn(async move {
                connection.run(stream, stopped).await;
                drop(place);
            });
        }
        Err(full) => {
            let reply = match full {
                Full::Server => replies::server_busy(),
                Full::Address => replies::too_many_connections(),
            };
            server.refused(&trace, "connect", &reply, None, Parties::default());
            tokio::spawn(async move {
                let mut stream = stream;
                let farewell = reply.to_bytes();
                let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(&farewell)).await;
            });
        }
    }
}
