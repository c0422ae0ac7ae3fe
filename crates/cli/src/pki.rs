//! `postern pki`: an authority of the site's own and a certificate for each node, by which the nodes know each
//! other (mutual TLS between them, RFC 5280 profile: server and client use, the host name as subject alternative name).

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};

use crate::{files, site};

const YEARS_10: Duration = Duration::from_hours(24 * 3652);

/// A certificate and its key, PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

pub(crate) fn init(site_file: &Path, out: &Path) -> Result<()> {
    let site = site::load(site_file)?;
    let occupied = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        bail!(
            "{} holds something already, and an authority is never overwritten: nodes would stop knowing each other. Name another directory, or move this one away",
            out.display()
        );
    }
    let mut contents = files::Contents::new();
    let authority = authority(site.name())?;
    let authority_key = authority.key().serialize_pem();
    contents.insert("ca.crt".into(), (0o644, authority.pem().into_bytes()));
    contents.insert("ca.key".into(), (0o600, authority_key.into_bytes()));
    for node in site.nodes() {
        let pair = node_pair(node.hostname(), &authority)?;
        contents.insert(
            format!("{}.crt", node.name()),
            (0o644, pair.certificate.into_bytes()),
        );
        contents.insert(format!("{}.key", node.name()), (0o600, pair.key.into_bytes()));
    }
    if let Some(hostname) = site.state_hostname() {
        let pair = node_pair(hostname, &authority)?;
        contents.insert("dmz-state.crt".into(), (0o644, pair.certificate.into_bytes()));
        contents.insert("dmz-state.key".into(), (0o600, pair.key.into_bytes()));
    }
    if let Some(parent) = out.parent().filter(|p| !p.as_os_str().is_empty()) {
        files::directory_if_missing(parent)?;
    }
    files::replace_directory(out, 0o700, &contents)?;
    println!(
        "{}: an authority and {} node certificates; keep ca.key off the nodes, it can make new ones",
        out.display(),
        site.nodes().len()
    );
    Ok(())
}

fn dated(mut params: CertificateParams) -> CertificateParams {
    let now = SystemTime::now();
    // Long ago: a node whose clock lost its time starts years back, and must still know the others.
    params.not_before = (now - YEARS_10).into();
    params.not_after = (now + YEARS_10).into();
    params
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = dated(CertificateParams::default());
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Postern authority of {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().context("cannot make the authority's key")?;
    CertifiedIssuer::self_signed(params, key).context("cannot sign the authority's certificate")
}

fn leaf(hostname: &str) -> Result<CertificateParams> {
    let mut params =
        dated(CertificateParams::new([hostname.to_owned()]).context("cannot name the certificate")?);
    params.distinguished_name.push(DnType::CommonName, hostname);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn node_pair(hostname: &str, authority: &CertifiedIssuer<'static, KeyPair>) -> Result<Pair> {
    let key = KeyPair::generate().context("cannot make a node's key")?;
    let mut params = leaf(hostname)?;
    params.use_authority_key_identifier_extension = true;
    let certificate = params
        .signed_by(&key, authority)
        .context("cannot sign a node's certificate")?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// A certificate that vouches only for itself, so that a node without a public one can still encrypt.
pub(crate) fn self_signed(hostname: &str) -> Result<Pair> {
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = leaf(hostname)?
        .self_signed(&key)
        .context("cannot sign a certificate")?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// Checks that both are PEM and belong together. `name` is how messages call the pair.
pub(crate) fn check_pair(name: &str, certificate: &[u8], key: &[u8]) -> Result<()> {
    let key = std::str::from_utf8(key)
        .ok()
        .and_then(|pem| KeyPair::from_pem(pem).ok());
    let Some(key) = key else {
        bail!(
            "the key of the {name} certificate is not a private key in PEM form (PKCS #8): give the file that begins with -----BEGIN PRIVATE KEY-----"
        );
    };
    let der = check_certificate(name, certificate)?;
    // The certificate holds its public key as these very octets (RFC 5280 section 4.1, SubjectPublicKeyInfo).
    let public = key.subject_public_key_info();
    if !der.windows(public.len()).any(|window| window == public) {
        bail!(
            "the {name} certificate and its key do not belong together: give the pair that was made together"
        );
    }
    Ok(())
}

/// Checks that a node's certificate names `hostname`: the other node would not believe any other.
pub(crate) fn check_name(certificate: &[u8], hostname: &str) -> Result<()> {
    let der = check_certificate("node's (postern.node-cert)", certificate)?;
    // A dNSName of the subject alternative name: context tag 2, its length, the octets (RFC 5280 section 4.2.1.6). A host
    // name has at most 253, and from 128 on the length takes an octet more.
    let mut name = vec![0x82];
    match u8::try_from(hostname.len()) {
        Ok(length @ ..128) => name.push(length),
        Ok(length) => name.extend([0x81, length]),
        Err(_) => bail!("the host name {hostname} is longer than a DNS name can be"),
    }
    name.extend(hostname.as_bytes());
    if !der.windows(name.len()).any(|window| window == name) {
        bail!(
            "the node's certificate (postern.node-cert) is not for {hostname}, so no other node would know this one: hand over the pair that `postern pki init` made for this node"
        );
    }
    Ok(())
}

/// Checks that the first PEM block is a certificate; returns its DER form.
pub(crate) fn check_certificate(name: &str, pem: &[u8]) -> Result<Vec<u8>> {
    use base64::Engine as _;
    let text = String::from_utf8_lossy(pem);
    let body = text
        .split_once("-----BEGIN CERTIFICATE-----")
        .and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE-----"))
        .map(|(body, _)| body.split_ascii_whitespace().collect::<String>());
    let der = body.and_then(|body| base64::engine::general_purpose::STANDARD.decode(body).ok());
    match der {
        Some(der) if der.first() == Some(&0x30) => Ok(der),
        _ => bail!(
            "the {name} certificate is not in PEM form: give the file that begins with -----BEGIN CERTIFICATE-----"
        ),
    }
}
