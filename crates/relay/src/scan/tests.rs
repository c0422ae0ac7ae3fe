//! Whole messages: each bound with its neighbour that passes, attachments by name and by content, and what is read in two ways.

use std::io::{Cursor, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use zip::ZipWriter;
use zip::unstable::write::FileOptionsExt as _;
use zip::write::SimpleFileOptions;

use super::config::{Content, Executables};
use super::{Report, Seen, examine};

fn policy() -> Content {
    Content::default()
}

fn look(message: &str) -> Report {
    examine(&policy(), message.as_bytes())
}

/// The word of the only thing seen, and what it says; empty where all is well.
fn saw(report: &Report) -> (String, String) {
    let said = match report.seen.as_slice() {
        [] => String::new(),
        [Seen::Denied { attachment, rule }] => format!("{attachment} | {rule}"),
        [Seen::Beyond { what } | Seen::Ambiguous { what } | Seen::Odd { what }] => what.clone(),
        [Seen::Encrypted { attachment } | Seen::Unreadable { attachment, .. }] => attachment.clone(),
        several => panic!("{several:?}"),
    };
    (report.seen.first().map_or("clean", Seen::word).to_owned(), said)
}

fn clean(message: &str) {
    assert_eq!(saw(&look(message)).0, "clean", "{message}");
}

fn word(message: &str) -> String {
    saw(&look(message)).0
}

/// A message with one attachment of these octets.
fn attached(name: &str, content: &[u8]) -> String {
    let text = STANDARD.encode(content);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n\
         --b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"{name}\"\r\n\r\n{}\r\n--b--\r\n",
        lines.join("\r\n")
    )
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn tarred(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_cksum();
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0 and so on";

#[test]
fn ordinary_mail_is_clean() {
    clean("Subject: x\r\n\r\nhello\r\n");
    clean("Subject: x\r\n\r\n");
    clean("");
    clean(&attached("letter.pdf", b"%PDF-1.7 ..."));
    clean(&attached(
        "a.docx",
        &zipped(&[("word/document.xml", b"<w/>"), ("media/a.png", b"\x89PNG")]),
    ));
    clean(
        "Content-Type: multipart/alternative; boundary=\"o\"\r\n\r\npreamble\r\n--o\r\n\
         Content-Type: multipart/related; boundary=\"oo\"\r\n\r\n--oo\r\nContent-Type: text/html\r\n\r\n<p>\r\n\
         --oo--\r\n--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n--o--\r\nepilogue\r\n",
    );
}

#[test]
fn parts_fields_and_files_are_counted() {
    let report = look(&attached(
        "a.zip",
        &zipped(&[("a.txt", b"abc"), ("b.txt", b"defg")]),
    ));
    assert_eq!((report.parts, report.entries), (3, 2));
    assert_eq!(report.header_fields, 6);
    // The archive itself and its two files.
    assert!(report.unpacked > 7, "{report:?}");
}

#[test]
fn a_message_of_many_parts_is_refused_at_the_bound() {
    let with = |parts: usize| {
        format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--\r\n",
            "--b\r\n\r\nx\r\n".repeat(parts)
        )
    };
    let bound = Content {
        max_parts: 11,
        ..policy()
    };
    assert_eq!(saw(&examine(&bound, with(10).as_bytes())).0, "clean");
    assert_eq!(
        saw(&examine(&bound, with(11).as_bytes())),
        ("beyond".into(), "more than 11 parts".into())
    );
}

#[test]
fn nesting_of_any_kind_is_refused_at_the_bound() {
    let multiparts = |depth: usize| {
        (0..depth).fold(String::new(), |text, level| {
            format!("{text}Content-Type: multipart/mixed; boundary=b{level}x\r\n\r\n--b{level}x\r\n")
        })
    };
    let messages = |depth: usize| "Content-Type: message/rfc822\r\n\r\n".repeat(depth);
    let encoded = |depth: usize| {
        (0..depth).fold("Subject: x\r\n\r\nx\r\n".to_owned(), |inner, _| {
            format!(
                "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
                STANDARD.encode(inner)
            )
        })
    };
    let bound = Content {
        max_depth: 5,
        ..policy()
    };
    for make in [&multiparts as &dyn Fn(usize) -> String, &messages, &encoded] {
        assert_eq!(
            saw(&examine(&bound, make(4).as_bytes())).0,
            "clean",
            "{}",
            make(4)
        );
        assert_eq!(
            saw(&examine(&bound, make(5).as_bytes())),
            ("beyond".into(), "parts more than 5 deep in one another".into())
        );
    }
    // Far beyond: the walk ends at the bound and not at the end of the stack.
    assert_eq!(word(&messages(100_000)), "beyond");
    assert_eq!(word(&multiparts(2000)), "beyond");
}

#[test]
fn headers_are_bounded_in_number_and_size() {
    let bound = Content {
        max_header_fields: 10,
        max_header_size: 200,
        ..policy()
    };
    let of = |text: String| saw(&examine(&bound, text.as_bytes()));
    assert_eq!(of("A: b\r\n".repeat(10)).0, "clean");
    assert_eq!(of("A: b\r\n".repeat(11)).1, "more than 10 header fields");
    assert_eq!(of(format!("A: {}\r\n", "b".repeat(195))).0, "clean");
    assert_eq!(
        of(format!("A: {}\r\n", "b".repeat(196))).1,
        "header fields of more than 200 octets"
    );
    assert_eq!(of(format!("A: b\r\n{}", " c\r\n".repeat(50))).0, "beyond");
}

#[test]
fn what_programs_read_differently_is_refused_or_marked() {
    let typed = |fields: &str, body: &str| format!("Subject: x\r\n{fields}\r\n\r\n{body}");
    for fields in [
        "Content-Type: text/plain\r\nContent-Type: application/zip",
        "Content-Transfer-Encoding: 7bit\r\nContent-transfer-encoding : base64",
        "Content-Disposition: inline\r\nContent-Disposition: attachment",
        "Content-Type: multipart/mixed; boundary=a; boundary=b",
        "Content-Type: multipart/mixed; boundary=a\r\nContent-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: x-uuencode",
        "X: \0",
    ] {
        assert_eq!(word(&typed(fields, "x\r\n")), "ambiguous", "{fields}");
    }
    let base64 = "Content-Transfer-Encoding: base64\r\nContent-Type: ";
    assert_eq!(
        word(&typed(&format!("{base64}application/pdf"), "aGVs=bG8h\r\n")),
        "ambiguous"
    );
    assert_eq!(
        word(&typed(&format!("{base64}text/plain"), "aGVs!bG8h\r\n")),
        "odd"
    );
    for (fields, body) in [
        ("Content-Type : text/plain", "x"),
        ("Content-Transfer-Encoding: none", "x"),
        ("Content-Type: multipart/mixed", "x"),
        ("this is no field", "x"),
        (
            "Content-Type: multipart/mixed; boundary=b",
            "--b\r\n\r\n--bc\r\n--b--\r\n",
        ),
    ] {
        assert_eq!(word(&typed(fields, body)), "odd", "{fields}");
    }
    let shared = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";
    assert_eq!(word(&shared.repeat(2)), "ambiguous");
    let closed = |rest: &str| {
        word(&typed(
            "Content-Type: multipart/mixed; boundary=b",
            &format!("--b\r\n\r\nx\r\n--b--\r\n{rest}"),
        ))
    };
    assert_eq!(closed("an epilogue\r\n"), "clean");
    assert_eq!(closed("--b\r\n\r\nx\r\n--b--\r\n"), "ambiguous");
    assert_eq!(closed("--b--\r\n"), "odd");
    assert_eq!(
        word(&typed("Content-Type: message/partial; id=a; number=1", "x")),
        "denied"
    );
}

#[test]
fn attachments_are_judged_by_every_name() {
    for disposition in [
        "attachment; filename=\"a.exe\"",
        "inline; filename=a.scr",
        "attachment; filename=a.txt; filename*=utf-8''a%2Eexe",
        "attachment; filename*0*=utf-8''a; filename*1=.exe",
        "attachment;\r\n filename=\"=?utf-8?Q?a=2Eexe?=\"",
        "attachment; filename=\"a.pdf.js\"",
        "attachment; filename*=utf-8''a%E2%80%AEfdp%2Eexe",
        "attachment; filename*=utf-8''a%00.txt",
    ] {
        let message = format!("Content-Disposition: {disposition}\r\n\r\nx\r\n");
        assert_eq!(word(&message), "denied", "{disposition}");
    }
    assert_eq!(
        word("Content-Type: application/x-msdownload\r\n\r\nx\r\n"),
        "denied"
    );
    assert_eq!(
        word("Content-Type: application/zip; name=a.lnk\r\n\r\nx\r\n"),
        "denied"
    );
    assert_eq!(
        word("Subject: x\r\n\r\nsee\r\nbegin 644 a.exe\r\nM\r\n"),
        "denied"
    );
    clean("Subject: x\r\n\r\nbegin 644 letters about a.exe files, please\r\nbegin it with a.exe\r\n");
    clean(
        "Content-Type: message/rfc822; name=\"Your order at shop.example.com\"\r\n\r\nSubject: x\r\n\r\nx\r\n",
    );
    assert_eq!(
        word("Content-Type: message/rfc822; name=x.js\r\n\r\nSubject: x\r\n\r\nx\r\n"),
        "denied"
    );
    let (_, said) = saw(&look(&attached("invoice.pdf.exe", b"x")));
    assert_eq!(
        said,
        "invoice.pdf.exe | files that end in .exe are not taken, behind .pdf neither"
    );
}

#[test]
fn attachments_are_judged_by_their_content_whatever_they_are_called() {
    assert_eq!(
        saw(&look(&attached("holiday.jpg", ELF))),
        (
            "denied".into(),
            "holiday.jpg | it is an ELF program, by its content".into()
        )
    );
    let lenient = Content {
        executables: Executables::Accept,
        ..policy()
    };
    assert_eq!(
        saw(&examine(&lenient, attached("a.bin", ELF).as_bytes())).0,
        "clean"
    );
}

#[test]
fn archives_are_looked_into() {
    for (name, archive, inner) in [
        (
            "a.zip",
            zipped(&[("ok.txt", b"x"), ("dir/run.js", b"x")]),
            "a.zip: dir/run.js",
        ),
        ("a.zip", zipped(&[("photo.jpg", ELF)]), "a.zip: photo.jpg"),
        ("run.exe.gz", gzipped(b"x"), "run.exe.gz: run.exe"),
        ("a.gz", gzipped(ELF), "a.gz: a"),
        ("a.tar", tarred("x/run.bat", b"x"), "a.tar: x/run.bat"),
        (
            "a.tgz",
            gzipped(&tarred("run.bat", b"x")),
            "a.tgz: a.tar: run.bat",
        ),
        (
            "a.zip",
            zipped(&[("b.zip", &zipped(&[("c.eml", attached("d.vbs", b"x").as_bytes())]))]),
            "d.vbs",
        ),
    ] {
        let (word, said) = saw(&look(&attached(name, &archive)));
        assert_eq!(word, "denied", "{name}");
        assert!(said.starts_with(&format!("{inner} | ")), "{said}");
    }
    // What it is called does not hide that it is one.
    assert_eq!(
        word(&attached(
            "a.gif",
            &[&b"GIF89a"[..], &zipped(&[("b.exe", b"x")])].concat()
        )),
        "denied"
    );
    let far = [vec![b'x'; 128 << 10], zipped(&[("b.jpg", ELF)])].concat();
    assert_eq!(
        word(&attached("a.zip", &zipped(&[("photo.jpg", &far)]))),
        "denied"
    );
    clean(&attached(
        "a.gz",
        &[gzipped(b"one"), gzipped(b"two"), b"\0\0\0".to_vec()].concat(),
    ));
}

#[test]
fn archives_are_bounded_in_files_size_ratio_and_nesting() {
    let files = zipped(&[("a", b"x"), ("b", b"x"), ("c", b"x")]);
    let zeros = vec![0; 10 << 20];
    let (bomb, nested) = (
        zipped(&[("zeros", &zeros)]),
        zipped(&[("a.zip", &zipped(&[("b.gz", &gzipped(b"x"))]))]),
    );
    let with = |change: fn(&mut Content), archive: &[u8]| {
        let mut content = policy();
        change(&mut content);
        saw(&examine(&content, attached("a.zip", archive).as_bytes()))
    };
    assert_eq!(with(|content| content.max_entries = 3, &files).0, "clean");
    assert_eq!(
        with(|content| content.max_entries = 2, &files).1,
        "more than 2 files in archives"
    );
    assert_eq!(with(|content| content.max_nesting = 3, &nested).0, "clean");
    assert_eq!(
        with(|content| content.max_nesting = 2, &nested).1,
        "archives more than 2 deep in one another"
    );
    assert_eq!(with(|content| content.max_ratio = 10_000, &bomb).0, "clean");
    assert_eq!(
        with(|_| {}, &bomb).1,
        "a file that becomes more than 250 times larger when it is unpacked"
    );
    assert_eq!(
        with(|content| content.max_unpacked_size = 1 << 20, &bomb).1,
        "content that unpacks to more than 1048576 octets"
    );
}

#[test]
fn a_directory_of_a_million_files_is_not_read() {
    let entries = b"PK\x01\x02".repeat(20_000);
    let archive = [&b"PK\x03\x04"[..], &entries].concat();
    assert_eq!(
        saw(&look(&attached("a.zip", &archive))).1,
        "more than 10000 files in archives"
    );
}

#[test]
fn what_cannot_be_read_is_said() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let locked = SimpleFileOptions::default()
        .with_deprecated_encryption(b"secret")
        .unwrap();
    writer.start_file("plan.doc", locked).unwrap();
    writer.write_all(b"secret").unwrap();
    let mut archive = writer.finish().unwrap().into_inner();
    assert_eq!(
        saw(&look(&attached("a.zip", &archive))),
        ("encrypted".into(), "a.zip: plan.doc".into())
    );
    archive.truncate(archive.len() - 10);
    assert_eq!(
        saw(&look(&attached("a.zip", &archive))),
        ("unreadable".into(), "a.zip".into())
    );
    let mut damaged = gzipped(b"some text that is long enough to be damaged");
    damaged.truncate(25);
    assert_eq!(word(&attached("a.gz", &damaged)), "unreadable");
    // A password does not hide a name.
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("run.exe", locked).unwrap();
    assert_eq!(
        word(&attached("a.zip", &writer.finish().unwrap().into_inner())),
        "denied"
    );
}

