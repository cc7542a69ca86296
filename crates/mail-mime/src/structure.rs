//! The tree of parts (RFC 2045, RFC 2046), with the place of each one's bytes.
//!
//! An entity is a header, an empty line and a body. A multipart's body is cut at its boundary lines
//! into entities, an embedded message's body is one entity. The outer cut comes first, so whatever
//! an inner part claims, it never reaches beyond its own bytes.
//!
//! Each level is read once by each level above it. A message that nests to make this costly runs out
//! of its allowance, and what lies deeper stays one piece, marked as truncated.

use std::ops::Range;

use dag_api::mailbox::v1::{BodyParameter, BodyPart, Envelope};
use mail_parser::{ContentType, HeaderValue, Message, MimeHeaders as _};

use crate::{envelope, header, limits, lines};

/// Bytes of a part's header that are read.
const PART_HEADER_BYTES: usize = 16 << 10;
/// Bytes of one parameter or description that are kept.
const TEXT_BYTES: usize = 998;
/// Parameters of a field that are kept.
const PARAMETERS: usize = 16;
/// How often the message's bytes may be read in search of boundaries.
const ALLOWANCE: usize = 12;

/// The tree of a message's parts. Offsets count from the message's first byte.
pub fn structure(message: &[u8]) -> BodyPart {
    read(message).0
}

/// The tree, and the envelope of the message itself.
pub(crate) fn read(message: &[u8]) -> (BodyPart, Envelope) {
    let allowance = message.len().saturating_mul(ALLOWANCE);
    let mut reading = Reading { message, parts: 0, allowance };
    let whole = Entity::begin(message, 0..message.len(), limits::HEADER_BYTES);
    let envelope = whole.envelope();
    (reading.part(whole, String::new(), 0), envelope)
}

/// A header, an empty line and a body.
struct Entity<'m> {
    range: Range<usize>,
    /// Where the body begins.
    body: usize,
    header: Option<Message<'m>>,
}

impl<'m> Entity<'m> {
    /// Finds the body, and reads the header up to so many bytes.
    fn begin(message: &'m [u8], range: Range<usize>, header_bytes: usize) -> Self {
        let body = range.start + header_length(&message[range.clone()]);
        let header = &message[range.start..body.min(range.start + header_bytes)];
        Self { range, body, header: header::read(header) }
    }

    fn envelope(&self) -> Envelope {
        self.header.as_ref().map(envelope::of_header).unwrap_or_default()
    }
}

struct Reading<'m> {
    message: &'m [u8],
    parts: usize,
    allowance: usize,
}

impl<'m> Reading<'m> {
    fn inner(&self, range: Range<usize>) -> Entity<'m> {
        Entity::begin(self.message, range, PART_HEADER_BYTES)
    }

    fn part(&mut self, entity: Entity<'_>, section: String, depth: usize) -> BodyPart {
        self.parts += 1;
        let mut part = BodyPart {
            header_offset: entity.range.start as u64,
            body_offset: entity.body as u64,
            end_offset: entity.range.end as u64,
            ..entity.header.as_ref().map(described).unwrap_or_default()
        };
        if part.r#type.is_empty() {
            part.r#type = "text".into();
            part.subtype = "plain".into();
        }
        if part.encoding.is_empty() {
            part.encoding = "7bit".into();
        }
        let body = entity.body..entity.range.end;
        self.descend(&mut part, entity.header.as_ref(), body, &section, depth);
        part.section = section;
        part
    }

    fn descend(
        &mut self,
        part: &mut BodyPart,
        header: Option<&Message<'_>>,
        body: Range<usize>,
        section: &str,
        depth: usize,
    ) {
        let is_embedded = is_embedded(part);
        if part.r#type != "multipart" && !is_embedded {
            if part.r#type == "text" {
                part.lines = self.lines(body);
            }
            return;
        }
        let is_affordable = self.allowance >= body.len();
        if depth >= limits::DEPTH || self.parts >= limits::PARTS || !is_affordable {
            part.truncated = true;
            return;
        }
        self.allowance -= body.len();
        if is_embedded {
            part.lines = self.lines(body.clone());
            let inner = self.inner(body);
            part.envelope = Some(envelope::bounded(inner.envelope()));
            let inner = self.part(inner, section.to_owned(), depth + 1);
            part.parts.push(inner);
            return;
        }
        let boundary = header.and_then(|header| header.content_type());
        let boundary = boundary.and_then(|kind| kind.attribute("boundary")).unwrap_or_default();
        for range in pieces(self.message, body, boundary.as_bytes()) {
            if self.parts >= limits::PARTS {
                part.truncated = true;
                return;
            }
            let number = part.parts.len() + 1;
            let section = match section {
                "" => number.to_string(),
                above => format!("{above}.{number}"),
            };
            let inner = self.inner(range);
            part.parts.push(self.part(inner, section, depth + 1));
        }
    }

    fn lines(&self, body: Range<usize>) -> u64 {
        lines::count(&self.message[body]) as u64
    }
}

