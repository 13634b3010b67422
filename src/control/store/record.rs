//! One line of the log: a change as it lies on disk.
//!
//! `flags:u8 create:u64 revision_at:u32 bucket:u16 key:u16` big-endian, then bucket, key and value. The
//! revision itself is the record's key in the engine.

use bytes::Bytes;

use super::Revision;

const HEAD: usize = 1 + 8 + 4 + 2 + 2;
const DELETED: u8 = 1;

/// One change of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub revision: Revision,
    pub create_revision: Revision,
    pub deleted: bool,
    pub bucket: String,
    pub key: String,
    pub value: Bytes,
    pub revision_at: usize,
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.bucket.len() + self.key.len() + self.value.len());
        out.push(if self.deleted { DELETED } else { 0 });
        out.extend_from_slice(&self.create_revision.to_be_bytes());
        out.extend_from_slice(&(self.revision_at as u32).to_be_bytes());
        out.extend_from_slice(&(self.bucket.len() as u16).to_be_bytes());
        out.extend_from_slice(&(self.key.len() as u16).to_be_bytes());
        out.extend_from_slice(self.bucket.as_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(&self.value);
        out
    }

    /// Reads a record back; `None` if the bytes are not one.
    pub fn decode(revision: Revision, bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let create_revision = u64::from_be_bytes(head[1..9].try_into().ok()?);
        let revision_at = u32::from_be_bytes(head[9..13].try_into().ok()?) as usize;
        let bucket_end = HEAD + u16::from_be_bytes(head[13..15].try_into().ok()?) as usize;
        let key_end = bucket_end + u16::from_be_bytes(head[15..17].try_into().ok()?) as usize;
        let value = Bytes::copy_from_slice(bytes.get(key_end..)?);
        let digits = revision.to_string();
        // The digits in place are the record's own check: a torn or foreign record does not have them.
        if value.get(revision_at..revision_at + digits.len())? != digits.as_bytes() {
            return None;
        }
        Some(Self {
            revision,
            create_revision,
            deleted: head[0] & DELETED != 0,
            bucket: String::from_utf8(bytes[HEAD..bucket_end].to_vec()).ok()?,
            key: String::from_utf8(bytes.get(bucket_end..key_end)?.to_vec()).ok()?,
            value,
            revision_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_torn_one_does_not() {
        let record = Record {
            revision: 42,
            create_revision: 7,
            deleted: true,
            bucket: "/registry/pods/".into(),
            key: "default/web".into(),
            value: Bytes::from_static(b"{\"rv\":\"42\"}"),
            revision_at: 7,
        };
        let bytes = record.encode();
        assert_eq!(Record::decode(42, &bytes), Some(record));
        for cut in 0..bytes.len() - 2 {
            assert_eq!(Record::decode(42, &bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(Record::decode(43, &bytes), None);
    }
}
