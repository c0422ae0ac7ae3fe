//! What the queue needs for mail to the world, made from the configuration.

use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use anyhow::Context as _;

use crate::config::Config;
use crate::deliver::dns::Dns;
use crate::deliver::mta_sts::MtaSts;
use crate::deliver::mta_sts::fetch::Fetcher;
use crate::deliver::mta_sts::store::Store;
use crate::deliver::mx::Mx;
use crate::deliver::observed::Observer;
use crate::deliver::policy::Authorities;
use crate::deliver::reach::Reach;
use crate::deliver::shelf::Shelf;
use crate::deliver::source::Sources;
use crate::deliver::{Courier, policy, tls};
use crate::events::Events;

/// MTA-STS and how hosts are believed by it; absent where it is off.
pub type Policies = Option<(Arc<MtaSts>, Authorities)>;

/// Reads what was kept; makes the directory for it, so it belongs before the sandbox.
pub fn mta_sts(config: &Config, events: &Events) -> anyhow::Result<Policies> {
    let Some(settings) = &config.mta_sts else {
        return Ok(None);
    };
    let authority = settings.ca.as_ref().map(|path| config.credential(path));
    let authorities = Authorities {
        client: match &authority {
            Some(path) => tls::authenticated(path)?,
            None => tls::public()?,
        },
        judge: tls::judge(authority.as_deref())?,
    };
    let directory = config.state_directory.join(&settings.directory);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .with_context(|| {
            format!(
                "cannot make {}; state-directory must be on a disk that the queue's user may write to",
                directory.display()
            )
        })?;
    let (store, damage) = Store::open(&directory);
    if let Some(damage) = damage {
        events.warn(format!(
            "kept MTA-STS policies cannot be read and are fetched again: {damage}"
        ));
    }
    let fetcher = Fetcher {
        client: authorities.client.clone(),
        port: settings.port,
        reach: Reach {
            own: settings.own_networks.clone(),
            exceptions: settings.allowed_networks.clone(),
        },
    };
    let dns = Dns::new(config.resolver.address);
    let mta_sts = MtaSts::new(dns, fetcher, store, events.clone());
    Ok(Some((Arc::new(mta_sts), authorities)))
}

/// Who delivers. Within the runtime: policies are renewed in the background from here on.
pub fn courier(config: &Config, mta_sts: Policies, sources: Sources, observer: Option<Observer>) -> Courier {
    let dns = Dns::new(config.resolver.address);
    if let Some((mta_sts, _)) = &mta_sts {
        let mta_sts = mta_sts.clone();
        tokio::spawn(async move { mta_sts.refresh().await });
    }
    Courier {
        hostname: config.hostname.clone(),
        mx: Mx::new(dns),
        policies: policy::Policies { dns, mta_sts },
        shelf: Shelf::default(),
        sources,
        observer,
    }
}
