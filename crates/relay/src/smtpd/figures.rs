//! The instance's figures, told to the queue, which answers for the node: nobody may connect to smtpd. The queue's answer says
//! what room its disk has.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Server;
use crate::handover::kept::Client;
use crate::metrics::{Family, approximate};
use crate::queue::provenance::Provenance;
use crate::reputation::local::NAMES;

/// Between two reports.
const EVERY: Duration = Duration::from_secs(10);

/// Reports until the task is dropped. A queue that does not listen has worse to tell, and refuses mail, which is told.
pub(super) async fn report(server: Arc<Server>) {
    let socket = server.config.handover_socket(&server.name);
    let mut client = None;
    loop {
        if client.is_none() {
            client = Client::connect(&socket).await.ok();
        }
        if let Some(connected) = &client {
            measure(&server);
            let series = server.events.meter().series();
            let told = tokio::time::timeout(EVERY, connected.report(series)).await;
            if let Ok(Ok(room)) = told {
                server.room.told(room, Instant::now());
            }
            if !matches!(told, Ok(Ok(_))) || report_of_proxy(&server, connected).await.is_err() {
                client = None;
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The proxy listens to the public instance alone. One that does not answer is missed in the figures, and by who asks it about
/// recipients, which is told.
async fn report_of_proxy(server: &Server, queue: &Client) -> io::Result<()> {
    if server.config.proxy.is_none() || server.name != Provenance::Public.as_str() {
        return Ok(());
    }
    let socket = server.config.proxy_socket();
    let asked = crate::proxy::figures::ask(&socket);
    let Ok(Ok(series)) = tokio::time::timeout(EVERY, asked).await else {
        return Ok(());
    };
    tokio::time::timeout(EVERY, queue.report_of_proxy(series)).await?
}

/// What is not counted by events.
fn measure(server: &Server) {
    let meter = server.events.meter();
    let octets = |number: usize| approximate(u64::try_from(number).unwrap_or(u64::MAX));
    meter.set(Family::ConnectionsOpen, &[], octets(server.admission.count()));
    meter.set(Family::MessageMemory, &[], octets(server.memory.taken()));
    for (table, entries) in NAMES.iter().zip(server.tools.reputation.local().len()) {
        meter.set(Family::Remembered, &[table], octets(entries));
    }
}
