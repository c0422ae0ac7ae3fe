//! `postern node import`: what was handed to the node at boot (systemd credentials `postern.*`) is checked and
//! then kept in /var/lib/postern. Nothing that was good before is lost to something that is not: a wrong or incomplete
//! hand-over is an error and changes nothing, and without one the last good site stands.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use postern_site::{Role, Site};

use crate::{files, pki, users};

/// Where things are, under the directory that stands for `/`.
pub(crate) struct Layout {
    root: PathBuf,
    state: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            state: root.join("var/lib/postern"),
        }
    }

    pub(crate) fn site(&self) -> PathBuf {
        self.state.join("site")
    }
}

/// What arrived, each part only if it did.
struct Handover {
    directory: Option<PathBuf>,
}

impl Handover {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        files::read_if_there(&directory.join(format!("postern.{name}")))
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(contents) = self.get(name)? else {
            return Ok(None);
        };
        match String::from_utf8(contents) {
            Ok(text) => Ok(Some(text)),
            Err(_) => bail!(
                "the credential postern.{name} is not text in UTF-8: hand over the file itself, encoded in Base64 once"
            ),
        }
    }
}

pub(crate) fn run(root: &Path, credentials: Option<&Path>) -> Result<()> {
    let layout = Layout::new(root);
    let handover = Handover {
        directory: credentials.map(Path::to_owned),
    };

    // Everything is read and checked before the first change.
    let (site_text, node_name) = site_and_node(&layout, &handover)?;
    let site = Site::parse("postern.site", &site_text).map_err(|faults| {
        anyhow::anyhow!(
            "the site file that was handed over is not valid, the last good one stays\n\n{faults}"
        )
    })?;
    let node = site
        .node(&node_name)
        .context("the credential postern.node names no node of this site")?;
    let (certificates, self_signed) = certificates(&layout, &handover, node.hostname())?;
    let mut certificates = with_state_password(&layout, &handover, &site, node.role(), certificates)?;
    let login = smarthost_login(&layout, &handover, &site, node.role())?;
    certificates.insert(SMARTHOST_LOGIN.to_owned(), (0o600, login));
    let new_users = users_of(&handover, &site, node.role())?;

    files::directory(&layout.state, 0o755)?;
    place(&layout, node.role())?;
    let mut contents = files::Contents::new();
    contents.insert("site.toml".into(), (0o644, site_text.into_bytes()));
    contents.insert("node".into(), (0o644, format!("{node_name}\n").into_bytes()));
    let staged_credentials = files::stage_directory(&layout.state.join("credentials"), 0o700, &certificates)?;
    let staged_site = files::stage_directory(&layout.site(), 0o755, &contents)?;
    if node.role() == Role::Internal {
        place_users(&layout, &site, &new_users)?;
    }
    if let Some(database) = handover.get("clamav-db")?
        && node.role() == Role::Gateway
    {
        place_signatures(&layout, &database)?;
    }
    // Only renames are left. The site comes last: whoever finds it finds all that it needs.
    staged_credentials.commit(None)?;
    let changed = staged_site.commit(Some(&layout.state.join("site.previous")))?;

    let what = if changed { "imported" } else { "unchanged" };
    println!(
        "site {} {what}; this node is {} ({})",
        site.name(),
        node.name(),
        node.role().as_str()
    );
    if self_signed {
        println!(
            "WARNING: no postern.smtp-cert was handed over. Mail clients and other servers see a certificate that this node signed itself: clients warn, and senders that verify refuse. Hand over postern.smtp-cert and postern.smtp-key"
        );
    }
    Ok(())
}

/// Each from the hand-over, else from what the node has.
fn site_and_node(layout: &Layout, handover: &Handover) -> Result<(String, String)> {
    let kept = |name: &str| -> Result<Option<String>> {
        let contents = files::read_if_there(&layout.site().join(name))?;
        Ok(contents.map(|contents| String::from_utf8_lossy(&contents).into_owned()))
    };
    let site = match handover.text("site")? {
        Some(text) => Some(text),
        None => kept("site.toml")?,
    };
    let node = match handover.text("node")? {
        Some(text) => Some(text),
        None => kept("node")?,
    };
    match (site, node) {
        (Some(site), Some(node)) => Ok((site, node.trim().to_owned())),
        (None, _) => bail!(
            "this node has no site yet, so it stays closed: hand over the credentials that `postern node credentials` makes, by SMBIOS type 11 strings, and start it again"
        ),
        (Some(_), None) => {
            bail!("the credential postern.node is missing: it says which node of the site this machine is")
        }
    }
}

