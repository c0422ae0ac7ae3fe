//! Transfer encodings (RFC 2045 section 6), read as the most lenient program would.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Letters that are decoded at a time, so that they are not all there a second time. Whole groups of four.
const PIECE: usize = 4096;

/// What `text` decodes to when all that is not base64 is skipped, and whether there was nothing to skip: programs differ in whether
/// they skip, stop or give up there.
pub(super) fn base64(text: &[u8]) -> (Vec<u8>, bool) {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let mut letters = Vec::with_capacity(PIECE);
    let (mut clean, mut ended) = (true, false);
    for &octet in text {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => {
                clean &= !ended;
                letters.push(octet);
                if letters.len() == PIECE {
                    decode(&letters, &mut decoded);
                    letters.clear();
                }
            }
            b'=' => ended = true,
            b'\r' | b'\n' | b' ' | b'\t' => {}
            _ => clean = false,
        }
    }
    // A single letter over is not an octet.
    letters.truncate(letters.len() - usize::from(letters.len() % 4 == 1));
    decode(&letters, &mut decoded);
    (decoded, clean)
}

/// Nothing but letters, and never one too many: that decodes.
fn decode(letters: &[u8], decoded: &mut Vec<u8>) {
    let _ = LENIENT.decode_vec(letters, decoded);
}

/// What `text` decodes to; what is no escape stays as it is.
pub(super) fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        if octet != b'=' {
            decoded.push(octet);
        } else if let Some(next) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
            rest = next;
        } else if let [high, low, next @ ..] = rest
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            decoded.push(high << 4 | low);
            rest = next;
        } else {
            decoded.push(octet);
        }
    }
    decoded
}

fn digit(octet: u8) -> Option<u8> {
    char::from(octet)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_over_what_is_none() {
        assert_eq!(base64(b"TVqQ\r\nAAM=\r\n"), (b"MZ\x90\0\x03".to_vec(), true));
        assert_eq!(base64(b"TV!qQ"), (b"MZ\x90".to_vec(), false));
        assert_eq!(base64(b"TVo=TVo="), (base64(b"TVoTVo").0, false));
        assert_eq!(base64(b"TVqQA"), (b"MZ\x90".to_vec(), true));
        assert_eq!(base64(b""), (Vec::new(), true));
        // Longer than what is decoded at a time, with line ends that fall anywhere in a group.
        let lines = "TVqQAAMB\r\nA\r\n".repeat(PIECE / 5) + "TQE=";
        let letters: String = lines.chars().filter(char::is_ascii_alphanumeric).collect();
        assert_eq!(base64(lines.as_bytes()).0, LENIENT.decode(letters).unwrap());
    }

    #[test]
    fn quoted_printable_keeps_what_is_no_escape() {
        assert_eq!(quoted_printable(b"M=5A=\r\n=3d=3D =zz="), b"MZ== =zz=");
    }
}
