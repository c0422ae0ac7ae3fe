//! `users.db`: mailbox users and aliases, as Dovecot's queries in the rendered `dovecot.conf` read them; and the
//! users credential, one user a line: `address:{ARGON2ID}hash:quota`. Lines of app passwords may stand between them.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, params};

use crate::app_passwords::{self, AppPassword};
use crate::{files, passwords};

/// 1 GiB.
pub(crate) const DEFAULT_QUOTA: u64 = 1 << 30;

/// Rollback journal, not a write-ahead log: Dovecot opens the file read-only and could not make the log's files.
const SCHEMA: &str = "
    PRAGMA journal_mode = DELETE;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS users (
        address  TEXT PRIMARY KEY,
        password TEXT,                                  -- {ARGON2ID}…; NULL: receives, never logs in
        quota    INTEGER NOT NULL CHECK (quota > 0)     -- octets
    ) STRICT;
    CREATE TABLE IF NOT EXISTS aliases (
        address TEXT PRIMARY KEY,
        target  TEXT NOT NULL                           -- users.address
    ) STRICT;
    CREATE TABLE IF NOT EXISTS app_passwords (
        address    TEXT NOT NULL,                       -- users.address
        id         TEXT NOT NULL,                       -- what the password begins with
        name       TEXT NOT NULL,
        password   TEXT NOT NULL,                       -- {ARGON2ID}…
        credential INTEGER NOT NULL,                    -- came with the users credential, and goes with it
        PRIMARY KEY (address, id)
    ) STRICT;
";

/// A user of the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) address: String,
    pub(crate) password: String,
    pub(crate) quota: u64,
}

/// Lower case, with a local part and a domain that can be a directory's name each.
pub(crate) fn address(text: &str) -> Result<String> {
    let lower = text.to_ascii_lowercase();
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
    };
    match lower.split_once('@') {
        Some((local, domain)) if plain(local) && plain(domain) && domain.contains('.') => Ok(lower),
        _ => bail!(
            "`{text}` cannot be a mailbox's address: use letters, digits, dots, hyphens and underscores before the @ and a domain after it, such as alice@example.org"
        ),
    }
}

pub(crate) fn add(db: &Path, name: &str, quota: u64) -> Result<()> {
    let address = address(name)?;
    let user = User {
        password: passwords::hash(&passwords::read()?)?,
        address,
        quota,
    };
    change(db, None, |connection| {
        put_users(connection, std::slice::from_ref(&user))
    })?;
    println!("{} is a user in {}", user.address, db.display());
    Ok(())
}

pub(crate) fn hash(name: &str, quota: u64) -> Result<()> {
    let address = address(name)?;
    println!("{address}:{}:{quota}", passwords::hash(&passwords::read()?)?);
    Ok(())
}

/// Reads the users credential.
pub(crate) fn parse(text: &str) -> Result<(Vec<User>, Vec<AppPassword>)> {
    let (mut users, mut app_passwords) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate().map(|(n, l)| (n + 1, l.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("postern.users, line {number}");
        if let Some(app_password) = app_passwords::parse(line) {
            app_passwords.push(app_password.with_context(at)?);
            continue;
        }
        let user = parse_line(line).with_context(at)?;
        users.push(user);
    }
    Ok((users, app_passwords))
}

fn parse_line(line: &str) -> Result<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, password, quota] = fields.as_slice() else {
        bail!("not three fields: `postern user hash ADDRESS` prints such a line");
    };
    if !passwords::is_hash(password) {
        bail!("the password of {name} is not an Argon2id hash: `postern user hash {name}` prints one");
    }
    match quota.parse() {
        Ok(quota) if (1..=i64::MAX as u64).contains(&quota) => Ok(User {
            address: address(name)?,
            password: (*password).to_owned(),
            quota,
        }),
        _ => bail!("`{quota}` is not a quota: write a number of octets, such as {DEFAULT_QUOTA}"),
    }
}

/// What the users credential holds, if one was handed over.
pub(crate) type Given = Option<(Vec<User>, Vec<AppPassword>)>;

/// What the site itself wants in the database: its postmaster, and the addresses of RFC 2142 that every domain has.
pub(crate) struct Wanted {
    pub(crate) postmaster: String,
    pub(crate) domains: Vec<String>,
}

/// Brings `db` up to date for a site: users are added or changed, none is removed; aliases become exactly the
/// site's, and app passwords of a credential exactly those of this one. `owner` is user and group number and applies before the new file takes its place.
/// Returns the addresses that cannot log in because they have no password.
pub(crate) fn import(
    db: &Path,
    given: &Given,
    wanted: &Wanted,
    owner: Option<(u32, u32)>,
) -> Result<Vec<String>> {
    change(db, owner, |connection| {
        if let Some((users, app_passwords)) = given {
            put_users(connection, users)?;
            app_passwords::import(connection, app_passwords)?;
        }
        connection.execute(
            "INSERT INTO users (address, quota) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![wanted.postmaster, DEFAULT_QUOTA],
        )?;
        connection.execute("DELETE FROM aliases", [])?;
        for domain in &wanted.domains {
            for name in ["postmaster", "abuse"] {
                connection.execute(
                    "INSERT INTO aliases (address, target) SELECT ?1, ?2 WHERE ?1 NOT IN (SELECT address FROM users)",
                    params![format!("{name}@{domain}"), wanted.postmaster],
                )?;
            }
        }
        let mut silent =
            connection.prepare("SELECT address FROM users WHERE password IS NULL ORDER BY address")?;
        let list = silent.query_map([], |row| row.get(0))?;
        list.collect()
    })
}

