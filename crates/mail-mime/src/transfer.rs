//! Content-Transfer-Encodings (RFC 2045 6), read as leniently as mail needs it.

/// An encoding that nobody can undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownEncoding;

/// The bytes behind an encoding, by its name in lower case.
pub fn decode(encoding: &str, bytes: &[u8]) -> Result<Vec<u8>, UnknownEncoding> {
    match encoding {
        "" | "7bit" | "8bit" | "binary" => Ok(bytes.to_vec()),
        "base64" => Ok(base64(bytes)),
        "quoted-printable" => Ok(quoted_printable(bytes)),
        _ => Err(UnknownEncoding),
    }
}

/// Letters that do not belong are passed over (RFC 2045 6.8); padding ends it.
fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in bytes {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 1;
        if count == 4 {
            decoded.extend_from_slice(&bits.to_be_bytes()[1..]);
            (bits, count) = (0, 0);
        }
    }
    match count {
        2 => decoded.push((bits >> 4) as u8),
        3 => decoded.extend_from_slice(&((bits >> 2) as u16).to_be_bytes()),
        _ => {}
    }
    decoded
}

/// What is no escape stays as it is; blanks at a line's end go (RFC 2045 6.7).
fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let end = &line[text.len()..];
        let text = text.trim_ascii_end();
        let (text, end) = match text.strip_suffix(b"=") {
            Some(text) => (text, &b""[..]),
            None => (text, end),
        };
        unescape(text, &mut decoded);
        decoded.extend_from_slice(end);
    }
    decoded
}

fn unescape(text: &[u8], into: &mut Vec<u8>) {
    let mut at = 0;
    while at < text.len() {
        let escaped = text[at..].strip_prefix(b"=").and_then(|rest| rest.get(..2));
        let byte = escaped.and_then(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
        match byte {
            Some(byte) => {
                into.push(byte);
                at += 3;
            }
            None => {
                into.push(text[at]);
                at += 1;
            }
        }
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_reads_what_mail_has() {
        for (encoded, expected) in [
            ("SGVsbG8=", "Hello"),
            ("SGVs\r\nbG8", "Hello"),
            ("SGVsbG8h!?", "Hello!"),
            ("", ""),
            ("S", ""),
            ("QQ==QQ==", "A"),
        ] {
            assert_eq!(base64(encoded.as_bytes()), expected.as_bytes(), "{encoded}");
        }
    }

    #[test]
    fn quoted_printable_reads_what_mail_has() {
        for (encoded, expected) in [
            ("a=3Db", "a=b"),
            ("long =\r\nline", "long line"),
            ("caf=C3=A9  \r\nx", "café\r\nx"),
            ("50% = half =zz =4", "50% = half =zz =4"),
        ] {
            let decoded = String::from_utf8(quoted_printable(encoded.as_bytes())).expect("UTF-8");
            assert_eq!(decoded, expected, "{encoded}");
        }
    }

    #[test]
    fn an_encoding_that_is_not_known_is_said_to_be() {
        assert_eq!(decode("x-uuencode", b"x"), Err(UnknownEncoding));
        assert_eq!(decode("8bit", b"\xff\0"), Ok(b"\xff\0".to_vec()));
    }
}
