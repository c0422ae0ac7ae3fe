//! Archives: each file's name, and what it is by its content, within bounds on number, size, ratio and nesting.
//!
//! What declares its size is not believed: everything is unpacked and counted, and archives and messages inside are looked
//! into in turn.

use std::io::{Cursor, Read};

use super::kinds::Archive;
use super::message::Scan;
use super::names;
use super::report::{Step, beyond, denied, unreadable};

/// Below this the ratio says nothing: a page of blanks packs a thousandfold.
const RATIO_FROM: u64 = 8 << 20;

/// Octets unpacked at a time; the bounds are looked at after each.
const CHUNK: usize = 64 << 10;

impl Scan<'_> {
    pub(super) fn archive(
        &mut self,
        kind: Archive,
        name: &str,
        octets: &[u8],
        nesting: usize,
        depth: usize,
    ) -> Step {
        let nesting = nesting + 1;
        if nesting > self.policy.max_nesting {
            return Err(beyond(format!(
                "archives more than {} deep in one another",
                self.policy.max_nesting
            )));
        }
        let at = Place { name, nesting, depth };
        match kind {
            Archive::Zip => self.zip(&at, octets),
            Archive::Gzip => self.gzip(&at, octets),
            Archive::Tar => self.tar(&at, octets),
        }
    }

    fn zip(&mut self, at: &Place<'_>, octets: &[u8]) -> Step {
        // Counted before the directory is read, which takes memory for each file.
        let mark = b"PK\x01\x02";
        let listed = octets.windows(mark.len()).filter(|octets| octets == mark).count();
        self.entries_left(listed)?;
        let mut archive =
            zip::ZipArchive::new(Cursor::new(octets)).map_err(|error| unreadable(at.name, &error))?;
        for index in 0..archive.len() {
            self.entry()?;
            let (name, packed, is_directory, encrypted) = {
                let file = archive
                    .by_index_raw(index)
                    .map_err(|error| unreadable(at.name, &error))?;
                (
                    file.name().to_owned(),
                    file.compressed_size(),
                    file.is_dir(),
                    file.encrypted(),
                )
            };
            let shown = self.named_inside(at, &name)?;
            if encrypted {
                self.report.encrypted(&shown);
            } else if !is_directory {
                let file = archive
                    .by_index(index)
                    .map_err(|error| unreadable(&shown, &error))?;
                self.file(&shown, file, packed, at)?;
            }
        }
        Ok(())
    }

    /// One file after another, as gunzip reads them; what follows the last is not read.
    fn gzip(&mut self, at: &Place<'_>, octets: &[u8]) -> Step {
        let mut rest = octets;
        while rest.starts_with(b"\x1f\x8b") {
            self.entry()?;
            let mut decoder = flate2::bufread::GzDecoder::new(rest);
            let inner = decoder
                .header()
                .and_then(|header| header.filename())
                .map(|name| String::from_utf8_lossy(name).into_owned());
            // Without the ending .gz, or with the one that .tgz stands for.
            let outer = at.name.rsplit(['/', ':']).next().unwrap_or(at.name).trim();
            let outer = match outer.rsplit_once('.') {
                Some((stem, ending)) if ending.eq_ignore_ascii_case("tgz") => format!("{stem}.tar"),
                Some((stem, _)) => stem.to_owned(),
                None => outer.to_owned(),
            };
            let shown = self.named_inside(at, &outer)?;
            let shown = inner.map_or(Ok(shown), |inner| self.named_inside(at, &inner))?;
            self.file(&shown, &mut decoder, octets.len() as u64, at)?;
            rest = decoder.into_inner();
        }
        Ok(())
    }

    fn tar(&mut self, at: &Place<'_>, octets: &[u8]) -> Step {
        let mut archive = tar::Archive::new(octets);
        let entries = archive.entries().map_err(|error| unreadable(at.name, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(at.name, &error))?;
            self.entry()?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let shown = self.named_inside(at, &name)?;
            let kind = entry.header().entry_type();
            if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
                self.file(&shown, entry, octets.len() as u64, at)?;
            }
        }
        Ok(())
    }

    fn named_inside(&self, at: &Place<'_>, name: &str) -> Step<String> {
        let shown = format!("{}: {name}", at.name);
        match names::denied(name, &self.policy.denied_endings) {
            Some(rule) => Err(denied(&shown, rule)),
            None => Ok(shown),
        }
    }

    /// Unpacks one file of `packed` octets, counts it, and looks at it.
    fn file(&mut self, name: &str, mut file: impl Read, packed: u64, at: &Place<'_>) -> Step {
        let mut kept = Vec::new();
        let mut chunk = vec![0; CHUNK];
        let mut size = 0_u64;
        loop {
            let length = match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(name, &error)),
            };
            self.unpacked(length)?;
            size += length as u64;
            if size > RATIO_FROM && size / self.policy.max_ratio > packed {
                return Err(beyond(format!(
                    "a file that becomes more than {} times larger when it is unpacked",
                    self.policy.max_ratio
                )));
            }
            // What it is may stand at its end.
            kept.extend_from_slice(&chunk[..length]);
        }
        self.content(name, &kept, at.nesting, at.depth)
    }
}

/// Where an archive lies.
struct Place<'n> {
    name: &'n str,
    nesting: usize,
    depth: usize,
}
