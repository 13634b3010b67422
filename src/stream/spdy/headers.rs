//! Header blocks: name and value pairs, compressed with zlib and SPDY/3's dictionary.
//!
//! One compressor and one decompressor a connection, shared by all its streams, each block ending in a
//! sync flush (draft 3.1, section 2.6.10). What a block may become is bounded before it is inflated.

use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::frame::FrameError;

/// The longest block taken, inflated. client-go sends three short headers.
const LARGEST: usize = 64 * 1024;
const MOST: usize = 256;

/// The words of the dictionary, each preceded there by its length; then this text as it is.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base \
    content-encoding content-language content-length content-location content-md5 content-range \
    content-type date etag expect expires from host if-match if-modified-since if-none-match if-range \
    if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
    proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public \
    set-cookie keep-alive origin";
const TEXT: &str = "1001012012022052063003023033043053063074024054064074084094104114124134144154164175025\
    04505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 \
    Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service \
    UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, \
    Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,\
    text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,\
    utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS.split_whitespace() {
        // The one entry with a space in it.
        let word = word.replace('_', " ");
        dictionary.extend_from_slice(&(word.len() as u32).to_be_bytes());
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(TEXT.as_bytes());
    dictionary
});

/// A stream's headers: names in lower case, one value each.
pub type Headers = Vec<(String, String)>;

pub struct Deflater(Compress);

impl Deflater {
    pub fn new() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&DICTIONARY).expect("a new compressor takes a dictionary");
        Self(compress)
    }

    pub fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            self.0
                .compress_vec(&plain[done..], &mut block, FlushCompress::Sync)
                .expect("compressing cannot fail once it has begun");
            if block.len() < block.capacity() {
                return block;
            }
            block.reserve(256);
        }
    }
}

pub struct Inflater(Decompress);

impl Inflater {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Must see every block of the connection in its order, wanted or not.
    pub fn headers(&mut self, block: &[u8]) -> Result<Headers, FrameError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut plain = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            let rest = block.get(done..).unwrap_or_default();
            match self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(_) if plain.len() < plain.capacity() => return Ok(plain),
                Ok(_) if plain.len() >= LARGEST => return Err(FrameError::Large),
                Ok(_) => plain.reserve(plain.len()),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| FrameError::Compression)?;
                }
                Err(_) => return Err(FrameError::Compression),
            }
        }
    }
}

fn parse(mut plain: &[u8]) -> Result<Headers, FrameError> {
    let count = take_length(&mut plain)?;
    if count > MOST {
        return Err(FrameError::Large);
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let name = take_text(&mut plain)?.to_ascii_lowercase();
        let mut value = take_text(&mut plain)?;
        // Several values are one, with zeros between; the first is the one asked for.
        if let Some(end) = value.find('\0') {
            value.truncate(end);
        }
        headers.push((name, value));
    }
    Ok(headers)
}

fn take_length(plain: &mut &[u8]) -> Result<usize, FrameError> {
    let (length, rest) = plain.split_first_chunk().ok_or(FrameError::Headers)?;
    *plain = rest;
    Ok(u32::from_be_bytes(*length) as usize)
}

fn take_text(plain: &mut &[u8]) -> Result<String, FrameError> {
    let length = take_length(plain)?;
    let (text, rest) = plain.split_at_checked(length).ok_or(FrameError::Headers)?;
    *plain = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_drafts() {
        assert_eq!(DICTIONARY.len(), 1423);
        let block = Deflater::new().block(&[]);
        // zlib's header, then the checksum of the dictionary that a peer must have too.
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn blocks_survive_the_connection_in_order() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        for number in 0..200 {
            let value = format!("{number}{}", "x".repeat(number * 30));
            let block = deflater.block(&[("streamtype", "data"), ("requestid", &value)]);
            let headers = inflater.headers(&block).unwrap();
            assert_eq!(headers[0], ("streamtype".into(), "data".into()));
            assert_eq!(headers[1], ("requestid".into(), value));
        }
        assert!(inflater.headers(&deflater.block(&[])).unwrap().is_empty());
    }

    #[test]
    fn a_block_that_grows_without_end_is_refused() {
        let zeros = "0".repeat(4 << 20);
        let block = Deflater::new().block(&[("a", &zeros)]);
        assert!(block.len() < 64 * 1024, "it fits a control frame");
        assert_eq!(Inflater::new().headers(&block), Err(FrameError::Large));
        let many: Vec<(&str, &str)> = vec![("a", ""); 257];
        assert_eq!(Inflater::new().headers(&Deflater::new().block(&many)), Err(FrameError::Large));
    }

    #[test]
    fn lengths_that_lie_and_other_dictionaries_are_refused() {
        let mut plain = 1u32.to_be_bytes().to_vec();
        assert_eq!(parse(&plain), Err(FrameError::Headers));
        plain.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(parse(&plain), Err(FrameError::Headers));
        assert_eq!(Inflater::new().headers(b"not zlib"), Err(FrameError::Compression));
        let mut block = Deflater::new().block(&[("a", "b")]);
        block[3] ^= 1;
        assert_eq!(Inflater::new().headers(&block), Err(FrameError::Compression));
        assert_eq!(Inflater::new().headers(&[]), Err(FrameError::Headers));
    }
}
