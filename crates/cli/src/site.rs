//! `postern site`: check a site file, show what follows from it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use postern_control::Reply;
use postern_site::{DkimRecord, Site};

use crate::files;

/// Reads and checks a site file; the error is the whole list of faults.
pub(crate) fn load(file: &Path) -> Result<Site> {
    let text = files::read_text(file)?;
    Site::parse(&file.display().to_string(), &text)
        .map_err(|faults| anyhow::anyhow!("{} is not a valid site file\n\n{faults}", file.display()))
}

pub(crate) fn check(file: &Path) -> Result<()> {
    let site = load(file)?;
    println!("{}: the site {} is valid", file.display(), site.name());
    for node in site.nodes() {
        println!(
            "  {} ({}, {})",
            node.name(),
            node.role().as_str(),
            node.hostname()
        );
    }
    Ok(())
}

pub(crate) fn render(file: &Path, node: &str, out: Option<&Path>) -> Result<()> {
    let rendered = load(file)?.render(node)?;
    let Some(out) = out else {
        for file in rendered {
            println!("==> {} <==\n{}", file.path, file.contents);
        }
        return Ok(());
    };
    let mut list = Vec::new();
    for file in rendered {
        let path = out.join(&file.path);
        files::directory(path.parent().unwrap_or(out), 0o755)?;
        list.push((path, file.mode, file.contents.into_bytes()));
    }
    files::write_all(&list)?;
    println!("{} files for {node} are in {}", list.len(), out.display());
    Ok(())
}

pub(crate) fn dns(file: &Path, dkim_records: Option<&Path>) -> Result<()> {
    let site = load(file)?;
    let records = match dkim_records {
        Some(path) => dkim(&files::read_text(path)?).with_context(|| format!("in {}", path.display()))?,
        None => Vec::new(),
    };
    print!("{}", postern_site::zone_lines(&site, &records));
    Ok(())
}

/// The reply of the control socket, its list alone, or lines of a name and a value.
fn dkim(text: &str) -> Result<Vec<DkimRecord>> {
    let trimmed = text.trim_start();
    if trimmed.starts_with(['{', '[']) {
        let list = if trimmed.starts_with('[') {
            serde_json::from_str(text).context("not a list of DKIM records as the control socket gives it")?
        } else {
            match serde_json::from_str(text).context("not a reply of the control socket")? {
                Reply::DkimRecords { records } => records,
                _ => bail!("this reply holds no DKIM records: ask for {{\"request\":\"dkim-records\"}}"),
            }
        };
        let list: Vec<postern_control::DkimRecord> = list;
        return Ok(list
            .into_iter()
            .map(|r| DkimRecord {
                name: r.name,
                value: r.value,
            })
            .collect());
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| match line.split_once(char::is_whitespace) {
            Some((name, value)) if name.contains("._domainkey.") => Ok(DkimRecord {
                name: name.to_owned(),
                value: value.trim().trim_matches('"').to_owned(),
            }),
            _ => bail!("`{line}` is not a DKIM record: write the record's name, a space and its value"),
        })
        .collect()
}

pub(crate) fn matrix(file: &Path) -> Result<()> {
    print!("{}", postern_site::matrix_text(&load(file)?));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dkim_records_in_each_form() {
        let record = DkimRecord {
            name: "s._domainkey.example.org".into(),
            value: "v=DKIM1; p=AA".into(),
        };
        let json = r#"{"name":"s._domainkey.example.org","value":"v=DKIM1; p=AA"}"#;
        for text in [
            format!("[{json}]"),
            format!(r#"{{"reply":"dkim-records","records":[{json}]}}"#),
            "s._domainkey.example.org v=DKIM1; p=AA\n".to_owned(),
            "\n s._domainkey.example.org \"v=DKIM1; p=AA\"\n".to_owned(),
        ] {
            assert_eq!(dkim(&text).unwrap(), std::slice::from_ref(&record), "{text}");
        }
        assert!(dkim("v=DKIM1; p=AA").is_err());
        assert!(dkim(r#"{"reply":"error","text":"busy"}"#).is_err());
    }
}