/// File name, credential, and whether a node can do without it.
const PAIRS: [(&str, &str); 5] = [
    ("ca.crt", "ca"),
    ("node.crt", "node-cert"),
    ("node.key", "node-key"),
    ("smtp.crt", "smtp-cert"),
    ("smtp.key", "smtp-key"),
];

/// The checked contents of the credentials directory, and whether the SMTP pair vouches only for itself.
fn certificates(layout: &Layout, handover: &Handover, hostname: &str) -> Result<(files::Contents, bool)> {
    let directory = layout.state.join("credentials");
    let mut contents = files::Contents::new();
    for (file, name) in PAIRS {
        let arrived = handover.get(name)?;
        if let Some(data) = arrived.map_or_else(
            || files::read_if_there(&directory.join(file)),
            |data| Ok(Some(data)),
        )? {
            let mode = if name == "ca" || name.ends_with("-cert") {
                0o644
            } else {
                0o600
            };
            contents.insert(file.to_owned(), (mode, data));
        } else if !name.starts_with("smtp") {
            bail!(
                "the credential postern.{name} is missing: without it the nodes cannot know each other. `postern node credentials` hands it over"
            );
        }
    }
    let data = |contents: &files::Contents, file: &str| contents.get(file).map(|(_, data)| data.clone());
    let (ca, certificate, key) = (
        data(&contents, "ca.crt"),
        data(&contents, "node.crt"),
        data(&contents, "node.key"),
    );
    pki::check_certificate("authority's (postern.ca)", &ca.unwrap_or_default())?;
    let certificate = certificate.unwrap_or_default();
    pki::check_pair(
        "node's (postern.node-cert)",
        &certificate,
        &key.unwrap_or_default(),
    )?;
    pki::check_name(&certificate, hostname)?;

    // A pair that the node made is marked by a file of its own, so that the warning is repeated at each boot.
    let marker = "smtp.self-signed";
    let handed = (
        handover.get("smtp-cert")?.is_some(),
        handover.get("smtp-key")?.is_some(),
    );
    match handed {
        (true, true) => {}
        (false, false) if data(&contents, "smtp.crt").is_some() && data(&contents, "smtp.key").is_some() => {
            if let Some(mark) = files::read_if_there(&directory.join(marker))?
                && mark == hostname.as_bytes()
            {
                contents.insert(marker.to_owned(), (0o644, mark));
            } else if directory.join(marker).exists() {
                insert_self_signed(&mut contents, marker, hostname)?;
            }
        }
        (false, false) => insert_self_signed(&mut contents, marker, hostname)?,
        _ => bail!(
            "only one of postern.smtp-cert and postern.smtp-key was handed over: a certificate needs its key, hand over both"
        ),
    }
    let pair = (data(&contents, "smtp.crt"), data(&contents, "smtp.key"));
    pki::check_pair(
        "SMTP (postern.smtp-cert)",
        &pair.0.unwrap_or_default(),
        &pair.1.unwrap_or_default(),
    )?;
    let self_signed = contents.contains_key(marker);
    Ok((contents, self_signed))
}

/// The password of the shared state. Without one there is an empty file, since the proxy's unit names it always.
fn with_state_password(
    layout: &Layout,
    handover: &Handover,
    site: &Site,
    role: Role,
    mut contents: files::Contents,
) -> Result<files::Contents> {
    if role != Role::Gateway {
        return Ok(contents);
    }
    let file = "dmz-state.password";
    let kept = layout.state.join("credentials").join(file);
    let password = match handover.get(file)? {
        Some(password) => password,
        None => files::read_if_there(&kept)?.unwrap_or_default(),
    };
    if site.state_hostname().is_some() && password.is_empty() {
        bail!(
            "the site has [dmz-state], and the credential postern.{file} is missing: hand over the password of its user, such as \
             by `postern node credentials --extra postern.{file}=FILE`"
        );
    }
    contents.insert(file.to_owned(), (0o600, password));
    Ok(contents)
}

/// User and password at the smarthost, each on a line of its own; empty where there is none, since the queue's unit names the file.
const SMARTHOST_LOGIN: &str = "smarthost.login";

