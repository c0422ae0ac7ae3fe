//! App passwords: each lets one program of a user submit mail from outside, and do nothing else.
//!
//! They are made here, never chosen, so that none is guessed: eight letters that say which one it is, then 100 bits. Kept as
//! Argon2id hashes in `users.db`, or carried in the users credential as lines `address:app:name:id:{ARGON2ID}hash`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use argon2::password_hash::rand_core::{OsRng, RngCore as _};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{passwords, users};

/// Of 32, so that five bits are a letter; none that is taken for another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Letters that tell a user's app passwords apart; Dovecot's query takes as many.
const ID: usize = 8;
const SECRET: usize = 20;
/// Characters of a name.
const NAME: usize = 60;

/// An app password as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppPassword {
    pub(crate) address: String,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) password: String,
}

/// Makes one for a user of `db` and prints it, this once.
pub(crate) fn add(db: &Path, address: &str, name: &str) -> Result<()> {
    let (shown, kept) = new(address, name)?;
    let refusal = users::change(db, None, |connection| {
        let user = "SELECT 1 FROM users WHERE address = ?1";
        if !exists(connection, user, &[&kept.address])? {
            return Ok(Some(format!("there is no user {}: add him first", kept.address)));
        }
        let same = "SELECT 1 FROM app_passwords WHERE address = ?1 AND name = ?2";
        if exists(connection, same, &[&kept.address, &kept.name])? {
            return Ok(Some(format!(
                "{} has an app password named {}: choose another name, or remove that one",
                kept.address, kept.name
            )));
        }
        put(connection, &kept, false)?;
        Ok(None)
    })?;
    if let Some(why) = refusal {
        bail!(why);
    }
    println!("{shown}");
    eprintln!(
        "This is shown once. It lets {} submit mail from outside, with the user name {}, and nothing else.",
        kept.name, kept.address
    );
    Ok(())
}

/// Prints one on standard error, and its line for the users credential on standard output.
pub(crate) fn hash(address: &str, name: &str) -> Result<()> {
    let (shown, kept) = new(address, name)?;
    println!("{}", line(&kept));
    eprintln!("{shown}\nThis is shown once; the line above goes into the users credential.");
    Ok(())
}

/// Prints the names, not the passwords.
pub(crate) fn list(db: &Path, address: &str) -> Result<()> {
    let address = users::address(address)?;
    let names = users::change(db, None, |connection| {
        let mut query =
            connection.prepare("SELECT name FROM app_passwords WHERE address = ?1 ORDER BY name")?;
        let names = query.query_map([&address], |row| row.get::<_, String>(0))?;
        names.collect::<rusqlite::Result<Vec<_>>>()
    })?;
    for name in names {
        println!("{name}");
    }
    Ok(())
}

/// From now on it is refused.
pub(crate) fn remove(db: &Path, address: &str, name: &str) -> Result<()> {
    let address = users::address(address)?;
    let removed = users::change(db, None, |connection| {
        connection.execute(
            "DELETE FROM app_passwords WHERE address = ?1 AND name = ?2",
            [address.as_str(), name],
        )
    })?;
    if removed == 0 {
        bail!("{address} has no app password named {name}: `postern user app-password list` shows the names");
    }
    println!("{address} has no app password named {name} any more");
    Ok(())
}

/// Reads the fields of a line of the users credential; `None` where it is no app password's.
pub(crate) fn parse(line: &str) -> Option<Result<AppPassword>> {
    let fields: Vec<&str> = line.split(':').collect();
    let [address, "app", name, id, password] = fields.as_slice() else {
        return None;
    };
    Some(parsed(address, name, id, password))
}

fn parsed(address: &str, name: &str, id: &str, password: &str) -> Result<AppPassword> {
    let well_formed = id.len() == ID && id.bytes().all(|letter| ALPHABET.contains(&letter));
    if !well_formed || !passwords::is_hash(password) {
        bail!(
            "this is not what `postern user app-password hash {address} NAME` prints: make the line anew with it"
        );
    }
    Ok(AppPassword {
        address: users::address(address)?,
        name: checked_name(name)?,
        id: id.to_owned(),
        password: password.to_owned(),
    })
}

/// Those of the credential take the place of those of the credential before; what was added on the node stays.
pub(crate) fn import(connection: &Connection, all: &[AppPassword]) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM app_passwords WHERE credential", [])?;
    all.iter().try_for_each(|one| put(connection, one, true))
}

fn put(connection: &Connection, one: &AppPassword, credential: bool) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO app_passwords (address, id, name, password, credential) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![one.address, one.id, one.name, one.password, credential],
        )
        .map(drop)
}

fn exists(connection: &Connection, query: &str, keys: &[&str]) -> rusqlite::Result<bool> {
    let found = connection.query_row(query, rusqlite::params_from_iter(keys), |_| Ok(()));
    found.optional().map(|found| found.is_some())
}

fn line(one: &AppPassword) -> String {
    format!("{}:app:{}:{}:{}", one.address, one.name, one.id, one.password)
}

/// The password, and what is kept of it.
fn new(address: &str, name: &str) -> Result<(String, AppPassword)> {
    let (address, name) = (users::address(address)?, checked_name(name)?);
    let id = letters(ID);
    let secret = letters(SECRET);
    let shown = format!(
        "{id}-{}-{}-{}-{}",
        &secret[..5],
        &secret[5..10],
        &secret[10..15],
        &secret[15..]
    );
    let password = passwords::hash(&shown).context("the app password cannot be hashed")?;
    let kept = AppPassword {
        address,
        name,
        id,
        password,
    };
    Ok((shown, kept))
}

fn letters(count: usize) -> String {
    let mut octets = vec![0; count];
    OsRng.fill_bytes(&mut octets);
    octets
        .iter()
        .map(|octet| char::from(ALPHABET[usize::from(octet % 32)]))
        .collect()
}

fn checked_name(name: &str) -> Result<String> {
    let fits = (1..=NAME).contains(&name.chars().count())
        && name.trim() == name
        && !name.chars().any(|c| c == ':' || c.is_control());
    if !fits {
        bail!(
            "`{name}` cannot name an app password: use 1 to {NAME} characters without a colon, such as \"phone\""
        );
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credential_reads_back_what_hash_prints() {
        let (shown, kept) = new("Alice@example.org", "phone").unwrap();
        assert_eq!(parse(&line(&kept)).unwrap().unwrap(), kept);
        assert!(shown.starts_with(&kept.id) && shown.len() == ID + SECRET + 4);
        assert_eq!(kept.address, "alice@example.org");
        let (other, _) = new("alice@example.org", "phone").unwrap();
        assert_ne!(shown, other);
    }

    #[test]
    fn a_users_line_is_none_and_a_wrong_one_is_told_without_its_secret() {
        assert!(parse("alice@example.org:{ARGON2ID}x:1").is_none());
        for wrong in [
            "alice@example.org:app:phone:abcdefgh:hunter2",
            "alice@example.org:app:phone:' OR '1':hunter2",
        ] {
            let error = format!("{:#}", parse(wrong).unwrap().unwrap_err());
            assert!(
                error.contains("app-password hash") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn names_are_for_people() {
        for name in ["", " x", "a:b", "a\nb"] {
            assert!(checked_name(name).is_err(), "{name:?}");
        }
        assert!(checked_name("Ann's phone").is_ok());
    }
}
