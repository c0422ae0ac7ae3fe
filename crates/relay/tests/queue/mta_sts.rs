//! MTA-STS: policies come by HTTPS from a real TLS server, bind what is sent, and outlive restarts and failures.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::PublicKeyData as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::dane::{expired, tlsa};
use crate::names::World;
use crate::outward::{Case, compare, configuration, deferred, server, taken, try_all};
use crate::sink::Sink;
use crate::tls::{Authority, host_at};

/// Whole HTTP answers by domain; what is not here gets 404.
pub(crate) type Answers = Arc<Mutex<HashMap<String, String>>>;

/// What was posted: the header in lower case, and the content.
pub(crate) type Posts = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A web server for `mta-sts.DOMAIN`.
pub(crate) fn web(at: Ipv4Addr, tls: Arc<ServerConfig>, answers: Answers, posts: Posts) -> u16 {
    let listener = TcpListener::bind(SocketAddr::from((at, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = StreamOwned::new(ServerConnection::new(tls.clone()).unwrap(), stream);
            let mut lines = BufReader::new(&mut stream);
            let (mut path, mut host, mut header) = (String::new(), String::new(), String::new());
            let mut line = String::new();
            // A client that does not like the certificate says nothing.
            while lines.read_line(&mut line).is_ok_and(|read| read > 2) {
                let lower = line.to_ascii_lowercase();
                path = lower.strip_prefix("get ").map_or(path, str::to_owned);
                host = lower.strip_prefix("host: mta-sts.").map_or(host, str::to_owned);
                header.push_str(&lower);
                line.clear();
            }
            let length = header
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if let Some(length) = length.filter(|_| header.starts_with("post ")) {
                let mut content = vec![0; length.parse().unwrap()];
                lines.read_exact(&mut content).unwrap();
                posts.lock().unwrap().push((header, content));
                let _ = stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            let domain = host.split(':').next().unwrap_or_default().trim().to_owned();
            let answer = answers.lock().unwrap().get(&domain).cloned();
            let answer = answer.filter(|_| path == "/.well-known/mta-sts.txt http/1.1\r\n");
            let answer = answer.unwrap_or("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into());
            let _ = stream.write_all(answer.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    port
}

pub(crate) fn ok(kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn policy(mode: &str, host: &str) -> String {
    ok(
        "text/plain; charset=utf-8",
        &format!("version: STSv1\r\nmode: {mode}\r\nmx: {host}\r\nmax_age: 86400\r\n"),
    )
}

/// What the tests share: two SMTP hosts and a web server.
struct Site {
    authority: Authority,
    sink: Sink,
    port: u16,
    web: u16,
    /// Where web servers may be.
    reach: &'static str,
    answers: Answers,
    /// Of the key of the host that no authority knows.
    key_digest: Vec<u8>,
}

const WEB: Ipv4Addr = Ipv4Addr::new(127, 0, 26, 1);
/// Shows a certificate of the authority for `mx.DOMAIN`.
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 26, 2);
/// Shows one that nobody knows.
const ODD: Ipv4Addr = Ipv4Addr::new(127, 0, 26, 3);

impl Site {
    fn new(domains: &[&str]) -> Self {
        let authority = Authority::new();
        let names = |prefix: &str| {
            domains
                .iter()
                .map(|domain| format!("{prefix}.{domain}"))
                .collect()
        };
        let answers = Answers::default();
        let (certificate, key) = authority.issue_for(names("mta-sts"));
        let web = web(
            WEB,
            server(vec![certificate.der().clone()], &key),
            answers.clone(),
            Posts::default(),
        );
        let sink = Sink::start();
        let (certificate, key) = authority.issue_for(names("mx"));
        let good = server(vec![certificate.der().clone()], &key);
        let port = host_at((GOOD, 0).into(), &sink, Some(good)).port();
        let (certificate, key) = expired();
        host_at(
            (ODD, port).into(),
            &sink,
            Some(server(vec![certificate.der().clone()], &key)),
        );
        let key_digest = digest(&SHA256, &key.subject_public_key_info()).as_ref().to_vec();
        Self {
            authority,
            sink,
            port,
            web,
            reach: "127.0.26.0/24",
            answers,
            key_digest,
        }
    }

    fn answer(&self, domain: &str, answer: String) {
        self.answers.lock().unwrap().insert(domain.into(), answer);
    }

    async fn try_all(&self, directory: &Path, world: World, domains: &[&str]) -> Vec<Result<String, String>> {
        std::fs::write(directory.join("web.crt"), self.authority.pem()).unwrap();
        let more = format!(
            "[mta-sts]\nca = \"web.crt\"\nport = {}\nallowed-networks = [\"{}\"]",
            self.web, self.reach
        );
        let configuration = configuration(world.serve(), self.port, &more);
        try_all(directory, &configuration, domains).await.0
    }
}

/// The domain's host is at `address`, its policy record has this id.
fn publish(world: &mut World, domain: &str, address: Ipv4Addr, id: Option<&str>) {
    let host = format!("mx.{domain}");
    world.mx(domain, 10, &host).address(&host, address);
    world.address(&format!("mta-sts.{domain}"), WEB);
    if let Some(id) = id {
        world.text(&format!("_mta-sts.{domain}"), &format!("v=STSv1; id={id};"));
    }
}

/// What is published is the whole answer of the web server.
fn cases() -> Vec<Case<String>> {
    let enforce = |host: &str| policy("enforce", host);
    let other = || enforce("other.example");
    let text = "version: STSv1\nmode: enforce\nmax_age: 9\nmx: a.example\n";
    let large = ok("text/plain", &format!("{text}{}", "x".repeat(70_000)));
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /policy\r\nContent-Length: 0\r\n\r\n".to_owned();
    let named = "mx.unknown-issuer.example";
    vec![
        taken(
            "enforce.example",
            GOOD,
            enforce("mx.enforce.example"),
            "mta-sts TLS",
        ),
        taken(
            "pattern.example",
            GOOD,
            enforce("*.pattern.example"),
            "mta-sts TLS",
        ),
        deferred("unknown-issuer.example", ODD, enforce(named), "mta-sts"),
        deferred("not-named.example", GOOD, other(), "does not name its mail host"),
        taken(
            "testing.example",
            ODD,
            policy("testing", "other.example"),
            "none TLS",
        ),
        taken("off.example", ODD, policy("none", "other.example"), "none TLS"),
        taken("no-record.example", ODD, other(), "none TLS"),
        taken("redirect.example", ODD, redirect, "none TLS"),
        taken("html.example", ODD, ok("text/html", text), "none TLS"),
        taken("large.example", ODD, large, "none TLS"),
        // The web server's certificate is not for this one.
        taken("other-web.example", ODD, other(), "none TLS"),
        // DANE comes first, whichever way it decides.
        taken("dane.example", ODD, other(), "dane TLS"),
        deferred(
            "dane-wrong.example",
            GOOD,
            enforce("mx.dane-wrong.example"),
            "no TLSA record",
        ),
    ]
}

#[tokio::test]
async fn a_policy_binds_what_is_sent() {
    let cases = cases();
    let domains: Vec<&str> = cases.iter().map(|case| case.domain).collect();
    let certified = domains
        .iter()
        .copied()
        .filter(|domain| *domain != "other-web.example");
    let site = Site::new(&certified.collect::<Vec<_>>());
    let mut world = World::default();
    for case in &cases {
        let id = (case.domain != "no-record.example").then_some("1");
        publish(&mut world, case.domain, case.host, id);
        site.answer(case.domain, case.published.clone());
    }
    for domain in ["dane.example", "dane-wrong.example"] {
        let owner = format!("_{}._tcp.mx.{domain}", site.port);
        world.add(&owner, tlsa(3, 1, 1, &site.key_digest));
    }
    let directory = tempfile::tempdir().unwrap();
    let results = site.try_all(directory.path(), world, &domains).await;
    assert_eq!(site.sink.taken().len(), compare(&cases, &results));
}

#[tokio::test]
async fn a_policy_outlives_restarts_and_whoever_suppresses_it() {
    let domains = ["kept.example", "moved.example"];
    let site = Site::new(&domains);
    let directory = tempfile::tempdir().unwrap();
    let try_all = async |address, id| {
        let mut world = World::default();
        for domain in domains {
            publish(&mut world, domain, address, id);
        }
        let results = site.try_all(directory.path(), world, &domains).await;
        results
            .into_iter()
            .map(|result| result.unwrap_or("refused".into()))
            .collect::<Vec<_>>()
    };
    for domain in domains {
        site.answer(domain, policy("enforce", &format!("mx.{domain}")));
    }
    assert_eq!(try_all(GOOD, Some("1")).await, ["mta-sts TLS", "mta-sts TLS"]);
    // A host of someone else's, no record, and a web server that answers nothing: the policies hold.
    site.answers.lock().unwrap().clear();
    assert_eq!(try_all(ODD, None).await, ["refused", "refused"]);
    assert_eq!(try_all(ODD, Some("2")).await, ["refused", "refused"]);
    // One domain gives its policy up, by a new id; the other keeps the old one.
    site.answer("moved.example", policy("none", "mx.moved.example"));
    assert_eq!(try_all(ODD, Some("3")).await, ["refused", "none TLS"]);
    assert_eq!(try_all(GOOD, Some("3")).await, ["mta-sts TLS", "none TLS"]);
}

#[tokio::test]
async fn a_web_server_that_is_not_of_the_internet_is_not_asked() {
    let domains = ["inward.example"];
    let mut site = Site::new(&domains);
    site.answer("inward.example", policy("enforce", "other.example"));
    let try_all = async |site: &Site| {
        let directory = tempfile::tempdir().unwrap();
        let mut world = World::default();
        publish(&mut world, "inward.example", GOOD, Some("1"));
        site.try_all(directory.path(), world, &domains).await.remove(0)
    };
    // The policy stands against the host, so that who reads it sends nothing.
    try_all(&site).await.unwrap_err();
    site.reach = "127.0.26.2/31";
    assert_eq!(try_all(&site).await, Ok("none TLS".into()));
}
