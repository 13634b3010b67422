//! A remote command's SPDY as it passes by, followed so far that it can be ended with a word.
//!
//! client-go takes the end of a connection for success: a command over SPDY whose kubelet or API server goes
//! away would exit 0. So whoever stands between follows the frames, notes whether the kubelet has said how the
//! command ended, and if it has not, says on the error stream that nobody knows. Upstream has nothing like it.

use bytes::{BufMut, Bytes, BytesMut};

use super::super::spdy::frame::{self, Control, FrameError, HEAD, Head};
use super::super::spdy::headers::Inflater;
use super::{Outcome, V4, V5};

/// A command has five streams; whoever opens many more is not followed.
const MOST_STREAMS: usize = 64;

/// The frames of one direction, however they are cut.
#[derive(Default)]
struct Frames {
    /// A head, or a control frame, that has not come whole.
    held: BytesMut,
    /// The data frame that is being passed: its stream, whether it is the stream's last, what is left of it.
    data: Option<(u32, bool, usize)>,
}

/// A piece of what came.
enum Piece<'a> {
    /// Of a data frame; `fin` with the last piece of a stream's last.
    Data { id: u32, fin: bool, bytes: &'a [u8] },
    /// Whole, head and all.
    Control { kind: u16, flags: u8, frame: Bytes },
}

impl Frames {
    /// Cuts the next piece off `bytes`; nothing when what is there is held until more comes.
    fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        if let Some((id, fin, left)) = self.data.take() {
            if bytes.is_empty() && left > 0 {
                self.data = Some((id, fin, left));
                return Ok(None);
            }
            let (piece, rest) = bytes.split_at(left.min(bytes.len()));
            *bytes = rest;
            let left = left - piece.len();
            if left > 0 {
                self.data = Some((id, fin, left));
            }
            return Ok(Some(Piece::Data { id, fin: fin && left == 0, bytes: piece }));
        }
        if !self.hold(bytes, HEAD) {
            return Ok(None);
        }
        match Head::parse(self.held[..HEAD].try_into().map_err(|_| FrameError::Truncated)?)? {
            Head::Data { id, fin, len } => {
                self.held.clear();
                self.data = Some((id, fin, len));
                self.next(bytes)
            }
            Head::Control { kind, flags, len } => {
                if !self.hold(bytes, HEAD + len) {
                    return Ok(None);
                }
                Ok(Some(Piece::Control { kind, flags, frame: self.held.split().freeze() }))
            }
        }
    }

    /// Takes from `bytes` until so much is held.
    fn hold(&mut self, bytes: &mut &[u8], size: usize) -> bool {
        let missing = size.saturating_sub(self.held.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(missing);
        self.held.extend_from_slice(taken);
        *bytes = rest;
        self.held.len() >= size
    }
}

/// What the client sends: which streams there are. The bytes go on as they came.
pub struct FromClient {
    frames: Frames,
    inflater: Inflater,
    streams: Vec<u32>,
    error: Option<u32>,
    /// Nothing of it is understood any more.
    lost: bool,
}

impl FromClient {
    pub fn new() -> Self {
        Self {
            frames: Frames::default(),
            inflater: Inflater::new(),
            streams: Vec::new(),
            error: None,
            lost: false,
        }
    }

    pub fn follow(&mut self, bytes: &[u8]) {
        if !self.lost && self.look(bytes).is_err() {
            // It is the kubelet's to complain.
            self.lost = true;
        }
    }

