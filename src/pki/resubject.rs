//! Certificates for subjects that rcgen cannot write: its names hold one value of a kind, and somebody who
//! belongs to two groups has two organizations. Such a certificate is made without its subject, given the
//! request's own, and signed once more.

use rcgen::SigningKey;

use super::PkiError;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// The subject among a certificate's parts: version, serial number, algorithm, issuer, validity, subject.
const SUBJECT: usize = 5;

/// The same certificate for another subject (a `Name` in DER).
pub(super) fn with_subject(cert: &[u8], subject: &[u8], key: &impl SigningKey) -> Result<Vec<u8>, PkiError> {
    let broken = || PkiError::Certificate("not a certificate of ours".into());
    let parts = children(cert).ok_or_else(broken)?;
    let [body, algorithm, _] = parts.as_slice() else { return Err(broken()) };
    let mut fields = children(body).ok_or_else(broken)?;
    *fields.get_mut(SUBJECT).ok_or_else(broken)? = subject;
    let body = element(SEQUENCE, &fields.concat());
    let mut signature = vec![0];
    signature.extend(key.sign(&body).map_err(PkiError::Generate)?);
    Ok(element(SEQUENCE, &[&body, *algorithm, &element(BIT_STRING, &signature)].concat()))
}

/// The elements inside the element that these bytes begin with.
fn children(der: &[u8]) -> Option<Vec<&[u8]>> {
    let (head, length) = measured(der)?;
    let mut rest = der.get(head..head + length)?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (head, length) = measured(rest)?;
        let (one, after) = rest.split_at_checked(head.checked_add(length)?)?;
        found.push(one);
        rest = after;
    }
    Some(found)
}

/// How long an element's head is, and what follows it.
fn measured(der: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*der.get(1)?);
    if first < 0x80 {
        return Some((2, first));
    }
    let digits = der.get(2..2 + (first & 0x7f))?;
    if digits.len() > 4 {
        return None;
    }
    let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    Some((2 + digits.len(), length))
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => der.push(short),
        _ => {
            let digits = content.len().to_be_bytes();
            let kept: Vec<u8> = digits.into_iter().skip_while(|digit| *digit == 0).collect();
            der.push(0x80 | kept.len() as u8);
            der.extend(kept);
        }
    }
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_taken_apart_and_put_together_whatever_their_length() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let inner = element(0x04, &vec![7; length]);
            let outer = element(SEQUENCE, &[inner.clone(), inner.clone()].concat());
            assert_eq!(children(&outer).unwrap(), [&inner[..], &inner[..]], "{length}");
            assert_eq!(children(&outer[..outer.len() - 1]), None);
        }
        assert_eq!(children(&[]), None);
        assert_eq!(children(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
