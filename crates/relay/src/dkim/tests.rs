//! Keys on disk, and signatures verified by mail-auth's verifier with the records that would be published.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::{AuthenticatedMessage, DkimResult, Parameters, ResolverCache, Txt};

use super::*;
use crate::dkim::keys::load_or_make;

fn config() -> Dkim {
    Dkim {
        directory: "dkim".into(),
        selector: "postern".into(),
        domains: vec!["example.org".into()],
    }
}

fn signers(directory: &Path) -> (Signers, Vec<(String, String)>) {
    let pairs = load_or_make(&config(), directory).unwrap();
    let records = pairs.iter().map(|pair| pair.record("postern").unwrap()).collect();
    (Signers::new(&config(), pairs).unwrap(), records)
}

fn sign(signers: &Signers, message: &[u8]) -> Vec<u8> {
    let mut signing = signers.begin(message).unwrap();
    for part in message.chunks(7) {
        signing.write(part);
    }
    let mut signed = signing.finish().unwrap();
    signed.extend_from_slice(message);
    signed
}

/// A cache that answers as DNS would; what it does not know is asked at a closed port.
struct Published(HashMap<Box<str>, Txt>);

impl ResolverCache<Box<str>, Txt> for Published {
    fn get<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        self.0.get(name).cloned()
    }
    fn remove<Q: Hash + Eq + ?Sized>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
    {
        None
    }
    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

/// Which signatures hold, by the records that would be published.
async fn verify(records: &[(String, String)], message: &[u8]) -> Vec<bool> {
    let published = records.iter().map(|(name, value)| {
        let key = DomainKey::parse(value.as_bytes()).unwrap();
        (format!("{name}.").into(), Txt::DomainKey(key.into()))
    });
    let published = Published(published.collect());
    let authenticator = crate::resolver::authenticator("127.0.0.1:9".parse().unwrap()).unwrap();
    let message = AuthenticatedMessage::parse(message).unwrap();
    let results = authenticator
        .verify_dkim(Parameters::new(&message).with_txt_cache(&published))
        .await;
    results
        .iter()
        .map(|output| *output.result() == DkimResult::Pass)
        .collect()
}

const MESSAGE: &[u8] =
    b"From: Ada <ada@Example.ORG>\r\nTo: b@b.example\r\nSubject: Hi\r\n there\r\nDate: Fri, 20 Nov \
2026 08:00:00 +0000\r\nX-Other: x\r\n\r\nBody  with spaces \r\n\r\n\r\n";

#[tokio::test]
async fn both_signatures_hold_and_tell_of_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (signers, records) = signers(directory.path());
    let signed = sign(&signers, MESSAGE);
    assert_eq!(verify(&records, &signed).await, [true, true]);
    let text = String::from_utf8(signed.clone()).unwrap();
    assert_eq!(
        text.matches("a=rsa-sha256; s=postern-rsa; d=example.org; c=relaxed/relaxed")
            .count(),
        1
    );
    assert_eq!(
        text.matches("a=ed25519-sha256; s=postern-ed25519; d=example.org")
            .count(),
        1
    );
    let altered = |from: &str, to: &str| text.replacen(from, to, 1).into_bytes();
    assert_eq!(verify(&records, &altered("Body", "Bodi")).await, [false, false]);
    assert_eq!(
        verify(&records, &altered("Subject: Hi", "Subject: Ho")).await,
        [false, false]
    );
    // Fields that are not signed may change; white space may.
    assert_eq!(
        verify(&records, &altered("X-Other: x", "X-Other: y")).await,
        [true, true]
    );
    assert_eq!(
        verify(&records, &altered("Body  with", "Body with")).await,
        [true, true]
    );
    // A second From, To or Subject, or a listed field that was missing, breaks both.
    for added in [
        "From: eve@evil.example",
        "To: c@c.example",
        "Subject: Ho",
        "Reply-To: eve@evil.example",
    ] {
        let message = altered("From: Ada", &format!("{added}\r\nFrom: Ada"));
        assert_eq!(verify(&records, &message).await, [false, false], "{added}");
    }
}

#[test]
fn keys_are_made_once_and_only_their_owner_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("dkim");
    let (_, records) = signers(&keys);
    let mut names: Vec<_> = std::fs::read_dir(&keys)
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    assert_eq!(
        names.iter().map(std::fs::DirEntry::file_name).collect::<Vec<_>>(),
        ["postern-ed25519.example.org.pem", "postern-rsa.example.org.pem"]
    );
    assert!(
        names
            .iter()
            .all(|entry| entry.metadata().unwrap().permissions().mode() & 0o777 == 0o600)
    );
    assert_eq!(signers(&keys).1, records);
    assert_eq!(records[0].0, "postern-rsa._domainkey.example.org");
    assert!(
        records[0].1.starts_with("v=DKIM1; k=rsa; p=MIIBIjAN"),
        "{}",
        records[0].1
    );
    assert_eq!(records[1].0, "postern-ed25519._domainkey.example.org");
    assert_eq!(records[1].1.len(), "v=DKIM1; k=ed25519; p=".len() + 44);
}

#[test]
fn a_damaged_key_is_an_error_that_says_how_to_mend_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("postern-rsa.example.org.pem");
    std::fs::write(
        &path,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    let pairs = load_or_make(&config(), directory.path()).unwrap();
    let error = Signers::new(&config(), pairs).err().unwrap().to_string();
    assert!(
        error.contains("postern-rsa.example.org.pem cannot be used") && error.contains("remove it"),
        "{error}"
    );
    std::fs::write(&path, "garbage").unwrap();
    let error = load_or_make(&config(), directory.path()).unwrap_err().to_string();
    assert!(error.contains("cannot be used"), "{error}");
}

#[test]
fn the_authors_domain_is_found_or_nothing_is_signed() {
    let of = |header: &str| author_domain(header.as_bytes());
    assert_eq!(
        of("From: \"x@evil.example\" <a@Example.org>\r\n\r\n").as_deref(),
        Some("example.org")
    );
    assert_eq!(of("From: a@x.example, b@y.example\r\n\r\n"), None);
    assert_eq!(of("From: a@x.example\r\nFrom: b@y.example\r\n\r\n"), None);
    assert_eq!(of("To: a@x.example\r\n\r\nFrom: a@x.example\r\n"), None);
    let directory = tempfile::tempdir().unwrap();
    assert!(
        signers(directory.path())
            .0
            .begin(b"From: a@other.example\r\n\r\n")
            .is_none()
    );
}
