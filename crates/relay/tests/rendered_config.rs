//! What `site` renders is what the relay reads: the two meet nowhere else before a node boots.

use postern_relay::config::{CheckName, Config};
use postern_site::{Role, Site};

const EXAMPLE: &str = include_str!("../../../docs/site.example.toml");
const FULL: &str = include_str!("../../site/tests/full.toml");

#[test]
fn every_nodes_rendered_file_is_a_valid_configuration() {
    for text in [EXAMPLE, FULL] {
        let site = Site::parse("site.toml", text).expect("a valid site");
        for node in site.nodes() {
            let files = site.render(node.name()).expect("a node of the site");
            let file = files
                .iter()
                .find(|file| file.path == "relay.toml")
                .expect("every node relays");
            let config = Config::parse("relay.toml", &file.contents, "/run/postern".into(), None)
                .unwrap_or_else(|fault| panic!("{}: {fault}", node.name()));
            assert_eq!(config.hostname, node.hostname());
            expect_role(&config, node.role());
        }
    }
}

fn expect_role(config: &Config, role: Role) {
    let mut instances: Vec<&str> = config.instance.keys().map(String::as_str).collect();
    instances.sort_unstable();
    match role {
        Role::Gateway => {
            assert_eq!(instances, ["inside", "public"]);
            assert!(config.route.iter().any(|route| route.sign), "the gateway signs");
            assert!(config.spam.is_some() && config.virus.is_some());
            let public = &config.instance["public"].checks;
            assert!(config.content.is_some() && public.contains(&CheckName::Content));
        }
        Role::Internal => {
            assert_eq!(instances, ["dmz", "inside"]);
            assert!(
                config.route.iter().all(|route| !route.sign),
                "only the gateway signs"
            );
            assert!(config.sasl.is_some());
        }
    }
}
