//! `postern node credentials`: a node's site, certificates and users as the SMBIOS type 11 strings from which
//! systemd makes credentials (systemd.system-credentials(7)). One string a line; each is one `-smbios type=11,value=` of QEMU.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use clap::Args;
use postern_site::Role;

use crate::{files, pki, site, users};

/// The options of `postern node credentials`.
#[derive(Args)]
pub(crate) struct Request {
    /// The site file.
    #[arg(long)]
    site: PathBuf,
    /// Which node.
    #[arg(long)]
    node: String,
    /// The directory that `postern pki init` made.
    #[arg(long)]
    pki: PathBuf,
    /// Mailbox users, the lines of `postern user hash`; for the internal node.
    #[arg(long)]
    users: Option<PathBuf>,
    /// The certificate that mail clients and other mail servers see, PEM; without it the node makes one itself.
    #[arg(long, requires = "smtp_key")]
    smtp_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, requires = "smtp_cert")]
    smtp_key: Option<PathBuf>,
    /// Any other credential, such as postern.clamav-db=test.ndb; may be repeated.
    #[arg(long, value_name = "NAME=PATH")]
    extra: Vec<String>,
    /// File to write; it holds keys, so only its owner may read it.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn write(request: &Request) -> Result<()> {
    let credentials = collect(request)?;
    let mut text = String::new();
    for (name, contents) in &credentials {
        let encoded = base64::engine::general_purpose::STANDARD.encode(contents);
        writeln!(text, "io.systemd.credential.binary:{name}={encoded}")?;
    }
    files::write(&request.out, 0o600, text.as_bytes())?;
    println!(
        "{}: {} credentials for {}",
        request.out.display(),
        credentials.len(),
        request.node
    );
    Ok(())
}

fn collect(request: &Request) -> Result<BTreeMap<String, Vec<u8>>> {
    let site = site::load(&request.site)?;
    let node = site.node(&request.node)?;
    let read =
        |path: PathBuf| std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    let mut out = BTreeMap::new();
    out.insert("postern.site".to_owned(), read(request.site.clone())?);
    out.insert("postern.node".to_owned(), node.name().as_bytes().to_vec());

    let from_pki = |file: String| {
        read(request.pki.join(file)).context("the directory is not one of `postern pki init` for this site")
    };
    let (ca, certificate, key) = (
        from_pki("ca.crt".into())?,
        from_pki(format!("{}.crt", node.name()))?,
        from_pki(format!("{}.key", node.name()))?,
    );
    pki::check_certificate("authority's", &ca)?;
    pki::check_pair("node's", &certificate, &key)?;
    out.insert("postern.ca".to_owned(), ca);
    out.insert("postern.node-cert".to_owned(), certificate);
    out.insert("postern.node-key".to_owned(), key);

    if let (Some(certificate), Some(key)) = (&request.smtp_cert, &request.smtp_key) {
        let (certificate, key) = (read(certificate.clone())?, read(key.clone())?);
        pki::check_pair("SMTP", &certificate, &key)?;
        out.insert("postern.smtp-cert".to_owned(), certificate);
        out.insert("postern.smtp-key".to_owned(), key);
    }
    if let Some(path) = &request.users {
        if node.role() != Role::Internal {
            bail!(
                "{} is a gateway, and users never go into the DMZ: give --users for the internal node",
                node.name()
            );
        }
        let text = files::read_text(path)?;
        users::parse(&text).with_context(|| format!("in {}", path.display()))?;
        out.insert("postern.users".to_owned(), text.into_bytes());
    }
    for extra in &request.extra {
        let Some((name, path)) = extra.split_once('=') else {
            bail!("--extra {extra}: write NAME=PATH, such as postern.clamav-db=test.ndb");
        };
        if out.insert(name.to_owned(), read(PathBuf::from(path))?).is_some() {
            bail!("--extra {name}: this credential is given already");
        }
    }
    Ok(out)
}