fn put_users(connection: &Connection, users: &[User]) -> rusqlite::Result<()> {
    for user in users {
        connection.execute(
            "INSERT INTO users (address, password, quota) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET password = excluded.password, quota = excluded.quota",
            params![user.address, user.password, user.quota],
        )?;
    }
    Ok(())
}

/// Changes a copy of the database in one transaction, then puts the copy in the database's place.
pub(crate) fn change<T>(
    db: &Path,
    owner: Option<(u32, u32)>,
    change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T> {
    let beside = files::sibling(db, ".new");
    let result = change_copy(db, &beside, owner, change);
    if result.is_err() {
        drop(std::fs::remove_file(&beside));
    }
    result.with_context(|| format!("cannot change {}", db.display()))
}

fn change_copy<T>(
    db: &Path,
    beside: &Path,
    owner: Option<(u32, u32)>,
    change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T> {
    let before = files::read_if_there(db)?.unwrap_or_default();
    // The journal of a change that a power cut broke off belongs to a copy that is gone.
    drop(std::fs::remove_file(files::sibling(beside, "-journal")));
    files::write(beside, 0o640, &before)?;
    let mut connection = Connection::open(beside)?;
    connection
        .execute_batch(SCHEMA)
        .context("it is not a users database: move it away, a new one is made")?;
    let transaction = connection.transaction()?;
    let result = change(&transaction)?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    if let Some((user, group)) = owner {
        files::give(beside, user, group)?;
    }
    files::take_place(beside, db)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            postmaster: "postmaster@example.org".into(),
            domains: vec!["example.org".into(), "example.net".into()],
        }
    }

    #[test]
    fn the_credential_reads_back_what_hash_prints() {
        let hash = passwords::hash("x").unwrap();
        let text = format!("# staff\n\nAlice@Example.org:{hash}:5000\n");
        let user = User {
            address: "alice@example.org".into(),
            password: hash,
            quota: 5000,
        };
        assert_eq!(parse(&text).unwrap(), (vec![user], vec![]));
    }

    #[test]
    fn a_wrong_line_is_named_and_its_password_is_not_shown() {
        let error = format!("{:#}", parse("\nalice@example.org:hunter2:1").unwrap_err());
        assert!(
            error.contains("line 2") && error.contains("postern user hash"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
        for line in [
            "alice",
            "alice@example.org:{ARGON2ID}x:1",
            "../alice@example.org:x:1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn addresses_that_could_leave_their_directory_are_refused() {
        for text in [
            "alice",
            "@example.org",
            "a/b@example.org",
            "../x@example.org",
            "a@..",
            "a@b@example.org",
            "a b@example.org",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_import_adds_and_changes_but_never_removes() {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("users.db");
        let user = |address: &str, quota| User {
            address: address.into(),
            password: passwords::hash("x").unwrap(),
            quota,
        };
        let silent = import(
            &db,
            &Some((
                vec![user("alice@example.org", 1), user("bob@example.org", 2)],
                vec![],
            )),
            &wanted(),
            None,
        )
        .unwrap();
        assert_eq!(silent, ["postmaster@example.org"]);
        import(
            &db,
            &Some((vec![user("bob@example.org", 3)], vec![])),
            &wanted(),
            None,
        )
        .unwrap();
        let connection = Connection::open(&db).unwrap();
        let quota = |address: &str| -> u64 {
            connection
                .query_row("SELECT quota FROM users WHERE address = ?1", [address], |r| {
                    r.get(0)
                })
                .unwrap()
        };
        assert_eq!((quota("alice@example.org"), quota("bob@example.org")), (1, 3));
        let aliases: Vec<String> = connection
            .prepare("SELECT address FROM aliases ORDER BY address")
            .unwrap()
            .query_map([], |r| r.get(0))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        assert_eq!(
            aliases,
            ["abuse@example.net", "abuse@example.org", "postmaster@example.net"]
        );
        let left: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["users.db"]);
    }

    #[test]
    fn a_file_that_is_no_database_stays_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("users.db");
        std::fs::write(
            &db,
            "not a database, and long enough that SQLite looks at its header".repeat(20),
        )
        .unwrap();
        let before = std::fs::read(&db).unwrap();
        let error = format!("{:#}", import(&db, &None, &wanted(), None).unwrap_err());
        assert!(
            error.contains("users.db") && error.contains("move it away"),
            "{error}"
        );
        assert_eq!(std::fs::read(&db).unwrap(), before);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
