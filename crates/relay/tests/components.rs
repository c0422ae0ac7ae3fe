//! Our scanner clients against the real clamd and spamd, and what mail to the world asks of the DNS against the real
//! unbound, which the components tier starts out of the image.
//!
//! `POSTERN_TEST_CLAMD`, `POSTERN_TEST_SPAMD` and `POSTERN_TEST_UNBOUND` name their sockets. Without them these tests fail: they are behind the
//! feature `component-tests` and run only where the daemons do.

use postern_relay::checks::clamd::{self, Scanned};
use postern_relay::checks::spamd;
use postern_relay::config::ScannerSocket;
use postern_relay::deliver::dane::{self, Tlsa};
use postern_relay::deliver::dns::Dns;
use postern_relay::deliver::mx::Mx;

fn socket(variable: &str) -> ScannerSocket {
    let value = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} must name the socket of a running daemon; run tests/components/run")
    });
    let socket = ScannerSocket::try_from(value).expect("an absolute path or an address with a port");
    assert_ne!(socket, ScannerSocket::Off, "{variable} must name a daemon");
    socket
}

/// The EICAR test string, which must not stand in any file in one piece.
fn eicar() -> String {
    [
        "X5O!P%@AP[4\\PZX54(P^)7CC)7}$",
        "EICAR-STANDARD-",
        "ANTIVIRUS-TEST-FILE!",
        "$H+H*",
    ]
    .concat()
}

/// `SpamAssassin`'s test string, likewise.
fn gtube() -> String {
    [
        "XJS*C4JDBQADN1.NSBN3*2IDNEN*",
        "GTUBE-STANDARD-ANTI-UBE-",
        "TEST-EMAIL*C.34X",
    ]
    .concat()
}

fn message(body: &str) -> Vec<u8> {
    format!(
        "Received: from client.example ([192.0.2.1]) by mx1.example.org; Fri, 20 Nov 2026 08:00:00 +0000\r\n\
         From: Ann <ann@sender.example>\r\nTo: Bob <bob@example.org>\r\nSubject: Tuesday\r\n\
         Date: Fri, 20 Nov 2026 08:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\n\r\n{body}\r\n"
    )
    .into_bytes()
}

