//! Files on stable storage, whole or not at all: write beside, flush, then take the place of the old in one step.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Name, permission bits and contents of the files of one directory.
pub(crate) type Contents = BTreeMap<String, (u32, Vec<u8>)>;

/// Reads a text file; the error names it.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a file that may not be there.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Puts `contents` at `path` atomically and durably; the directory must exist.
pub(crate) fn write(path: &Path, mode: u32, contents: &[u8]) -> Result<()> {
    let staged = stage(path, mode, contents)?;
    commit(&staged, path)?;
    sync_parent(path)
}

/// Puts several files in place: none is touched before all are safely on disk beside their places.
pub(crate) fn write_all(files: &[(PathBuf, u32, Vec<u8>)]) -> Result<()> {
    let mut staged = Vec::new();
    for (path, mode, contents) in files {
        match stage(path, *mode, contents) {
            Ok(beside) => staged.push((beside, path)),
            Err(error) => {
                for (beside, _) in &staged {
                    drop(fs::remove_file(beside));
                }
                return Err(error);
            }
        }
    }
    for (beside, path) in staged {
        commit(&beside, path)?;
        sync_parent(path)?;
    }
    Ok(())
}

fn stage(path: &Path, mode: u32, contents: &[u8]) -> Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let beside = path.with_file_name(name);
    let what = || format!("cannot write {}", path.display());
    write_new(&beside, mode, contents)
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .with_context(what)?;
    Ok(beside)
}

fn write_new(path: &Path, mode: u32, contents: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // The umask has had its say in open(2); the mode is what was asked for.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    file.sync_all()
}

fn commit(staged: &Path, path: &Path) -> Result<()> {
    fs::rename(staged, path).with_context(|| format!("cannot put {} in place", path.display()))
}

/// Lets a file that was written beside take the place of `path`, durably.
pub(crate) fn take_place(beside: &Path, path: &Path) -> Result<()> {
    File::open(beside)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("cannot flush {}", beside.display()))?;
    commit(beside, path)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    sync(parent)
}

/// Flushes a directory, so that its names survive a power cut.
pub(crate) fn sync(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|d| d.sync_all())
        .with_context(|| format!("cannot flush {}", directory.display()))
}

/// Makes a directory with its parents; its own permission bits are `mode`, also if it was there.
pub(crate) fn directory(path: &Path, mode: u32) -> Result<()> {
    let attempt = || {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    attempt().with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Makes a directory with its parents and leaves one that is there as it is.
pub(crate) fn directory_if_missing(path: &Path) -> Result<()> {
    if path.is_dir() {
        Ok(())
    } else {
        directory(path, 0o755)
    }
}

/// Makes `contents` all that `path` holds, in one step that a power cut cannot halve. Returns false, having written
/// nothing, where it holds exactly that already.
pub(crate) fn replace_directory(path: &Path, mode: u32, contents: &Contents) -> Result<bool> {
    stage_directory(path, mode, contents)?.commit(None)
}

/// A directory written whole and flushed beside its place; absent where the place holds exactly that already.
pub(crate) struct StagedDirectory {
    path: PathBuf,
    beside: Option<PathBuf>,
}

/// Writes `contents` beside `path`. All that can fail for want of room fails here, before anything is changed.
pub(crate) fn stage_directory(path: &Path, mode: u32, contents: &Contents) -> Result<StagedDirectory> {
    let path = path.to_owned();
    if holds(&path, contents)? {
        return Ok(StagedDirectory { path, beside: None });
    }
    let beside = sibling(&path, ".new");
    remove_directory(&beside)?;
    directory(&beside, mode)?;
    for (name, (mode, data)) in contents {
        write_new(&beside.join(name), *mode, data)
            .with_context(|| format!("cannot write {}", path.join(name).display()))?;
    }
    sync(&beside)?;
    Ok(StagedDirectory {
        path,
        beside: Some(beside),
    })
}

impl StagedDirectory {
    /// Puts it in place. What was there goes to `previous` if that is given. Returns whether anything changed.
    pub(crate) fn commit(self, previous: Option<&Path>) -> Result<bool> {
        let Self {
            path,
            beside: Some(beside),
        } = self
        else {
            return Ok(false);
        };
        let swapped = if path.exists() {
            renameat2(AT_FDCWD, &beside, AT_FDCWD, &path, RenameFlags::RENAME_EXCHANGE)
                .map_err(io::Error::from)
        } else {
            fs::rename(&beside, &path)
        };
        swapped.with_context(|| format!("cannot put {} in place", path.display()))?;
        sync_parent(&path)?;
        if let Some(previous) = previous
            && beside.exists()
        {
            remove_directory(previous)?;
            fs::rename(&beside, previous).with_context(|| format!("cannot keep {}", previous.display()))?;
        }
        remove_directory(&beside)?;
        Ok(true)
    }
}

fn holds(path: &Path, contents: &Contents) -> Result<bool> {
    if !path.is_dir() {
        return Ok(false);
    }
    let count = fs::read_dir(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .count();
    for (name, (_, data)) in contents {
        if read_if_there(&path.join(name))?.as_ref() != Some(data) {
            return Ok(false);
        }
    }
    Ok(count == contents.len())
}

pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Numbers of the user and group called `name` in the image under `root`; none where the image has no such user.
pub(crate) fn user_ids(root: &Path, name: &str) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string(root.join("etc/passwd")).ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Gives `path` to a user and group by number.
pub(crate) fn give(path: &Path, user: u32, group: u32) -> Result<()> {
    chown(path, Some(user), Some(group))
        .with_context(|| format!("cannot give {} to user {user}, group {group}", path.display()))
}
