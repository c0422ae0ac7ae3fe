//! A `relay.toml` written by hand: the evaluation file is right, and each fault is explained.

use std::path::{Path, PathBuf};

use postern_relay::config::Config;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn evaluate() -> String {
    std::fs::read_to_string(top().join("docs/evaluate.toml")).expect("docs/evaluate.toml can be read")
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse("relay.toml", text, PathBuf::from("/etc/x"), None)
        .map_err(|diagnostic| diagnostic.to_string())
}

#[test]
fn the_evaluation_file_is_right() {
    let config = parse(&evaluate()).expect("docs/evaluate.toml");
    assert_eq!(config.state_directory, Path::new("/etc/x/state"));
    assert!(config.instance["public"].trusted_addresses.is_empty());
}

/// One fault each, made by replacing a part of the evaluation file.
const FAULTS: &[(&str, &str, &str)] = &[
    ("unknown-key", "max-recipients = 100", "max-recipient = 100"),
    ("unknown-table", "[queue]", "[queues]"),
    ("not-toml", "max-recipients = 100", "max-recipients = "),
    ("wrong-type", "max-recipients = 100", "max-recipients = \"100\""),
    ("no-recipients", "max-recipients = 100", "max-recipients = 0"),
    (
        "trusts-everybody",
        "trusted-addresses = [\"127.0.0.1\"]",
        "trusted-addresses = [\"0.0.0.0/0\"]",
    ),
    (
        "shared-state-without-proxy",
        "[queue]",
        "[shared-state]\naddress = \"127.0.0.1:6379\"\nserver-name = \"a\"\nca = \"a\"\ncertificate = \"a\"\nkey = \"a\"\nuser = \"a\"\npassword = \"a\"\n[queue]",
    ),
    (
        "snapshots-without-end",
        "[queue]",
        "[reputation]\nsnapshot-interval = 0\n[queue]",
    ),
    ("missing-key", "relay-for = \"local-domains\"\n", ""),
    (
        "sealer-not-a-domain",
        "[resolver]",
        "trusted-sealers = [\"*.example.net\"]\n[resolver]",
    ),
    (
        "reports-from-elsewhere",
        "[queue]",
        "[reports]\nfrom = \"postmaster@example.com\"\n[queue]",
    ),
    (
        "reports-never",
        "[queue]",
        "[reports]\nfrom = \"postmaster@example.org\"\ninterval = 0\n[queue]",
    ),
    ("arc-without-dmarc", "\"spam\", \"virus\"", "\"arc\", \"spam\""),
    ("unknown-check", "\"spam\", \"virus\"", "\"spam\", \"viruses\""),
    (
        "open-relay",
        "relay-for = \"local-domains\"",
        "relay-for = \"any\"",
    ),
    ("tls-without-certificate", "tls = \"off\"", "tls = \"required\""),
    (
        "trust-without-authentication",
        "checks = [\"content\"",
        "trusted-addresses = [\"127.0.0.1\"]\nchecks = [\"content\"",
    ),
    (
        "names-without-authority",
        "trusted-addresses = [",
        "trusted-names = [\"mail.example.org\"]\ntrusted-addresses = [",
    ),
    (
        "bad-address",
        "trusted-addresses = [\"127.0.0.1\"]",
        "trusted-addresses = [\"127.0.0\"]",
    ),
    (
        "bad-scanner-socket",
        "[virus]\nsocket = \"off\"",
        "[virus]\nsocket = \"clamd.sock\"",
    ),
    ("dmarc-alone", "\"spam\", \"virus\"", "\"dmarc\", \"spam\""),
    ("check-without-table", "[recipient]\nvia = \"off\"", ""),
    (
        "route-outward",
        "from = [\"public\"]\ndomains = [\"example.org\"]",
        "from = [\"public\"]\ndomains = [\"*\"]",
    ),
    (
        "unknown-next-hop",
        "next-hop = \"sink\"\n\n[queue]",
        "next-hop = \"sunk\"\n\n[queue]",
    ),
    (
        "sasl-without-socket",
        "authentication = \"none\"",
        "authentication = \"sasl\"",
    ),
    (
        "everybody-is-a-proxy",
        "authentication = \"none\"",
        "authentication = \"none\"\nproxy-protocol-from = [\"::/0\"]",
    ),
    (
        "lists-missing",
        "\"spam\", \"virus\"",
        "\"dns-lists\", \"spam\", \"virus\"",
    ),
    (
        "list-without-weight",
        "[recipient]",
        "[[dns-list]]\nzone = \"score.example\"\naction = \"score\"\n\n[recipient]",
    ),
    (
        "list-with-foreign-codes",
        "[recipient]",
        "[[dns-list]]\nzone = \"a.example\"\naction = \"mark\"\ncodes = [\"192.0.2.0/24\"]\n\n[recipient]",
    ),
    (
        "list-nowhere",
        "[recipient]",
        "[[dns-list]]\nzone = \"a..example\"\naction = \"mark\"\n\n[recipient]",
    ),
    (
        "stress-beyond-everything",
        "[spam]",
        "[stress]\nat-percent = 120\n\n[spam]",
    ),
    ("mark-above-reject", "mark-score = 5.0", "mark-score = 50.0"),
    (
        "memory-too-small",
        "max-recipients = 100",
        "max-recipients = 100\nmessage-memory = 1000",
    ),
    ("proxy-missing", "via = \"off\"", "via = \"proxy\""),
    (
        "deadline-above-timeout",
        "[queue]",
        "[hybrid]\ndeadline = 60\n[queue]",
    ),
    (
        "hold-below-the-largest-message",
        "[queue]",
        "[hybrid]\nmax-octets = 1000\n[queue]",
    ),
    ("held-for-ever", "[queue]", "[hybrid]\nlifetime = 0\n[queue]"),
    ("no-parts", "[content]", "[content]\nmax-parts = 0"),
    (
        "ending-with-its-dot",
        "[content]",
        "[content]\ndenied-endings = [\"exe\", \".scr\"]",
    ),
    ("content-without-table", "[content]\nexecutables = \"refuse\"", ""),
    (
        "submission-without-proxy",
        "relay-for = \"local-domains\"\n",
        "relay-for = \"local-domains\"\nsubmission = \"pass-inward\"\n",
    ),
    (
        "submission-without-certificate",
        "trusted-addresses = [\"127.0.0.1\"]",
        "trusted-addresses = [\"127.0.0.1\"]\nsubmission = \"from-gateway\"",
    ),
    (
        "submissions-without-logins",
        "relay-for = \"local-domains\"\n",
        "relay-for = \"local-domains\"\nlisten-submissions = [\"127.0.0.1:2465\"]\n",
    ),
    (
        "login-for-anybody",
        "port = 2600\ntls = \"off\"",
        "port = 2600\ntls = \"required\"\nlogin = \"smarthost.login\"",
    ),
    (
        "implicit-tls-left-out",
        "port = 2600\ntls = \"off\"",
        "port = 2600\ntls = \"off\"\nimplicit-tls = true",
    ),
    (
        "public-authorities-unused",
        "port = 2600\ntls = \"off\"",
        "port = 2600\ntls = \"off\"\npublic-authorities = true",
    ),
    (
        "source-pool-without-addresses",
        "[queue]",
        "[[source-pool]]\nname = \"news\"\naddresses = []\n\n[queue]",
    ),
    ("instance-unknown", "[instance.inside]", "[instance.backstage]"),
];

#[test]
fn faults_are_explained() {
    let mut all = String::new();
    for (name, from, to) in FAULTS {
        let text = evaluate();
        assert!(text.contains(from), "{name}: the evaluation file has no {from:?}");
        let said = parse(&text.replacen(from, to, 1))
            .err()
            .unwrap_or_else(|| "(no fault found)".into());
        all.extend(["## ", name, "\n", &said, "\n\n"]);
    }
    insta::assert_snapshot!(all);
}
