//! Spellings of a known secret, and their search in a text.

use super::HIDDEN;

/// Fewest characters of a part of a secret that are taken for it.
const PART: usize = 8;
const PART_IN_DATA: usize = 16;

/// Use of a text, which decides how much may be taken for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Read by people: rather too much than too little.
    Shown,
    /// Settings and reports in files: no usual placeholder.
    Stored,
    /// Data: whole secrets of some length, or long parts.
    Data,
}

/// A secret with the spellings in which it is looked for.
pub(super) struct Known {
    value: Vec<u8>,
    /// Spellings that no rule for single characters finds: base64 at its three alignments, hexadecimal.
    encoded: Vec<Vec<u8>>,
    /// Whether a part of it is taken for it: not of a text with words, such as a connection string.
    has_parts: bool,
    /// Whether it is a placeholder of servers that need no key.
    is_placeholder: bool,
}

impl Known {
    pub(super) fn new(value: &str, is_placeholder: bool) -> Self {
        let bytes = value.as_bytes();
        let mut encoded = Vec::new();
        if bytes.len() >= PART {
            for alphabet in [STANDARD, URL_SAFE] {
                encoded.extend((0..3).map(|shift| base64(bytes, shift, alphabet)));
            }
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            encoded.extend([hex.to_ascii_uppercase().into_bytes(), hex.into_bytes()]);
        }
        Self {
            value: bytes.to_vec(),
            encoded,
            has_parts: !value.contains([';', ' ']) && !value.contains("://"),
            is_placeholder,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.value.len()
    }

    pub(super) fn is(&self, value: &str) -> bool {
        self.value == value.as_bytes()
    }

    /// `text` without the secret; `None` if it is not there.
    pub(super) fn removed_from(&self, text: &str, of: Use) -> Option<String> {
        let part = if of == Use::Data { PART_IN_DATA } else { PART };
        if (self.is_placeholder && of != Use::Shown) || (self.value.len() < PART && of == Use::Data) {
            return None;
        }
        let bytes = text.as_bytes();
        let (mut clean, mut kept, mut at) = (String::new(), 0, 0);
        while at < bytes.len() {
            match self.found_at(&bytes[at..], part).filter(|length| text.is_char_boundary(at + length)) {
                Some(length) if text.is_char_boundary(at) => {
                    clean.push_str(&text[kept..at]);
                    clean.push_str(HIDDEN);
                    at += length;
                    kept = at;
                }
                _ => at += 1,
            }
        }
        (kept > 0).then(|| clean + &text[kept..])
    }

    /// Length of the secret, or of a part of it, at the start of `text`.
    fn found_at(&self, text: &[u8], part: usize) -> Option<usize> {
        let encoded = self.encoded.iter().find(|form| text.starts_with(form));
        if let Some(form) = encoded {
            return Some(form.len());
        }
        if text.starts_with(&self.value) {
            return Some(self.value.len());
        }
        let least = if self.has_parts { part.min(self.value.len()) } else { self.value.len() };
        let runs = (0..=self.value.len() - least).map(|start| run(text, &self.value[start..]));
        runs.filter(|(characters, _)| *characters >= least).map(|(_, length)| length).max()
    }
}

/// Bytes of `secret` at the start of `text`, in whatever spelling, and the length of the text that spells them.
fn run(text: &[u8], secret: &[u8]) -> (usize, usize) {
    let (mut count, mut at) = (0, 0);
    for byte in secret {
        let Some(length) = spelled(&text[at..], *byte) else { break };
        (count, at) = (count + 1, at + length);
    }
    (count, at)
}

/// Length of `byte` at the start of `text`: itself, or an escape of URLs, JSON, Rust or HTML.
fn spelled(text: &[u8], byte: u8) -> Option<usize> {
    let first = *text.first()?;
    if first == byte {
        // An escaped per cent sign is longer than itself.
        return Some(escaped(text, byte).unwrap_or(1));
    }
    matches!(first, b'%' | b'\\' | b'&').then(|| escaped(text, byte)).flatten()
}

fn escaped(text: &[u8], byte: u8) -> Option<usize> {
    let hex = |from: usize, digits: usize| {
        let digits = std::str::from_utf8(text.get(from..from + digits)?).ok()?;
        u32::from_str_radix(digits, 16).ok().filter(|value| *value == u32::from(byte))
    };
    match text {
        [b'%', b'2', b'5', ..] if hex(3, 2).is_some() => Some(5),
        [b'%', ..] => hex(1, 2).map(|_| 3),
        [b'\\', b'\\', b'u', ..] => hex(3, 4).map(|_| 7),
        [b'\\', b'u', b'{', ..] => {
            let end = text.iter().take(12).position(|byte| *byte == b'}')?;
            hex(3, end - 3).map(|_| end + 1)
        }
        [b'\\', b'u', ..] => hex(2, 4).map(|_| 6),
        [b'\\', b'x', ..] => hex(2, 2).map(|_| 4),
        [b'\\', next, ..] if *next == byte && !byte.is_ascii_alphanumeric() => Some(2),
        [b'&', ..] => entity(text, byte),
        _ => None,
    }
}

/// Length of an entity of HTML that stands for `byte`.
fn entity(text: &[u8], byte: u8) -> Option<usize> {
    const NAMES: [(&str, u8); 5] = [("amp", b'&'), ("lt", b'<'), ("gt", b'>'), ("quot", b'"'), ("apos", b'\'')];
    let end = text.iter().take(10).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&text[1..end]).ok()?;
    let number = match name.strip_prefix('#') {
        Some(hex) if hex.starts_with(['x', 'X']) => u32::from_str_radix(&hex[1..], 16).ok(),
        Some(number) => number.parse().ok(),
        None => NAMES.iter().find(|(known, _)| *known == name).map(|(_, value)| u32::from(*value)),
    };
    (number? == u32::from(byte)).then_some(end + 1)
}

