//! A real Valkey server, or Redis where the host's Debian has no Valkey yet: TLS only, one user with just the rights that
//! a gateway needs.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern_relay::reputation::valkey::Settings;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;

use crate::node::until;

pub(crate) const NAME: &str = "state.example.org";
pub(crate) const PASSWORD: &str = "correct-horse-battery";
/// As docs/site.example.toml tells the operator.
const ACL: &str = "user default off
user postern on >correct-horse-battery resetkeys ~postern:* resetchannels -@all +eval +evalsha +script|load +get +set
";

/// A server and the certificates of its little world.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    pub(crate) directory: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let directory = TempDir::with_prefix("postern-").expect("a directory");
        certificates(directory.path());
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port");
        let path = directory.path().display();
        std::fs::write(directory.path().join("users.acl"), ACL).expect("it can be written");
        let settings = format!(
            "bind 127.0.0.1\nport 0\ntls-port {port}\ntls-cert-file {path}/server.crt\ntls-key-file {path}/server.key\n\
             tls-ca-cert-file {path}/ca.crt\ntls-auth-clients yes\naclfile {path}/users.acl\nsave \"\"\nappendonly no\ndir {path}\n",
            port = address.port()
        );
        std::fs::write(directory.path().join("server.conf"), settings).expect("it can be written");
        let mut server = Self {
            child: None,
            address,
            directory,
        };
        server.restart();
        server
    }

    /// Starts it where it was.
    pub(crate) fn restart(&mut self) {
        let program = ["valkey-server", "redis-server"]
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_ok())
            .expect("valkey-server or redis-server; install the package of that name");
        println!("the server is {program}");
        let log = std::fs::File::create(self.directory.path().join("server.log")).expect("a log");
        let child = Command::new(program)
            .arg(self.directory.path().join("server.conf"))
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("it can be started");
        self.child = Some(child);
        let log = self.directory.path().join("server.log");
        until("the server listens", || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(!said.contains("FATAL"), "{said}");
            TcpStream::connect(self.address).is_ok()
        });
    }

    /// It goes on to take connections, and answers nothing.
    pub(crate) fn hang(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// It ends; what it held is lost.
    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it has ended");
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it runs");
    }

    /// How a gateway gets there.
    pub(crate) fn settings(&self) -> Settings {
        let file = |name: &str| self.directory.path().join(name);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate(&file("ca.crt"))).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![certificate(&file("node.crt"))],
                rustls_pki_types::PrivateKeyDer::from_pem_file(file("node.key")).expect("a key"),
            )
            .expect("a certificate and its key");
        Settings {
            address: self.address,
            tls: Arc::new(tls),
            server_name: ServerName::try_from(NAME).expect("a name"),
            user: "postern".into(),
            password: PASSWORD.into(),
            // The suite is about answers; what a late one means is seen at whole nodes.
            answer: Duration::from_mins(1),
            traffic: Arc::default(),
        }
    }

    /// The table of relay.toml, with the files below `directory` that it names.
    pub(crate) fn table(&self, directory: &Path) -> String {
        for file in ["ca.crt", "node.crt", "node.key"] {
            std::fs::copy(self.directory.path().join(file), directory.join(file)).expect("a copy");
        }
        std::fs::write(directory.join("state.password"), format!("{PASSWORD}\n")).expect("it can be written");
        format!(
            "[shared-state]\naddress = \"{}\"\nserver-name = \"{NAME}\"\nca = \"ca.crt\"\ncertificate = \"node.crt\"\n\
             key = \"node.key\"\nuser = \"postern\"\npassword = \"state.password\"\n[proxy]\nnext-hop = \"inside\"\n",
            self.address
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn certificate(path: &Path) -> rustls_pki_types::CertificateDer<'static> {
    rustls_pki_types::CertificateDer::from_pem_file(path).expect("a certificate")
}

/// ca, server and node, as `postern pki init` makes them.
fn certificates(directory: &Path) {
    let write = |name: &str, text: String| {
        let path: PathBuf = directory.join(name);
        std::fs::write(path, text).expect("it can be written");
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    // Another subject than the others': OpenSSL takes a certificate whose issuer is its subject for its own issuer.
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "an authority");
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    write("ca.crt", authority.pem());
    for (file, name) in [("server", NAME), ("node", "mx1.example.org")] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        write(&format!("{file}.crt"), certificate.pem());
        write(&format!("{file}.key"), key.serialize_pem());
    }
}
