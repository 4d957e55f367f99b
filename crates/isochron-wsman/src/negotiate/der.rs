//! The little of ASN.1's DER that SPNEGO needs: elements with one byte of tag, whose
//! length is said in up to three bytes.

use super::NegotiateError;

/// An element that is read: its tag and its content.
pub(super) struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
}

/// Takes an element off the beginning.
pub(super) fn take<'a>(rest: &mut &'a [u8]) -> Result<Element<'a>, NegotiateError> {
    let short = || NegotiateError::Malformed("it is cut short");
    let (&tag, after) = rest.split_first().ok_or_else(short)?;
    let (&first, mut after) = after.split_first().ok_or_else(short)?;
    let length = match first {
        0..=0x7f => usize::from(first),
        0x81 | 0x82 => {
            let count = usize::from(first & 0x7f);
            let (bytes, behind) = after.split_at_checked(count).ok_or_else(short)?;
            after = behind;
            bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte))
        }
        _ => return Err(NegotiateError::Malformed("a length is too long")),
    };
    let (content, after) = after.split_at_checked(length).ok_or_else(short)?;
    *rest = after;
    Ok(Element { tag, content })
}

/// The content of the only element, which has this tag.
pub(super) fn only(mut bytes: &[u8], tag: u8) -> Result<&[u8], NegotiateError> {
    let element = take(&mut bytes)?;
    match element.tag == tag && bytes.is_empty() {
        true => Ok(element.content),
        false => Err(NegotiateError::Malformed("it has not the form of SPNEGO")),
    }
}

/// Writes an element.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        length => {
            let bytes = length.to_be_bytes();
            let leading = bytes.iter().take_while(|byte| **byte == 0).count();
            let bytes = &bytes[leading..];
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}
