//! The little XML that the service speaks: written by hand, read by a parser.

use arcadia_kernel::Fault;
use quick_xml::Reader;
use quick_xml::events::Event;

use crate::faults;

pub(crate) const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>";
/// Most blocks that a blob is made of.
pub(crate) const BLOCKS_MAX: usize = 50_000;

/// Text as it stands in elements and attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    write_escaped(&mut out, text);
    out
}

fn write_escaped(out: &mut String, text: &str) {
    let stands_for_itself =
        |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'&' | b'<' | b'>' | b'"');
    // Most names and values, of which a list has thousands.
    if text.bytes().all(stands_for_itself) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A parser would make a line feed of it.
            '\r' => out.push_str("&#13;"),
            // Have no form in XML 1.0.
            '\u{fffe}' | '\u{ffff}' => out.push(' '),
            c if c.is_control() && c != '\n' && c != '\t' => out.push(' '),
            c => out.push(c),
        }
    }
}

/// `<name>text</name>`, or `<name />` for an empty text.
pub(crate) fn element(out: &mut String, name: &str, text: &str) {
    out.push('<');
    out.push_str(name);
    if text.is_empty() {
        out.push_str(" />");
        return;
    }
    out.push('>');
    write_escaped(out, text);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// Where a block of a list is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Committed,
    Uncommitted,
    Latest,
}

/// Reads the body of Put Block List. A body without a list is no empty list: that would make the blob empty.
pub(crate) fn block_list(body: &[u8]) -> Result<Vec<(From, String)>, Fault> {
    let refused = || {
        let message = "The XML specified is not syntactically valid or is not a block list.";
        Fault::bad_request("InvalidXmlDocument", message)
    };
    let text = std::str::from_utf8(body).map_err(|_| refused())?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut blocks = Vec::new();
    let mut has_root = false;
    let mut depth = 0;
    let mut open: Option<(From, String)> = None;
    loop {
        match reader.read_event().map_err(|_| refused())? {
            Event::Start(tag) => {
                depth += 1;
                match (depth, tag.name().as_ref()) {
                    (1, "BlockList") if !has_root => has_root = true,
                    (2, name) => open = Some((from(name).ok_or_else(refused)?, String::new())),
                    _ => return Err(refused()),
                }
            }
            Event::Text(part) => match &mut open {
                Some((_, id)) => id.push_str(&part),
                None if part.trim().is_empty() => {}
                None => return Err(refused()),
            },
            // Block ids are Base64, whose characters a client may still write as references.
            Event::GeneralRef(reference) => {
                let c = reference.resolve_char_ref().ok().flatten().ok_or_else(refused)?;
                open.as_mut().ok_or_else(refused)?.1.push(c);
            }
            Event::End(_) => {
                depth -= 1;
                if let Some((from, id)) = open.take() {
                    blocks.push((from, id.trim().to_owned()));
                }
                if blocks.len() > BLOCKS_MAX {
                    let message = "The block list may not contain more than 50,000 blocks.";
                    return Err(Fault::bad_request("BlockListTooLong", message));
                }
            }
            Event::Empty(tag) if depth == 0 && !has_root && tag.name().as_ref() == "BlockList" => {
                has_root = true
            }
            Event::Empty(_) if depth > 0 => return Err(faults::invalid_block_list()),
            Event::Eof if depth == 0 && has_root => return Ok(blocks),
            Event::Empty(_) | Event::Eof | Event::DocType(_) | Event::CData(_) | Event::PI(_) => {
                return Err(refused());
            }
            Event::Decl(_) | Event::Comment(_) => {}
        }
    }
}

fn from(name: &str) -> Option<From> {
    match name {
        "Committed" => Some(From::Committed),
        "Uncommitted" => Some(From::Uncommitted),
        "Latest" => Some(From::Latest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_lists_are_read_in_order() {
        let body = "\u{feff}<?xml version='1.0' encoding='utf-8'?>\n<BlockList>\n <Latest>YQ==</Latest><Committed>Yg&#61;=\
                    </Committed><Uncommitted> YQ== </Uncommitted></BlockList>";
        let read = block_list(body.as_bytes()).unwrap();
        let expected = [(From::Latest, "YQ=="), (From::Committed, "Yg=="), (From::Uncommitted, "YQ==")];
        assert_eq!(read, expected.map(|(from, id)| (from, id.to_owned())));
        assert!(block_list(b"<BlockList></BlockList>").unwrap().is_empty());
        assert!(block_list(b"<BlockList/>").unwrap().is_empty());
        assert!(block_list(b"<!-- none --><BlockList />\n<!-- at all -->\n").unwrap().is_empty());
    }

    #[test]
    fn other_documents_are_refused() {
        for body in [
            "<BlockList><Latest>a</Latest>",
            "<Other></Other>",
            "<BlockList><Other>a</Other></BlockList>",
            "<BlockList><Latest><Latest>a</Latest></Latest></BlockList>",
            "<BlockList>x</BlockList>",
            "<BlockList><Latest/></BlockList>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><BlockList><Latest>&b;</Latest></BlockList>",
            "<BlockList><Latest>&b;</Latest></BlockList>",
            "</BlockList>",
            "\u{0}",
            // Without a list.
            "",
            " \r\n",
            "\u{feff}",
            "<?xml version='1.0' encoding='utf-8'?>",
            "\u{feff}<?xml version='1.0' encoding='utf-8'?>\n",
            "<!-- <BlockList/> -->",
            "<Other/>",
            // With two.
            "<BlockList/><BlockList/>",
            "<BlockList></BlockList><BlockList></BlockList>",
            "<BlockList/><BlockList><Latest>a</Latest></BlockList>",
            "<BlockList><Latest>a</Latest></BlockList><BlockList/>",
            "<BlockList/><Other/>",
        ] {
            assert!(block_list(body.as_bytes()).is_err(), "{body}");
        }
        let long = format!("<BlockList>{}</BlockList>", "<Latest>a</Latest>".repeat(BLOCKS_MAX + 1));
        assert_eq!(block_list(long.as_bytes()).unwrap_err().code, "BlockListTooLong");
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a>&\"b\"\r\u{1}\u{ffff}"), "&lt;a&gt;&amp;&quot;b&quot;&#13;  ");
    }

    proptest::proptest! {
        #[test]
        fn no_body_is_too_strange(body: Vec<u8>, text in "<BlockList>(<Latest>|</Latest>|[a<>&;/!?'\" -]){0,20}") {
            let _ = block_list(&body);
            let _ = block_list(text.as_bytes());
        }
    }
}
