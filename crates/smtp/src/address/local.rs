//! Local parts: dot-string or quoted-string (RFC 5321 section 4.1.2), with UTF-8 (RFC 6531 section 3.3).

use std::fmt::{self, Write as _};

use super::{AddressError, MAX_LOCAL};

/// Takes a local part from the front; gives it unquoted, and what follows (which begins with `@` if all is well).
pub(super) fn take(text: &str) -> Result<(String, &str), AddressError> {
    let (local, used) = if text.starts_with('"') {
        take_quoted(text)?
    } else {
        take_dot_string(text)?
    };
    if used > MAX_LOCAL {
        return Err(AddressError::LocalTooLong);
    }
    Ok((local, &text[used..]))
}

/// Shows a local part, in quotes only where the grammar needs them.
pub(super) fn write_quoted(local: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if is_dot_string(local) {
        return f.write_str(local);
    }
    f.write_char('"')?;
    for character in local.chars() {
        if matches!(character, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
    }
    f.write_char('"')
}

fn take_dot_string(text: &str) -> Result<(String, usize), AddressError> {
    let end = text
        .find(|c: char| !(is_atext(c) || c == '.'))
        .unwrap_or(text.len());
    let local = &text[..end];
    if is_dot_string(local) {
        Ok((local.to_owned(), end))
    } else {
        Err(AddressError::LocalPart)
    }
}

fn take_quoted(text: &str) -> Result<(String, usize), AddressError> {
    let mut local = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((local, at + 1)),
            '\\' => match characters.next() {
                Some((_, escaped @ ' '..='~')) => local.push(escaped),
                _ => return Err(AddressError::LocalPart),
            },
            c if is_quotable(c) => local.push(c),
            _ => return Err(AddressError::LocalPart),
        }
    }
    Err(AddressError::LocalPart)
}

fn is_dot_string(text: &str) -> bool {
    text.split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_printable_utf8(c)
}

fn is_quotable(c: char) -> bool {
    (' '..='~').contains(&c) || is_printable_utf8(c)
}

/// Non-ASCII, but not the C1 controls, which RFC 6531 allows and no honest address holds.
fn is_printable_utf8(c: char) -> bool {
    !c.is_ascii() && !c.is_control()
}