fn attached(octets: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(octets);
    format!(
        "From: ann@sender.example\r\nTo: bob@example.org\r\nSubject: a file\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee the file\r\n\
         --b\r\nContent-Type: application/octet-stream; name=x.com\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=x.com\r\n\r\n{encoded}\r\n--b--\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn clamd_names_the_signature() {
    let socket = socket("POSTERN_TEST_CLAMD");
    for (what, octets) in [
        ("plain", eicar().into_bytes()),
        ("attached", attached(eicar().as_bytes())),
    ] {
        match clamd::ask(&socket, &octets).await.expect("clamd answers") {
            Scanned::Found(name) => assert!(name.to_lowercase().contains("eicar"), "{what}: {name}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// A zip archive with one stored file, whose header says that it is encrypted (APPNOTE.TXT 4.4.4, bit 0).
fn encrypted_zip() -> Vec<u8> {
    let (name, data) = (
        b"secret.txt",
        b"twelve octets of salt, and then what nobody can read",
    );
    let length = u32::try_from(data.len()).expect("it is short").to_le_bytes();
    let name_length = u16::try_from(name.len()).expect("it is short").to_le_bytes();
    let fields = [
        &20_u16.to_le_bytes()[..],
        &1_u16.to_le_bytes(),
        &[0; 6],
        &0xdead_beef_u32.to_le_bytes(),
        &length,
        &length,
        &name_length,
        &[0; 2],
    ]
    .concat();
    let local = [&b"PK\x03\x04"[..], &fields, name, data].concat();
    let central = [&b"PK\x01\x02\x14\0"[..], &fields, &[0; 14], name].concat();
    let end = [
        &b"PK\x05\x06\0\0\0\0\x01\0\x01\0"[..],
        &u32::try_from(central.len()).expect("it is short").to_le_bytes(),
        &u32::try_from(local.len()).expect("it is short").to_le_bytes(),
        &[0; 2],
    ]
    .concat();
    [local, central, end].concat()
}

#[tokio::test]
async fn clamd_tells_of_an_encrypted_archive() {
    let socket = socket("POSTERN_TEST_CLAMD");
    let scanned = clamd::ask(&socket, &attached(&encrypted_zip())).await;
    match scanned.expect("clamd answers") {
        Scanned::Encrypted(name) => assert!(name.contains("Zip"), "{name}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn clamd_lets_clean_mail_through() {
    let socket = socket("POSTERN_TEST_CLAMD");
    assert_eq!(
        clamd::ask(&socket, &message("See you at ten."))
            .await
            .expect("clamd answers"),
        Scanned::Clean
    );
    let large = message(&"0123456789 abcdefghij\r\n".repeat(100_000));
    assert_eq!(
        clamd::ask(&socket, &large).await.expect("clamd answers"),
        Scanned::Clean
    );
}

#[tokio::test]
async fn clamd_takes_every_message_for_mail() {
    let socket = socket("POSTERN_TEST_CLAMD");
    let padding = |octets: usize| format!("X-Padding: {}\r\n", "z".repeat(octets - 13));
    for (first, at) in [
        (&b"PK\x03\x04: x"[..], 0),
        (b"GIF89a: x", 0),
        (b"%PDF-1.4: x", 0),
        (b"MZ: x", 0),
        (b"{\\rtf1: x", 0),
        (b"Rar!\x1a\x07: x", 0),
        (b"From someone", 0),
        (b"Unheard-Of: x", 0),
        (b"ustar: x", 257),
        (b"EFI PART: x", 512),
    ] {
        let before = if at == 0 { String::new() } else { padding(at) };
        let message = [before.as_bytes(), first, b"\r\n", &attached(eicar().as_bytes())].concat();
        let scanned = clamd::ask(&socket, &message).await.expect("clamd answers");
        assert!(
            matches!(scanned, Scanned::Found(_)),
            "{}: {scanned:?}",
            String::from_utf8_lossy(first)
        );
    }
}

#[tokio::test]
async fn spamd_scores() {
    let socket = socket("POSTERN_TEST_SPAMD");
    let spam = spamd::ask(&socket, &message(&gtube()))
        .await
        .expect("spamd answers");
    assert!(spam.score > 900.0 && spam.symbols.contains("GTUBE"), "{spam:?}");
    let ham = spamd::ask(&socket, &message("See you at ten."))
        .await
        .expect("spamd answers");
    assert!(ham.score < 5.0 && !ham.symbols.contains("GTUBE"), "{ham:?}");
}

#[tokio::test]
async fn spamd_judges_a_large_message_by_its_beginning() {
    let socket = socket("POSTERN_TEST_SPAMD");
    let body = format!("{}\r\n{}", gtube(), "0123456789 abcdefghij\r\n".repeat(60_000));
    let large = message(&body);
    assert!(large.len() > 2 * spamd::SHOWN);
    let scored = spamd::ask(&socket, &large).await.expect("spamd answers");
    assert!(scored.score > 900.0, "{scored:?}");
}

#[tokio::test]
async fn spamd_takes_a_message_without_a_last_line_end() {
    let socket = socket("POSTERN_TEST_SPAMD");
    let mut octets = message(&gtube());
    octets.truncate(octets.len() - 2);
    let asked = tokio::time::timeout(std::time::Duration::from_secs(50), spamd::ask(&socket, &octets));
    let scored = asked
        .await
        .expect("spamd does not wait for more")
        .expect("spamd answers");
    assert!(scored.score > 900.0, "{scored:?}");
}

#[tokio::test]
async fn scanners_answer_several_at_once() {
    let (clamd_socket, spamd_socket) = (socket("POSTERN_TEST_CLAMD"), socket("POSTERN_TEST_SPAMD"));
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (clamd_socket, spamd_socket) = (clamd_socket.clone(), spamd_socket.clone());
        asked.spawn(async move {
            let octets = message(&format!("message {number}"));
            let (virus, spam) = tokio::join!(
                clamd::ask(&clamd_socket, &octets),
                spamd::ask(&spamd_socket, &octets)
            );
            assert_eq!(virus.expect("clamd answers"), Scanned::Clean);
            spam.expect("spamd answers");
        });
    }
    while let Some(done) = asked.join_next().await {
        done.expect("each is answered");
    }
}

/// The root of the test world is signed, and unbound has its key. What it proves is what DANE rests on.
#[tokio::test]
async fn unbound_proves_hosts_and_their_tlsa_records() {
    let ScannerSocket::Tcp(address) = socket("POSTERN_TEST_UNBOUND") else {
        panic!("POSTERN_TEST_UNBOUND must be an address with a port");
    };
    let dns = Dns::new(address);
    let mx = Mx::new(dns);
    let hosts = mx
        .hosts("proved.example", "mx1.example.org")
        .await
        .expect("it has hosts");
    assert!(hosts.authentic, "the MX record is signed");
    let found = mx.addresses(&hosts.list[0]).await.expect("it has an address");
    let bases: Vec<String> = found.tlsa_bases.iter().map(ToString::to_string).collect();
    assert_eq!(bases, ["real.proved.example.", "mx.proved.example."]);
    let Tlsa::Usable(published, records) = dane::look_up(dns, 25, &found.tlsa_bases)
        .await
        .expect("an answer")
    else {
        panic!("the TLSA record counts");
    };
    assert_eq!((published.base.as_str(), records.len()), ("mx.proved.example", 1));
    assert_eq!(
        published.records,
        [format!("3 1 1 {}", "0123456789abcdef".repeat(4))]
    );
    let other = mx
        .hosts("destination.example", "mx1.example.org")
        .await
        .expect("it has hosts");
    let found = mx.addresses(&other.list[0]).await.expect("it has an address");
    let none = dane::look_up(dns, 25, &found.tlsa_bases).await;
    assert!(matches!(none, Ok(Tlsa::None)), "{none:?}");
}