#[test]
fn damaged_messages_are_walked_to_their_end_within_the_bounds() {
    let bounds = Content {
        max_depth: 5,
        max_parts: 10,
        max_unpacked_size: 1 << 20,
        max_entries: 10,
        max_nesting: 2,
        ..policy()
    };
    let inner = gzipped(&tarred("a.txt", b"text"));
    let seed = attached(
        "a.zip",
        &zipped(&[("b.tgz", &inner), ("c.eml", attached("d.txt", b"x").as_bytes())]),
    );
    let mut random = fastrand::Rng::with_seed(8);
    for round in 0..1500 {
        let mut message = seed.clone().into_bytes();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..message.len());
            match random.u8(..3) {
                0 => message[at] = random.u8(..),
                1 => message.truncate(at.max(1)),
                _ => {
                    let piece = message[at..(at + 60).min(message.len())].to_vec();
                    let to = random.usize(..message.len());
                    message.splice(to..to, piece);
                }
            }
        }
        let report = examine(&bounds, &message);
        let passed = report.seen.iter().any(|seen| matches!(seen, Seen::Beyond { .. }));
        assert!(
            passed || report.parts <= 10 && report.entries <= 10 && report.unpacked <= 1 << 20,
            "round {round}: {report:?}"
        );
        assert_eq!(report, examine(&bounds, &message), "round {round}");
    }
}

#[test]
fn a_report_fits_into_a_packet() {
    let name = "ü".repeat(5000);
    let odd = "a line without a colon\r\n".repeat(3000);
    let report = look(&format!(
        "{odd}Content-Disposition: attachment; filename=\"{name}.exe\"\r\n\r\n"
    ));
    let octets = serde_json::to_vec(&report).unwrap();
    assert!(octets.len() < 4096, "{}", octets.len());
}
