//! Lines of a message, each with its end. Every byte of a message is looked at here, so it is done
//! many bytes at a time.

/// The lines; the last one may lack its end.
pub(crate) fn of(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', bytes).map(|at| at + 1);
    let rest = (!bytes.is_empty() && !bytes.ends_with(b"\n")).then_some(bytes.len());
    ends.chain(rest).map(move |end| &bytes[std::mem::replace(&mut begin, end)..end])
}

/// How many there are.
pub(crate) fn count(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
        + usize::from(bytes.last().is_some_and(|byte| *byte != b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_one_line() {
        for bytes in [&b""[..], b"\n", b"a", b"a\n", b"a\r\nb", b"\n\n", b"a\n\nb\n"] {
            let lines: Vec<&[u8]> = of(bytes).collect();
            let expected: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
            assert_eq!(lines, expected);
            assert_eq!(count(bytes), lines.len());
        }
    }
}