fn smarthost_login(layout: &Layout, handover: &Handover, site: &Site, role: Role) -> Result<Vec<u8>> {
    let arrived = handover.text("smarthost-login")?;
    if role != Role::Gateway {
        if arrived.is_some() {
            bail!(
                "postern.smarthost-login was handed to the internal node: only the gateway talks to the smarthost, hand it there"
            );
        }
        return Ok(Vec::new());
    }
    let path = layout.state.join("credentials").join(SMARTHOST_LOGIN);
    let kept = || {
        let contents = files::read_if_there(&path)?.unwrap_or_default();
        anyhow::Ok(String::from_utf8_lossy(&contents).into_owned())
    };
    let text = arrived.map_or_else(kept, Ok)?;
    if site.has_smarthost() {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() != 2 || lines.iter().any(|line| line.is_empty()) {
            bail!(
                "the site has a [smarthost], and postern.smarthost-login does not hold the login there: hand over a file with the user name on its first line and the password on its second"
            );
        }
    }
    Ok(text.into_bytes())
}

fn insert_self_signed(contents: &mut files::Contents, marker: &str, hostname: &str) -> Result<()> {
    let pair = pki::self_signed(hostname)?;
    contents.insert("smtp.crt".to_owned(), (0o644, pair.certificate.into_bytes()));
    contents.insert("smtp.key".to_owned(), (0o600, pair.key.into_bytes()));
    contents.insert(marker.to_owned(), (0o644, hostname.as_bytes().to_vec()));
    Ok(())
}

fn users_of(handover: &Handover, site: &Site, role: Role) -> Result<users::Given> {
    let Some(text) = handover.text("users")? else {
        return Ok(None);
    };
    if role != Role::Internal {
        bail!(
            "postern.users was handed to a gateway: users never go into the DMZ, hand it to the internal node"
        );
    }
    let (list, app_passwords) = users::parse(&text)?;
    let named = app_passwords.iter().map(|one| &one.address);
    for address in list.iter().map(|user| &user.address).chain(named) {
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        if !site.domains().any(|own| own == domain) {
            bail!(
                "postern.users: {address} is not in a domain of the site: correct the line, or add {domain} to [site] domains"
            );
        }
    }
    Ok(Some((list, app_passwords)))
}

/// The directories that the daemons keep their state in, each its owner's.
fn place(layout: &Layout, role: Role) -> Result<()> {
    let mut list = vec![("spool", "postern-queue"), ("dkim", "postern-queue")];
    if role == Role::Internal {
        list.push(("mail", "vmail"));
    }
    for (name, owner) in list {
        let path = layout.state.join(name);
        files::directory(&path, 0o700)?;
        if let Some((user, group)) = files::user_ids(&layout.root, owner) {
            files::give(&path, user, group)?;
        }
    }
    Ok(())
}

fn place_users(layout: &Layout, site: &Site, new: &users::Given) -> Result<()> {
    let wanted = users::Wanted {
        postmaster: site.postmaster(),
        domains: site.domains().map(str::to_owned).collect(),
    };
    // Dovecot's group reads it; only root writes.
    let owner = files::user_ids(&layout.root, "dovecot").map(|(_, group)| (0, group));
    let silent = users::import(&layout.state.join("users.db"), new, &wanted, owner)?;
    for address in silent {
        println!(
            "WARNING: {address} receives mail but has no password, so nobody can read it: add it to postern.users"
        );
    }
    Ok(())
}

/// clamd tells the kinds of signature files apart by their names.
fn place_signatures(layout: &Layout, database: &[u8]) -> Result<()> {
    let first = String::from_utf8_lossy(database);
    let first = first
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .unwrap_or("");
    let fields: Vec<&str> = first.trim().split(':').collect();
    let hash = |length: usize| fields[0].len() == length && fields[0].bytes().all(|b| b.is_ascii_hexdigit());
    let kind = match fields.len() {
        3 if hash(32) => "hdb",
        3 if hash(40) || hash(64) => "hsb",
        4.. => "ndb",
        _ => bail!(
            "postern.clamav-db is not a signature file: its lines have the form Name:Type:Offset:Hex or Hash:Size:Name"
        ),
    };
    let directory = layout.root.join("var/lib/clamav");
    files::directory_if_missing(&directory)?;
    for other in ["hdb", "hsb", "ndb"].iter().filter(|other| **other != kind) {
        drop(std::fs::remove_file(directory.join(format!("postern.{other}"))));
    }
    let path = directory.join(format!("postern.{kind}"));
    files::write(&path, 0o644, database)?;
    match files::user_ids(&layout.root, "clamav") {
        Some((user, group)) => files::give(&path, user, group),
        None => Ok(()),
    }
    .context("clamd could not read its signatures")
}
