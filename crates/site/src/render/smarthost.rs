//! The gateway's way to the smarthost, in `relay.toml`.

use super::{quoted, quoted_list};
use crate::model::Site;

/// Name of the file that holds user and password, on the node.
const LOGIN: &str = "smarthost.login";

/// The next hop and the route that goes before the one to the world; empty without a smarthost.
pub(super) fn hop_and_route(site: &Site) -> String {
    let Some(smarthost) = &site.smarthost else {
        return String::new();
    };
    let domains = if smarthost.domains.is_empty() {
        quoted_list(["*"])
    } else {
        quoted_list(smarthost.domains.iter().map(|domain| domain.as_str()))
    };
    format!(
        "
[next-hop.smarthost]
kind = \"smtp\"
host = {host}
port = {port}
tls = \"required\"
public-authorities = true
implicit-tls = {implicit}
login = {login}

[[route]]
from = [\"inside\"]
domains = {domains}
next-hop = \"smarthost\"
sign = true
",
        host = quoted(smarthost.host.as_str()),
        port = *smarthost.port,
        implicit = smarthost.implicit_tls,
        login = quoted(LOGIN),
    )
}