/// Whether its body is a message of its own that can be looked into: an encoded one cannot.
fn is_embedded(part: &BodyPart) -> bool {
    let is_message = part.r#type == "message" && matches!(&*part.subtype, "rfc822" | "global");
    is_message && matches!(&*part.encoding, "7bit" | "8bit" | "binary")
}

/// Bytes of the header with the empty line that ends it. Without one, all is header; where the first
/// line is no field, all is body.
fn header_length(entity: &[u8]) -> usize {
    let mut at = 0;
    for line in lines::of(entity) {
        let is_empty = matches!(line, b"\n" | b"\r\n");
        at += line.len();
        if is_empty {
            return at;
        }
    }
    at
}

/// The bytes between boundary lines. The line end before a boundary belongs to the boundary
/// (RFC 2046 5.1.1). Without a last boundary, the last piece reaches to the end.
fn pieces(message: &[u8], body: Range<usize>, boundary: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if boundary.is_empty() {
        return found;
    }
    let mut begin = None;
    let mut at = body.start;
    for line in lines::of(&message[body.clone()]) {
        let next = at + line.len();
        if let Some(is_last) = boundary_line(line, boundary) {
            if let Some(begin) = begin {
                found.push(begin..without_line_end(message, begin, at));
            }
            if is_last {
                return found;
            }
            begin = Some(next);
            if found.len() >= limits::PARTS {
                return found;
            }
        }
        at = next;
    }
    found.extend(begin.map(|begin| begin..body.end));
    found
}

/// Whether a line is a boundary; `Some(true)` for the last one.
fn boundary_line(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    let (is_last, rest) = match rest.strip_prefix(b"--") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    rest.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).then_some(is_last)
}

fn without_line_end(message: &[u8], begin: usize, end: usize) -> usize {
    let piece = &message[begin..end];
    let piece = piece.strip_suffix(b"\n").unwrap_or(piece);
    let piece = piece.strip_suffix(b"\r").unwrap_or(piece);
    begin + piece.len()
}

fn described(header: &Message<'_>) -> BodyPart {
    let kind = header.content_type();
    let disposition = header.content_disposition();
    BodyPart {
        r#type: kind.map(|kind| lower(&kind.c_type)).unwrap_or_default(),
        subtype: kind.and_then(|kind| kind.subtype()).map(lower).unwrap_or_default(),
        parameters: kind.map(parameters).unwrap_or_default(),
        content_id: text(header.content_id()),
        description: text(header.content_description()),
        encoding: header
            .content_transfer_encoding()
            .map(|name| lower(name.trim()))
            .unwrap_or_default(),
        disposition: disposition.map(|kind| lower(&kind.c_type)).unwrap_or_default(),
        disposition_parameters: disposition.map(parameters).unwrap_or_default(),
        languages: languages(header.content_language()),
        location: text(header.content_location()),
        ..BodyPart::default()
    }
}

fn languages(value: &HeaderValue<'_>) -> Vec<String> {
    match value {
        HeaderValue::Text(language) => vec![envelope::cut(language, TEXT_BYTES)],
        HeaderValue::TextList(languages) => {
            languages.iter().take(PARAMETERS).map(|one| envelope::cut(one, TEXT_BYTES)).collect()
        }
        _ => Vec::new(),
    }
}

fn parameters(kind: &ContentType<'_>) -> Vec<BodyParameter> {
    let attributes = kind.attributes().unwrap_or_default().iter().take(PARAMETERS);
    let parameter = |attribute: &mail_parser::Attribute<'_>| BodyParameter {
        name: lower(&attribute.name),
        value: envelope::cut(&attribute.value, TEXT_BYTES),
    };
    attributes.map(parameter).collect()
}

fn lower(text: &str) -> String {
    envelope::cut(text, TEXT_BYTES).to_ascii_lowercase()
}

fn text(text: Option<&str>) -> String {
    text.map(|text| envelope::cut(text, TEXT_BYTES)).unwrap_or_default()
}
