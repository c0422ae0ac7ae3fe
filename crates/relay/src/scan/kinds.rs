//! What a file is, by its content.

/// Archives that are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Archive {
    /// Also office documents, which are such.
    Zip,
    /// RFC 1952
    Gzip,
    /// POSIX and GNU
    Tar,
}

/// What a program runs, installs or mounts: its name for people, if `content` is such.
pub(super) fn executable(content: &[u8]) -> Option<&'static str> {
    const SHORTCUT: &[u8] = &[0x4c, 0, 0, 0, 1, 0x14, 2, 0];
    const ISO: usize = 0x8001;
    let begins = |mark: &[u8]| content.starts_with(mark);
    if begins(b"MZ") {
        return windows(content);
    }
    match () {
        () if begins(b"\x7fELF") => Some("an ELF program"),
        () if begins(b"\xfe\xed\xfa\xce") || begins(b"\xfe\xed\xfa\xcf") => Some("a Mach-O program"),
        () if begins(b"\xce\xfa\xed\xfe") || begins(b"\xcf\xfa\xed\xfe") => Some("a Mach-O program"),
        () if begins(b"\xca\xfe\xba\xbe") => Some("a Mach-O program or Java class"),
        () if begins(b"dex\n0") => Some("an Android program"),
        () if begins(SHORTCUT) => Some("a Windows shortcut"),
        () if begins(b"ITSF\x03") => Some("a compiled help file"),
        () if begins(b"#!/") || begins(b"#! /") => Some("a script"),
        () if begins(b"vhdxfile") || begins(b"conectix") => Some("a disk image"),
        () if content.get(ISO..ISO + 5) == Some(b"CD001") => Some("a disk image"),
        () => None,
    }
}

/// A text may begin with MZ; a program has its second header, or at least no text in its first one.
fn windows(content: &[u8]) -> Option<&'static str> {
    const SECOND: usize = 0x3c;
    let offset = content.get(SECOND..SECOND + 4)?;
    let offset = offset
        .iter()
        .rev()
        .fold(0, |sum, octet| sum << 8 | usize::from(*octet));
    let signature = content.get(offset..).unwrap_or_default();
    if signature.starts_with(b"PE\0\0") {
        return Some("a Windows program");
    }
    let old = [b"NE", b"LE", b"LX"]
        .iter()
        .any(|mark| signature.starts_with(*mark));
    (old || content[..SECOND].contains(&0)).then_some("a Windows or DOS program")
}

/// The archive that `content` is.
pub(super) fn archive(content: &[u8], name: &str) -> Option<Archive> {
    const TAR_MARK: std::ops::Range<usize> = 257..262;
    if content.starts_with(b"PK\x03\x04") || content.starts_with(b"PK\x05\x06") || ends_as_zip(content) {
        return Some(Archive::Zip);
    }
    if content.starts_with(b"\x1f\x8b\x08") {
        return Some(Archive::Gzip);
    }
    let tar = content.get(TAR_MARK) == Some(b"ustar")
        || (content.len() >= 512 && super::names::ending(name) == "tar");
    tar.then_some(Archive::Tar)
}

/// A zip is read from its end, so that anything may stand in front of it.
fn ends_as_zip(content: &[u8]) -> bool {
    const END: usize = 22;
    const LONGEST: usize = END + 0xffff;
    let tail = &content[content.len().saturating_sub(LONGEST)..];
    tail.windows(END).enumerate().any(|(at, end)| {
        end.starts_with(b"PK\x05\x06")
            && tail.len() - at - END == usize::from(u16::from_le_bytes([end[20], end[21]]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portable_executable() -> Vec<u8> {
        let mut content = vec![b'x'; 0x44];
        content[..2].copy_from_slice(b"MZ");
        content[0x3c..0x40].copy_from_slice(&0x40_u32.to_le_bytes());
        content[0x40..].copy_from_slice(b"PE\0\0");
        content
    }

    #[test]
    fn programs_are_told_by_their_content() {
        let mut iso = vec![0; 0x8001];
        iso.extend_from_slice(b"CD001");
        for (content, kind) in [
            (portable_executable(), "a Windows program"),
            ([&b"MZ"[..], &[0; 70]].concat(), "a Windows or DOS program"),
            (b"\x7fELF\x02\x01".to_vec(), "an ELF program"),
            (b"\xcf\xfa\xed\xfe\x07".to_vec(), "a Mach-O program"),
            (b"L\0\0\0\x01\x14\x02\0".to_vec(), "a Windows shortcut"),
            (b"#!/bin/sh\n".to_vec(), "a script"),
            (iso, "a disk image"),
        ] {
            assert_eq!(executable(&content), Some(kind));
        }
    }

    #[test]
    fn text_is_no_program() {
        let text = format!(
            "MZ is how this letter begins, and it goes on {}",
            "for long ".repeat(20)
        );
        for content in [text.as_bytes(), b"MZ", b"", b"%PDF-1.7", b"\xff\xd8\xff"] {
            assert_eq!(executable(content), None);
        }
    }

    #[test]
    fn a_zip_behind_something_else_is_one() {
        let empty = [&b"PK\x05\x06"[..], &[0; 18]].concat();
        assert_eq!(archive(&empty, "a"), Some(Archive::Zip));
        assert_eq!(
            archive(&[&b"GIF89a and then"[..], &empty].concat(), "a.gif"),
            Some(Archive::Zip)
        );
        assert_eq!(archive(b"PK is no archive", "a"), None);
        assert_eq!(archive(b"\x1f\x8b\x08\0", "a"), Some(Archive::Gzip));
    }
}
