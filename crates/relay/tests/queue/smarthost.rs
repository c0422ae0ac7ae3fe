//! Mail through a provider's host that asks for a login: a real Postfix with TLS, whose logins the test answers.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_control::EventKind;

use crate::postfix::Postfix;
use crate::process::{HEAD, Queue, envelope, hand_over};
use crate::sink::Sink;
use crate::tls::Authority;

const MESSAGE: &[u8] = b"From: <app@example.org>\r\nSubject: Hello\r\n\r\nHi.\r\n";
const NAME: &str = "smtp.provider.example";

/// Dovecot's authentication protocol, which Postfix asks: one login is right. It keeps who came by which mechanism.
struct Logins {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Logins {
    fn serve(mechanism: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                // Postfix ends connections as it likes.
                std::thread::spawn(move || drop(converse(stream, mechanism, &kept)));
            }
        });
        Self { address, seen }
    }
}

fn converse(mut stream: TcpStream, mechanism: &str, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let hello = format!("VERSION\t1\t1\nMECH\t{mechanism}\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n");
    stream.write_all(hello.as_bytes())?;
    let mut said: Vec<String> = Vec::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        let decode = |text: &str| String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
        match fields[0] {
            "AUTH" => {
                assert_eq!(fields[2], mechanism);
                said.clear();
                let response = fields.iter().find_map(|field| field.strip_prefix("resp="));
                said.extend(response.map(decode));
            }
            "CONT" => said.push(decode(fields[2])),
            _ => continue,
        }
        let id = fields[1];
        let answer = match (mechanism, said.len()) {
            ("LOGIN", 0) => format!("CONT\t{id}\tVXNlcm5hbWU6\n"),
            ("LOGIN", 1) => format!("CONT\t{id}\tUGFzc3dvcmQ6\n"),
            _ => {
                let login = said.join("\0");
                let login = login.trim_start_matches('\0').replace('\0', " ");
                seen.lock().unwrap().push(login.clone());
                if login == "app s3cret" {
                    format!("OK\t{id}\tuser=app\n")
                } else {
                    format!("FAIL\t{id}\tuser=app\n")
                }
            }
        };
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// A provider's Postfix with STARTTLS at one port and TLS at once at the other; only who logs in may send.
fn provider(sink: &Sink, authority: &Authority, starttls: &Logins, implicit: &Logins) -> Postfix {
    let (certificate, key) = authority.issue(NAME);
    let options = |logins: &Logins, wrapped: &str| {
        [
            "smtpd_tls_security_level=may",
            &format!("smtpd_tls_wrappermode={wrapped}"),
            "smtpd_tls_cert_file=$config_directory/tls.crt",
            "smtpd_tls_key_file=$config_directory/tls.key",
            "smtpd_sasl_auth_enable=yes",
            "smtpd_sasl_type=dovecot",
            &format!("smtpd_sasl_path=inet:{}", logins.address),
            "smtpd_tls_auth_only=yes",
            "smtpd_relay_restrictions=permit_sasl_authenticated,reject",
        ]
        .map(str::to_owned)
        .to_vec()
    };
    Postfix::with_options(
        sink,
        &[options(starttls, "no"), options(implicit, "yes")],
        |directory| {
            std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
            std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
        },
    )
}

fn configuration(port: u16, implicit: bool, name: &str) -> String {
    format!(
        "{HEAD}
[next-hop.smarthost]
kind = \"smtp\"
host = \"127.0.0.1\"
port = {port}
tls = \"required\"
server-name = \"{name}\"
ca = \"ca.crt\"
implicit-tls = {implicit}
login = \"smarthost.login\"
[[route]]
from = [\"inside\"]
domains = [\"*\"]
next-hop = \"smarthost\"
"
    )
}

fn files(directory: &Path, authority: &Authority, login: &str) {
    std::fs::write(directory.join("ca.crt"), authority.pem()).unwrap();
    std::fs::write(directory.join("smarthost.login"), login).unwrap();
}

async fn send(queue: &Queue, to: &str) {
    let envelope = envelope("app@example.org", &[to], MESSAGE.len());
    hand_over(&queue.client("inside"), &envelope, MESSAGE)
        .await
        .unwrap();
}

#[tokio::test]
async fn mail_goes_through_a_provider_that_asks_for_a_login() {
    let (directory, sink, authority) = (tempfile::tempdir().unwrap(), Sink::start(), Authority::new());
    let (plain, login) = (Logins::serve("PLAIN"), Logins::serve("LOGIN"));
    let postfix = provider(&sink, &authority, &plain, &login);
    files(directory.path(), &authority, "app\ns3cret\n");
    for (number, implicit) in [false, true].into_iter().enumerate() {
        let mut queue = Queue::start(
            directory.path(),
            &configuration(postfix.ports[number], implicit, NAME),
        );
        let to = format!("u{number}@far.example");
        send(&queue, &to).await;
        let outcome = queue.wait(&to, |kind| {
            matches!(
                kind,
                EventKind::Delivered { .. } | EventKind::Deferred { .. } | EventKind::Bounced { .. }
            )
        });
        assert!(matches!(outcome, EventKind::Delivered { .. }), "{outcome:?}");
        let proved = queue.events().into_iter().any(|kind| {
            matches!(kind, EventKind::Attempt { authentication, tls, .. }
                if authentication.as_deref() == Some("authority") && tls.is_some())
        });
        assert!(proved);
        sink.wait(&to, |taken| taken.iter().any(|one| one.to == to));
        queue.stop();
    }
    for logins in [&plain, &login] {
        assert_eq!(*logins.seen.lock().unwrap(), ["app s3cret"]);
    }
}

#[tokio::test]
async fn a_refused_login_defers_and_warns_until_it_is_mended() {
    let (directory, sink, authority) = (tempfile::tempdir().unwrap(), Sink::start(), Authority::new());
    let logins = Logins::serve("PLAIN");
    let postfix = provider(&sink, &authority, &logins, &Logins::serve("LOGIN"));
    files(directory.path(), &authority, "app\nwrong\n");
    let configuration = configuration(postfix.ports[0], false, NAME);
    let mut queue = Queue::start(directory.path(), &configuration);
    send(&queue, "b@far.example").await;
    let deferred = queue.wait("the outcome", |kind| {
        matches!(kind, EventKind::Deferred { .. } | EventKind::Bounced { .. })
    });
    let EventKind::Deferred { reply, .. } = deferred else {
        panic!("{deferred:?}")
    };
    assert!(reply.starts_with("454 4.7.8") && reply.contains("535"), "{reply}");
    queue.wait("the warning", |kind| {
        matches!(kind, EventKind::Warning { text } if text.contains("next hop smarthost") && text.contains("password"))
    });
    queue.stop();
    files(directory.path(), &authority, "app\ns3cret\n");
    let queue = Queue::start(directory.path(), &configuration);
    sink.wait("the mail that waited", |taken| !taken.is_empty());
    queue.stop();
}

#[tokio::test]
async fn nobody_else_hears_the_password() {
    let (directory, sink, authority) = (tempfile::tempdir().unwrap(), Sink::start(), Authority::new());
    let logins = Logins::serve("PLAIN");
    let postfix = provider(&sink, &authority, &logins, &logins);
    let stranger = Authority::new();
    for (authority, name) in [(&authority, "smtp.other.example"), (&stranger, NAME)] {
        files(directory.path(), authority, "app\ns3cret\n");
        for (port, implicit) in postfix.ports.iter().zip([false, true]) {
            let mut queue = Queue::start(directory.path(), &configuration(*port, implicit, name));
            send(&queue, "b@far.example").await;
            let deferred = queue.wait("the outcome", |kind| {
                matches!(
                    kind,
                    EventKind::Deferred { .. } | EventKind::Bounced { .. } | EventKind::Delivered { .. }
                )
            });
            assert!(
                matches!(&deferred, EventKind::Deferred { reply, .. } if reply.starts_with("451 4.7.5")),
                "{deferred:?}"
            );
            queue.stop();
        }
    }
    assert!(logins.seen.lock().unwrap().is_empty());
    assert!(sink.taken().is_empty());
}
