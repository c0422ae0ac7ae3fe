//! Passwords: read without echo, kept only as Argon2id hashes (RFC 9106) in the form that Dovecot reads.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};
use argon2::password_hash::{PasswordHash, PasswordHasher as _, SaltString, rand_core::OsRng};
use argon2::{Algorithm, Argon2, Params, Version};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

/// Dovecot's mark for the scheme.
pub(crate) const SCHEME: &str = "{ARGON2ID}";
/// 19 MiB, 2 passes, 1 lane: OWASP's first choice for Argon2id; a login server answers many at once.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;

/// Hashes a password with a new salt.
pub(crate) fn hash(password: &str) -> Result<String> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|e| anyhow::anyhow!("Argon2: {e}"))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let salt = SaltString::generate(&mut OsRng);
    let hash = argon2
        .hash_password(password.as_bytes(), &salt)
        .map_err(|e| anyhow::anyhow!("Argon2: {e}"))?;
    Ok(format!("{SCHEME}{hash}"))
}

/// Whether `text` is an Argon2id hash with Dovecot's mark.
pub(crate) fn is_hash(text: &str) -> bool {
    text.strip_prefix(SCHEME).is_some_and(|hash| {
        PasswordHash::new(hash).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id" && hash.hash.is_some())
    })
}

/// The password: asked for twice at a terminal, otherwise the first line of standard input.
pub(crate) fn read() -> Result<String> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        let first = ask("Password: ")?;
        if first != ask("Again: ")? {
            bail!("the two passwords differ: nothing was changed, try again");
        }
        first
    } else {
        line()?
    };
    if password.is_empty() {
        bail!("the password is empty: type one, or give it as the first line of standard input");
    }
    Ok(password)
}

fn line() -> Result<String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("cannot read the password from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask(prompt: &str) -> Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    eprint!("{prompt}");
    io::stderr().flush().context("cannot write to the terminal")?;
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent).context("cannot switch off the terminal's echo")?;
    let answer = line();
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &before).context("cannot switch the terminal's echo on again")?;
    eprintln!();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::PasswordVerifier as _;

    #[test]
    fn a_hash_verifies_its_own_password_only() {
        let hashed = hash("correct horse").unwrap();
        assert!(is_hash(&hashed));
        assert!(
            !hashed.contains(':'),
            "the colon separates fields of the users credential"
        );
        let parsed = PasswordHash::new(hashed.strip_prefix(SCHEME).unwrap()).unwrap();
        assert!(
            Argon2::default()
                .verify_password(b"correct horse", &parsed)
                .is_ok()
        );
        assert!(
            Argon2::default()
                .verify_password(b"wrong horse", &parsed)
                .is_err()
        );
        assert_ne!(
            hashed,
            hash("correct horse").unwrap(),
            "each hash has its own salt"
        );
    }

    #[test]
    fn other_schemes_are_not_hashes() {
        for text in [
            "",
            "secret",
            "{PLAIN}secret",
            "{ARGON2ID}secret",
            "{ARGON2ID}$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
        ] {
            assert!(!is_hash(text), "{text}");
        }
    }
}
