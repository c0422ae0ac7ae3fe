//! Every file of the default site and of a site that uses all there is, whole, as a snapshot: a change of one byte on a node is seen here first.

use postern_site::Site;

/// The site file that the documentation shows and the other tests use.
const DEFAULT: &str = include_str!("../../../docs/site.example.toml");
/// IPv6 everywhere, two gateways, a root of its own, services: all that is optional.
const FULL: &str = include_str!("full.toml");

fn site(text: &str) -> Site {
    match Site::parse("site.toml", text) {
        Ok(site) => site,
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

fn snapshot_node(text: &str, prefix: &str, node: &str) {
    let files = site(text).render(node).expect("the site has this node");
    for file in files {
        assert_eq!(file.mode, 0o644, "{}", file.path);
        insta::assert_snapshot!(
            format!("{prefix}-{node}-{}", file.path.replace('/', "-")),
            file.contents
        );
    }
}

#[test]
fn default_gateway() {
    snapshot_node(DEFAULT, "default", "gateway");
}

#[test]
fn default_internal() {
    snapshot_node(DEFAULT, "default", "internal");
}

#[test]
fn full_gateway() {
    snapshot_node(FULL, "full", "edge-1");
}

#[test]
fn full_internal() {
    snapshot_node(FULL, "full", "inner");
}

#[test]
fn two_renderings_are_the_same_bytes() {
    for node in ["edge-1", "edge-2", "inner"] {
        assert_eq!(site(FULL).render(node), site(FULL).render(node));
    }
}

#[test]
fn defaults_are_what_the_example_states() {
    let without: String = DEFAULT
        .split("[tls]")
        .next()
        .expect("the example has [tls]")
        .to_owned();
    for node in ["gateway", "internal"] {
        assert_eq!(site(&without).render(node), site(DEFAULT).render(node));
    }
}

#[test]
fn an_unknown_node_is_named_with_the_known_ones() {
    let error = site(DEFAULT).render("gatway").expect_err("there is no such node");
    insta::assert_snapshot!(error.to_string(), @"the site example has no node `gatway`; its nodes are: gateway, internal");
}

#[test]
fn matrix_of_both() {
    insta::assert_snapshot!("default-matrix", postern_site::matrix_text(&site(DEFAULT)));
    insta::assert_snapshot!("full-matrix", postern_site::matrix_text(&site(FULL)));
}

#[test]
fn zone_lines_with_and_without_keys() {
    let known = [
        postern_site::DkimRecord {
            name: "postern-rsa._domainkey.example.org".into(),
            value: format!("v=DKIM1; k=rsa; p={}", "A".repeat(392)),
        },
        postern_site::DkimRecord {
            name: "postern-ed25519._domainkey.example.org.".into(),
            value: "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".into(),
        },
    ];
    insta::assert_snapshot!("default-dns", postern_site::zone_lines(&site(DEFAULT), &known));
    insta::assert_snapshot!("full-dns", postern_site::zone_lines(&site(FULL), &[]));
}

#[test]
fn exceptions_are_rendered_with_their_reasons() {
    let text = format!(
        "{DEFAULT}
[[tls-exception]]
domain = \"partner.example\"
reason = \"no TLS before their move in March\"
[[tls-exception]]
domain = \"Old.Example\"
reason = \"an appliance of 2004; ticket 4711\"
"
    );
    let files = site(&text).render("gateway").expect("the site has this node");
    let relay = files
        .iter()
        .find(|file| file.path == "relay.toml")
        .expect("a relay.toml");
    let (_, hop) = relay
        .contents
        .split_once("[next-hop.world]\n")
        .expect("a hop to the world");
    let (hop, _) = hop.split_once("\n[[route]]").expect("routes after it");
    insta::assert_snapshot!(hop);
}

#[test]
fn each_kind_of_reports_has_its_switch() {
    let reports = |more: &str| {
        let text = DEFAULT.replace("dmarc-reports = \"daily\"", more);
        let text = text.replace("tls-reports = \"daily\"", "");
        let files = site(&text).render("gateway").expect("the site has this node");
        let relay = files.into_iter().find(|file| file.path == "relay.toml");
        let relay = relay.expect("a relay.toml").contents;
        let (_, rest) = relay.split_once("[mta-sts]\n").expect("it is before the reports");
        let (_, rest) = rest.split_once("\n\n").expect("and has an end");
        let (reports, _) = rest.split_once("[[route]]").expect("routes after it");
        reports.to_owned()
    };
    let from = "[reports]\nfrom = \"postmaster@example.org\"\n";
    assert_eq!(reports(""), format!("{from}\n"));
    assert_eq!(reports("tls-reports = \"off\""), format!("{from}tls = false\n\n"));
    assert_eq!(
        reports("dmarc-reports = \"off\""),
        format!("{from}dmarc = false\n\n")
    );
    assert_eq!(reports("dmarc-reports = \"off\"\ntls-reports = \"off\""), "");
}

#[test]
fn a_smarthost_is_rendered_into_route_firewall_matrix_and_spf() {
    let part = |more: &str| {
        let text = format!("{DEFAULT}\n[smarthost]\nhost = \"smtp.Provider.example\"\n{more}");
        let site = site(&text);
        let files = site.render("gateway").expect("the site has this node");
        let contents = |path: &str| {
            let file = files.iter().find(|file| file.path == path);
            file.expect("the file").contents.clone()
        };
        let relay = contents("relay.toml");
        let (_, from) = relay.split_once("[next-hop.smarthost]").expect("a hop");
        let (hop, _) = from.split_once("[dkim]").expect("keys after it");
        let firewall = contents("site.nft");
        let firewall: Vec<&str> = firewall
            .lines()
            .filter(|line| line.contains("smarthost"))
            .collect();
        let matrix = postern_site::matrix_text(&site);
        let matrix: Vec<&str> = matrix.lines().filter(|line| line.contains("smarthost")).collect();
        let dns = postern_site::zone_lines(&site, &[]);
        let dns: Vec<&str> = dns
            .lines()
            .filter(|line| line.contains("SPF") || line.contains("v=spf1"))
            .collect();
        format!(
            "{hop}{}\n{}\n{}",
            firewall.join("\n"),
            matrix.join("\n"),
            dns.join("\n")
        )
    };
    insta::assert_snapshot!("smarthost-default", part(""));
    let all = "port = 465\ndomains = [\"far.example\"]\nspf-include = \"spf.provider.example\"\n";
    insta::assert_snapshot!("smarthost-full", part(all));
    let known = part("port = 25\ntls = \"implicit\"\n");
    assert!(
        known.contains("implicit-tls = true") && !known.contains("add element"),
        "{known}"
    );
}

#[test]
fn source_pools_are_rendered_for_the_gateway_that_has_their_addresses() {
    let text = format!(
        "{FULL}
[[source-pool]]
name = \"news\"
addresses = [\"192.168.77.7\", \"2001:db8:1::7\", \"192.168.77.8\"]
helo = \"news.example.org\"
class = \"bulk\"
senders = [\"example.org\"]
[[source-pool]]
name = \"rest\"
addresses = [\"192.168.77.8\"]
"
    );
    let part = |node: &str| {
        let files = site(&text).render(node).expect("the site has this node");
        let relay = files
            .iter()
            .find(|file| file.path == "relay.toml")
            .expect("a file");
        let (_, pools) = relay.contents.split_once("[[source-pool]]").expect("a pool");
        pools
            .split_once("[self-check]")
            .expect("keys after it")
            .0
            .to_owned()
    };
    insta::assert_snapshot!(
        "source-pools",
        format!("edge-1:{}edge-2:{}", part("edge-1"), part("edge-2"))
    );
}
