//! The node's name, role, version, uptime and links, from files that anybody may read.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, time::Duration};

use nix::ifaddrs::getifaddrs;

use crate::{
    model::{Host, Link},
    text::Text,
};

/// Files larger than this are not what they should be.
const LARGEST: u64 = 1 << 20;

/// Reads all of it; what is missing stays empty.
pub(crate) fn read(root: &Path) -> Host {
    let relay = file(root, "run/postern/relay.toml").and_then(|text| text.parse::<toml::Table>().ok());
    let setting = |key: &str| relay.as_ref().and_then(|t| t.get(key)?.as_str()).map(Text::new);
    Host {
        node: file(root, "var/lib/postern/site/node").map(|name| Text::new(name.trim())),
        role: setting("role"),
        mail_name: setting("hostname"),
        version: file(root, "etc/os-release").and_then(|text| version(&text)),
        uptime: file(root, "proc/uptime")
            .as_deref()
            .and_then(uptime)
            .unwrap_or_default(),
        links: links(root),
    }
}

fn file(root: &Path, path: &str) -> Option<String> {
    let path = root.join(path);
    let length = fs::metadata(&path).ok()?.len();
    if length > LARGEST {
        None
    } else {
        fs::read_to_string(path).ok()
    }
}

/// The image's version of os-release(5), or else the system's name.
fn version(os_release: &str) -> Option<Text> {
    let field = |name: &str| {
        let line = os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(Text::new(line.trim_matches(['"', '\''])))
    };
    field("IMAGE_VERSION")
        .or_else(|| field("VERSION"))
        .or_else(|| field("PRETTY_NAME"))
}

fn uptime(text: &str) -> Option<Duration> {
    text.split('.').next()?.parse().ok().map(Duration::from_secs)
}

/// Every link but the loopback, with its addresses; up means that it has a carrier.
fn links(root: &Path) -> Vec<Link> {
    let mut addresses: BTreeMap<String, Vec<Text>> = BTreeMap::new();
    for entry in getifaddrs().into_iter().flatten() {
        let list = addresses.entry(entry.interface_name).or_default();
        let Some(storage) = entry.address else { continue };
        let prefix = entry.netmask.as_ref().and_then(ip).map(prefix_length);
        if let (Some(ip), Some(prefix)) = (ip(&storage), prefix) {
            list.push(Text::new(&format!("{ip}/{prefix}")));
        }
    }
    addresses.remove("lo");
    let up =
        |name: &str| file(root, &format!("sys/class/net/{name}/carrier")).is_some_and(|c| c.trim() == "1");
    addresses
        .into_iter()
        .map(|(name, addresses)| Link {
            up: up(&name),
            name: Text::new(&name),
            addresses,
        })
        .collect()
}

fn ip(storage: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

fn prefix_length(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_version_comes_before_the_system_s() {
        let text = "NAME=Debian\nVERSION=\"13 (trixie)\"\nIMAGE_VERSION=0.1.0\n";
        assert_eq!(version(text), Some(Text::new("0.1.0")));
        assert_eq!(version("PRETTY_NAME='Debian 13'\n"), Some(Text::new("Debian 13")));
        assert_eq!(version(""), None);
    }

    #[test]
    fn a_node_without_its_files_still_has_links() {
        let host = read(Path::new("/nonexistent"));
        assert!(host.node.is_none() && host.role.is_none() && host.version.is_none());
        assert!(host.links.iter().all(|l| l.name.as_str() != "lo" && !l.up));
    }

    #[test]
    fn name_and_role_are_read_from_the_site_and_the_rendered_file() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("var/lib/postern/site/node", "gate\u{1b}way\n"),
            (
                "run/postern/relay.toml",
                "role = \"gateway\"\nhostname = \"mx1.example.org\"\n[limits]\n",
            ),
            ("proc/uptime", "3661.50 12.0\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = read(root.path());
        assert_eq!(host.node.unwrap().as_str(), "gate\\u{1b}way");
        assert_eq!(host.role.unwrap().as_str(), "gateway");
        assert_eq!(host.mail_name.unwrap().as_str(), "mx1.example.org");
        assert_eq!(host.uptime, Duration::from_secs(3661));
    }
}