const STANDARD: [u8; 2] = *b"+/";
const URL_SAFE: [u8; 2] = *b"-_";

/// The characters of base64 that `bytes` alone decide where `shift` other bytes stand before them.
fn base64(bytes: &[u8], shift: usize, last: [u8; 2]) -> Vec<u8> {
    let character = |value: usize| match value {
        0..26 => b'A' + value as u8,
        26..52 => b'a' + (value - 26) as u8,
        52..62 => b'0' + (value - 52) as u8,
        62 => last[0],
        _ => last[1],
    };
    let bits = |at: usize| -> usize {
        let bit = |bit: usize| (bytes[bit / 8 - shift] >> (7 - bit % 8)) & 1;
        (at * 6..at * 6 + 6).fold(0, |value, at| value << 1 | usize::from(bit(at)))
    };
    let first = (shift * 8).div_ceil(6);
    let end = (shift + bytes.len()) * 8 / 6;
    (first..end).map(|at| character(bits(at))).collect()
}

/// Bytes in base64.
pub(super) fn base64_of(bytes: &[u8]) -> String {
    let fill = (3 - bytes.len() % 3) % 3;
    let padded = [bytes, &[0; 2][..fill]].concat();
    let text: String = base64(&padded, 0, STANDARD).into_iter().map(char::from).collect();
    format!("{}{}", &text[..text.len() - fill], &"=="[..fill])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_found_at_every_alignment() {
        // base64.b64encode(b"xx" + b"secret-key-1")
        assert_eq!(base64(b"secret-key-1", 0, STANDARD), b"c2VjcmV0LWtleS0x");
        for (shift, whole) in [(1, "eHNlY3JldC1rZXktMQ=="), (2, "eHhzZWNyZXQta2V5LTE=")] {
            let part = String::from_utf8(base64(b"secret-key-1", shift, STANDARD)).unwrap();
            assert!(whole.contains(&part) && part.len() >= 14, "{whole} {part}");
        }
    }

    #[test]
    fn text_around_a_secret_stays_as_it_is() {
        let known = Known::new("pässwörd-1", false);
        assert_eq!(known.removed_from("äpässwörd-1é", Use::Shown).unwrap(), "ä[key]é");
        assert_eq!(known.removed_from("p%C3%A4ssw%c3%b6rd-1", Use::Shown).unwrap(), "[key]");
        assert_eq!(known.removed_from("nothing % \\ & here \\u00", Use::Shown), None);
    }
}
