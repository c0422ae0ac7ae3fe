//! Questions about what gateways remember together, passed on to the shared back end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};

use super::traffic::Traffic;
use crate::config::Config;
use crate::events::unix_millis;
use crate::reputation::Backend as _;
use crate::reputation::shared::{Asked, Reply};
use crate::reputation::valkey::{ANSWER, Settings, Valkey};

const AT_START: Duration = Duration::from_secs(3);

/// Where the back end is and how to log in, where the configuration names one.
pub(super) fn settings(config: &Config, traffic: &Arc<Traffic>) -> anyhow::Result<Option<Settings>> {
    let Some(state) = &config.shared_state else {
        return Ok(None);
    };
    let (tls, server_name) = crate::tls::shared_state(config, state)?;
    let path = config.credential(&state.password);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "[shared-state] the password cannot be read from {}; put it there as one line",
            path.display()
        )
    })?;
    let password = text.lines().next().unwrap_or_default().to_owned();
    if password.is_empty() {
        bail!(
            "[shared-state] {} holds no password; put it there as one line",
            path.display()
        );
    }
    Ok(Some(Settings {
        address: state.address,
        tls,
        server_name,
        user: state.user.clone(),
        password,
        answer: ANSWER,
        traffic: Arc::clone(traffic),
    }))
}

/// Connects; for a moment the first questions wait for it, so that a start is not told as a loss.
pub(super) async fn start(settings: Option<Settings>) -> Option<Valkey> {
    let back_end = Valkey::start(settings?);
    // Where it takes longer, smtpd says so.
    let _ = tokio::time::timeout(AT_START, back_end.connected()).await;
    Some(back_end)
}

/// The reply, if the packet asks about what is remembered.
pub(super) async fn answer(back_end: Option<&Valkey>, packet: &[u8]) -> Option<Reply> {
    let Asked { remembered } = serde_json::from_slice(packet).ok()?;
    let Some(back_end) = back_end else {
        return Some(Reply::Unavailable("the proxy has no [shared-state]".into()));
    };
    let answered = back_end.ask(&remembered, unix_millis(SystemTime::now())).await;
    Some(match answered {
        Ok(answer) => Reply::Answer(answer),
        Err(error) => Reply::Unavailable(error.to_string()),
    })
}
