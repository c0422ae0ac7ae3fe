//! Attachments by name: what a mail program would save it as, and what the receiver's system would then do with it.

/// Endings that are refused by default: what Windows, macOS or a desktop runs, installs or mounts at a double click, and archives that
/// hardly anything but malware still uses.
pub const DENIED: &[&str] = &[
    "ace",
    "ade",
    "adp",
    "appinstaller",
    "application",
    "appref-ms",
    "appx",
    "appxbundle",
    "arj",
    "bat",
    "chm",
    "cmd",
    "com",
    "command",
    "cpl",
    "desktop",
    "diagcab",
    "dll",
    "exe",
    "gadget",
    "hlp",
    "hta",
    "img",
    "inf",
    "ins",
    "iso",
    "isp",
    "jar",
    "jnlp",
    "js",
    "jse",
    "library-ms",
    "lnk",
    "msc",
    "msi",
    "msix",
    "msixbundle",
    "msp",
    "mst",
    "ocx",
    "pif",
    "ps1",
    "ps1xml",
    "ps2",
    "psc1",
    "psm1",
    "reg",
    "scf",
    "scr",
    "sct",
    "search-ms",
    "settingcontent-ms",
    "sh",
    "shb",
    "shs",
    "sys",
    "url",
    "vb",
    "vbe",
    "vbs",
    "vhd",
    "vhdx",
    "vxd",
    "wim",
    "ws",
    "wsc",
    "wsf",
    "wsh",
    "xll",
];

/// Types that mail programs make an ending of when a part has no name.
const TYPES: &[(&str, &str)] = &[
    ("application/hta", "hta"),
    ("application/javascript", "js"),
    ("application/java-archive", "jar"),
    ("application/x-dosexec", "exe"),
    ("application/x-javascript", "js"),
    ("application/x-ms-application", "application"),
    ("application/x-ms-shortcut", "lnk"),
    ("application/x-msdos-program", "exe"),
    ("application/x-msdownload", "exe"),
    ("application/x-msi", "msi"),
    ("application/x-sh", "sh"),
    ("text/javascript", "js"),
    ("text/vbscript", "vbs"),
];

/// Why an attachment of this name is refused, if it is.
pub fn denied(name: &str, endings: &[String]) -> Option<String> {
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        return Some(format!(
            "its name holds the control character U+{:04X}",
            control as u32
        ));
    }
    // Overrides, embeddings and isolates; the marks that ordinary Arabic and Hebrew names have are not among them.
    if let Some(turn) = name
        .chars()
        .find(|c| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'))
    {
        return Some(format!(
            "its name holds U+{:04X}, which shows it in another order than it is",
            turn as u32
        ));
    }
    // `a.txt:b.exe` is a stream of a file on Windows, and a name of its own elsewhere: both are looked at.
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    file.split(':').find_map(|piece| of_piece(piece, endings))
}

fn of_piece(piece: &str, endings: &[String]) -> Option<String> {
    // Windows drops points and blanks at the end of a name.
    let piece = piece.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    let (stem, ending) = piece.rsplit_once('.')?;
    let ending = ending.trim().to_lowercase();
    if ending.starts_with('{') && ending.ends_with('}') {
        return Some("its name ends in the id of a Windows class, which opens it as a program".into());
    }
    if !endings.contains(&ending) {
        return None;
    }
    let before = stem.trim_end().rsplit_once('.').map(|(_, before)| before.trim());
    Some(match before {
        Some(before) if (2..=4).contains(&before.len()) && before.chars().all(char::is_alphanumeric) => {
            format!("files that end in .{ending} are not taken, behind .{before} neither")
        }
        _ => format!("files that end in .{ending} are not taken"),
    })
}

/// Why a part of this media type is refused, if it is.
pub fn denied_type(media_type: &str, endings: &[String]) -> Option<String> {
    TYPES
        .iter()
        .find(|(of, ending)| *of == media_type && endings.iter().any(|denied| denied == ending))
        .map(|(of, ending)| format!("parts of the type {of} are opened as .{ending}, which is not taken"))
}

/// The ending of a name, in lower case; empty where it has none.
pub fn ending(name: &str) -> String {
    name.rsplit_once('.')
        .map_or(String::new(), |(_, ending)| ending.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str) -> Option<String> {
        let endings: Vec<String> = DENIED.iter().map(|&ending| ending.to_owned()).collect();
        denied(name, &endings)
    }

    #[test]
    fn the_default_list_is_in_order_and_in_lower_case() {
        assert!(DENIED.is_sorted());
        assert!(DENIED.iter().all(|ending| *ending == ending.to_lowercase()));
        assert!(TYPES.iter().all(|(_, ending)| DENIED.contains(ending)));
    }

    #[test]
    fn names_are_read_as_the_receivers_system_would() {
        for name in [
            "a.exe",
            "A.EXE",
            "a.exe.",
            "a.exe . ",
            "a.exe\u{a0}",
            "dir/a.vbs",
            "dir\\a.js",
            "a.txt:b.scr",
            "a.scr::$DATA",
            "a. exe",
            "report.{3050F4D8-98B5-11CF-BB82-00AA00BDCE0B}",
        ] {
            assert!(rule(name).is_some(), "{name:?}");
        }
        for name in [
            "a.pdf",
            "exe",
            "a.exe.txt",
            "a.exe/readme",
            "letter",
            "",
            ".",
            "\u{200f}شعار.png",
        ] {
            assert_eq!(rule(name), None, "{name:?}");
        }
    }

    #[test]
    fn the_rule_is_named() {
        assert_eq!(
            rule("x.scr").as_deref(),
            Some("files that end in .scr are not taken")
        );
        assert_eq!(
            rule("invoice.pdf      .exe").as_deref(),
            Some("files that end in .exe are not taken, behind .pdf neither")
        );
        assert_eq!(
            rule("photo_\u{202e}gpj.exe").as_deref(),
            Some("its name holds U+202E, which shows it in another order than it is")
        );
        assert_eq!(
            rule("a\0.txt").as_deref(),
            Some("its name holds the control character U+0000")
        );
    }

    #[test]
    fn what_the_site_takes_is_taken() {
        assert_eq!(denied("a.js", &["exe".into()]), None);
        assert_eq!(denied_type("text/javascript", &["exe".into()]), None);
        assert!(denied_type("application/x-msdownload", &["exe".into()]).is_some());
    }
}
