//! What the operator reads when a site file is wrong. Each file of `bad/` is named by its fault; its message
//! is a snapshot beside it, so that a change of wording is seen and judged.

use std::path::Path;

use postern_site::Site;
use proptest::prelude::*;

const DEFAULT: &str = include_str!("../../../docs/site.example.toml");

#[test]
fn every_bad_file_is_refused_with_its_message() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut names: Vec<String> = std::fs::read_dir(&directory)
        .expect("the folder of bad site files")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a plain name")
        })
        .collect();
    names.sort();
    assert!(
        names.len() >= 50,
        "only {} bad site files were found",
        names.len()
    );
    for name in names {
        let text = std::fs::read_to_string(directory.join(&name)).expect("a readable file");
        let fault = name.strip_suffix(".toml").expect("a .toml file");
        match Site::parse(&name, &text) {
            Ok(_) => panic!("{name} was accepted"),
            Err(diagnostics) => {
                for diagnostic in &diagnostics {
                    let cited = text.lines().nth(diagnostic.line - 1).unwrap_or("");
                    assert_eq!(
                        cited.trim_end(),
                        diagnostic.cited,
                        "{name}: the cited line is not that line"
                    );
                    assert!(!diagnostic.remedy.is_empty(), "{name}: no remedy");
                }
                insta::assert_snapshot!(format!("bad-{fault}"), diagnostics.to_string());
            }
        }
    }
}

proptest! {
    /// Whatever happens to a file on its way, the answer is a site or a list of faults, never a panic.
    #[test]
    fn a_damaged_file_never_panics(at in 0..DEFAULT.len(), cut in 0..40usize, put in "\\PC{0,6}") {
        let mut at = at;
        while !DEFAULT.is_char_boundary(at) { at -= 1; }
        let mut end = (at + cut).min(DEFAULT.len());
        while !DEFAULT.is_char_boundary(end) { end -= 1; }
        let text = format!("{}{put}{}", &DEFAULT[..at], &DEFAULT[end.max(at)..]);
        match Site::parse("site.toml", &text) {
            Ok(site) => for node in site.nodes() {
                prop_assert!(site.render(node.name()).is_ok());
            },
            Err(diagnostics) => prop_assert!(diagnostics.iter().count() > 0),
        }
    }
}
