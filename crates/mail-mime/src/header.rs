//! The fields of a header that something is made of. The others, such as the trail of `Received`
//! fields, are often the longer part of a header, and only passed over.

use std::sync::LazyLock;

use mail_parser::{HeaderName, Message, MessageParser};

static PARSER: LazyLock<MessageParser> = LazyLock::new(|| {
    MessageParser::new()
        .with_mime_headers()
        .with_address_headers()
        .with_message_ids()
        .header_comma_separated(HeaderName::ContentLanguage)
        .header_text(HeaderName::Subject)
        .default_header_ignore()
});

/// Reads a header; none where there is not one field.
pub(crate) fn read(header: &[u8]) -> Option<Message<'_>> {
    PARSER.parse_headers(header)
}
