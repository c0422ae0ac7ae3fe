//! Submission from outside, with the real daemons of both roles on loopback: `outside.py` is the client out there, Dovecot's
//! SASL service, the way between the nodes (which it cuts) and the world that the mail goes to.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

#[test]
fn a_user_outside_submits_and_nobody_else_does() {
    let directory = tempfile::TempDir::with_prefix("postern-").unwrap();
    certificates(directory.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/submission/outside.py");
    let done = Command::new("python3")
        .arg(script)
        .arg(directory.path())
        .arg(env!("CARGO_BIN_EXE_postern-relay"))
        .output()
        .expect("python3 can be started");
    let (said, complained) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    println!("{said}");
    assert!(done.status.success(), "{said}\n{complained}");
}

/// An authority, and what each node shows of it; `stranger` is signed by another.
fn certificates(directory: &Path) {
    let ours = authority();
    write(directory, "ca.crt", &ours.1);
    for (file, name, issuer) in [
        ("gateway", "mx1.example.org", &ours.0),
        ("internal", "mail.example.org", &ours.0),
        ("stranger", "mx1.example.org", &authority().0),
    ] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        write(directory, &format!("{file}.crt"), &certificate.pem());
        write(directory, &format!("{file}.key"), &key.serialize_pem());
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).unwrap();
}