    fn look(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        while let Some(piece) = self.frames.next(&mut bytes)? {
            let Piece::Control { kind, flags, frame } = piece else { continue };
            match Control::parse(kind, flags, &frame[HEAD..])? {
                Control::SynStream { id, block, .. } => {
                    let headers = self.inflater.headers(block)?;
                    if headers.iter().any(|(name, value)| name == "streamtype" && value == "error") {
                        self.error = Some(id);
                    }
                    if self.streams.len() >= MOST_STREAMS {
                        return Err(FrameError::Large);
                    }
                    self.streams.push(id);
                }
                Control::Headers { block, .. } => drop(self.inflater.headers(block)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// The stream of errors, and all.
    pub fn streams(&self) -> Option<(u32, Vec<u32>)> {
        Some((self.error?, self.streams.clone()))
    }
}

/// What the kubelet sends. Data frames go on in the pieces they come in, each a frame of its own, so that what
/// was passed on is whole frames at any time.
#[derive(Default)]
pub struct FromKubelet {
    frames: Frames,
    told: Vec<u32>,
    lost: bool,
}

impl FromKubelet {
    /// Puts what may go on now into `out`.
    pub fn pass(&mut self, mut bytes: &[u8], out: &mut BytesMut) {
        while !self.lost {
            match self.frames.next(&mut bytes) {
                Ok(Some(Piece::Data { id, fin, bytes })) => {
                    if (fin || !bytes.is_empty())
                        && !self.told.contains(&id)
                        && self.told.len() < MOST_STREAMS
                    {
                        self.told.push(id);
                    }
                    frame::put_data(out, id, fin, bytes);
                }
                Ok(Some(Piece::Control { frame, .. })) => out.extend_from_slice(&frame),
                Ok(None) => return,
                Err(_) => {
                    self.lost = true;
                    out.extend_from_slice(&self.frames.held.split());
                }
            }
        }
        out.put_slice(bytes);
    }

    /// Whether the client has heard something on a stream, or cannot be told any more.
    pub fn has_said(&self, stream: u32) -> bool {
        self.lost || self.told.contains(&stream)
    }
}

/// The frames that end a command nobody knows the outcome of. `protocol` is what both agreed on.
pub fn last_word(error: u32, streams: &[u32], protocol: &str, why: &str) -> Bytes {
    let mut out = BytesMut::new();
    let text = Outcome::Error(why.to_owned()).encode(matches!(protocol, V5 | V4));
    frame::put_data(&mut out, error, true, &text);
    for id in streams.iter().filter(|id| **id != error) {
        frame::put_data(&mut out, *id, true, &[]);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::super::super::spdy::headers::Deflater;
    use super::*;

    fn opened() -> BytesMut {
        let (mut out, mut deflater) = (BytesMut::new(), Deflater::new());
        for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
            let block = deflater.block(&[("streamtype", kind)]);
            frame::put_syn_stream(&mut out, id, &block);
        }
        frame::put_data(&mut out, 3, false, &[7; 5000]);
        out
    }

    #[test]
    fn streams_are_known_however_the_bytes_are_cut() {
        for size in [1, 3, 8, 100, 100_000] {
            let mut from = FromClient::new();
            opened().chunks(size).for_each(|piece| from.follow(piece));
            assert_eq!(from.streams(), Some((1, vec![1, 3, 5])), "{size}");
        }
    }

    #[test]
    fn nonsense_is_passed_on_and_no_longer_followed() {
        let mut from = FromClient::new();
        from.follow(&[0x80, 9, 0, 1, 0, 0, 0, 0]);
        from.follow(&opened());
        assert_eq!(from.streams(), None);
        let (mut kubelet, mut out) = (FromKubelet::default(), BytesMut::new());
        for piece in [&[0x80, 9, 0, 1][..], &[0, 0, 0, 0, 1, 2], &[3]] {
            kubelet.pass(piece, &mut out);
        }
        assert_eq!(out[..], [0x80, 9, 0, 1, 0, 0, 0, 0, 1, 2, 3]);
        assert!(kubelet.has_said(1));
    }

    #[test]
    fn what_was_passed_on_is_whole_frames_and_the_same_bytes() {
        let mut sent = BytesMut::new();
        frame::put_ping(&mut sent, 2);
        frame::put_data(&mut sent, 5, false, &[9; 1000]);
        frame::put_data(&mut sent, 5, true, &[]);
        for size in [1, 7, 500, 5000] {
            let (mut kubelet, mut all) = (FromKubelet::default(), BytesMut::new());
            for piece in sent.chunks(size) {
                let mut out = BytesMut::new();
                kubelet.pass(piece, &mut out);
                all.extend_from_slice(&out);
                // It can be read as frames, to the last byte.
                let (mut frames, mut rest) = (Frames::default(), &all[..]);
                while frames.next(&mut rest).unwrap().is_some() {}
                assert!(frames.held.is_empty() && frames.data.is_none(), "{size}");
            }
            let (mut frames, mut rest, mut data, mut fins) = (Frames::default(), &all[..], 0, 0);
            while let Some(piece) = frames.next(&mut rest).unwrap() {
                if let Piece::Data { id, fin, bytes } = piece {
                    assert_eq!(id, 5);
                    data += bytes.len();
                    fins += usize::from(fin);
                }
            }
            assert_eq!((data, fins), (1000, 1), "{size}");
            assert!(kubelet.has_said(5) && !kubelet.has_said(1));
        }
    }
}
