//! Frames: four bytes of length, big-endian, and so many bytes of JSON.

use std::io;

use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::io::AsyncRead;
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::codec::{Encoder as _, FramedRead, LengthDelimitedCodec};

/// The longest frame before both ends know each other, in bytes, inclusive.
pub(super) const GREETING_BYTES: usize = 4 * 1024;

/// Reads frames.
pub(super) struct FrameReader<R> {
    frames: FramedRead<R, LengthDelimitedCodec>,
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The next frame is too long. Nothing of it was read.
    #[error("a frame must be at most {limit} bytes, got one of {found}")]
    TooLarge { limit: u64, found: u64 },
    /// The connection broke, or ended within a frame.
    #[error(transparent)]
    Broken(io::Error),
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of a greeting's length.
    pub(super) fn new(reader: R) -> Self {
        let codec = LengthDelimitedCodec::builder().max_frame_length(GREETING_BYTES).new_codec();
        Self { frames: FramedRead::new(reader, codec) }
    }

    /// Takes longer frames from now on; the bound is inclusive.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.frames.decoder_mut().set_max_frame_length(bytes);
    }

    /// The next frame; `None` at an end between two frames. May be dropped at any time, and loses nothing then.
    pub(super) async fn next(&mut self) -> Option<Result<BytesMut, FrameError>> {
        let frame = self.frames.next().await?;
        Some(frame.map_err(|error| self.fault(error)))
    }

    /// The codec says that a frame is too long and not how long; its head is still in the buffer.
    fn fault(&self, error: io::Error) -> FrameError {
        let limit = self.frames.decoder().max_frame_length() as u64;
        let head = self.frames.read_buffer().first_chunk::<4>();
        match head.map(|head| u64::from(u32::from_be_bytes(*head))) {
            Some(found) if error.kind() == io::ErrorKind::InvalidData && found > limit => {
                FrameError::TooLarge { limit, found }
            }
            _ => FrameError::Broken(error),
        }
    }
}

/// The bytes of a message, without the length before them.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Bytes> {
    Ok(serde_json::to_vec(message)?.into())
}

/// Puts a frame behind what is in the buffer.
pub(super) fn append(body: Bytes, buffer: &mut BytesMut) -> io::Result<()> {
    LengthDelimitedCodec::builder().max_frame_length(u32::MAX as usize).new_codec().encode(body, buffer)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::*;

    /// Hands bytes out in chunks.
    struct Chunks {
        bytes: Vec<u8>,
        at: usize,
        chunk: usize,
    }

    impl AsyncRead for Chunks {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let end = (self.at + self.chunk.min(buffer.remaining())).min(self.bytes.len());
            buffer.put_slice(&self.bytes[self.at..end]);
            self.at = end;
            Poll::Ready(Ok(()))
        }
    }

    /// Every frame until the end, and whether the end was one between two frames.
    fn read(bytes: Vec<u8>, chunk: usize, limit: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut reader = FrameReader::new(Chunks { bytes, at: 0, chunk });
            reader.allow(limit);
            let mut frames = Vec::new();
            while let Some(frame) = reader.next().await {
                match frame {
                    Ok(frame) => frames.push(frame.to_vec()),
                    Err(error) => return (frames, Some(error)),
                }
            }
            (frames, None)
        })
    }

    /// What the format says, in five lines: an independent reader.
    fn expected(mut bytes: &[u8], limit: usize) -> (Vec<Vec<u8>>, bool) {
        let mut frames = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > limit || length > rest.len() {
                return (frames, false);
            }
            frames.push(rest[..length].to_vec());
            bytes = &rest[length..];
        }
        (frames, bytes.is_empty())
    }

    proptest! {
        #[test]
        fn frames_come_back_whatever_the_chunks(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
            chunk in 1_usize..50,
        ) {
            let mut buffer = BytesMut::new();
            for body in &bodies {
                append(Bytes::from(body.clone()), &mut buffer).expect("a frame");
            }
            let (frames, error) = read(buffer.to_vec(), chunk, 200);
            prop_assert!(error.is_none());
            prop_assert_eq!(frames, bodies);
        }

        #[test]
        fn random_bytes_are_read_as_the_format_says(
            // Mostly zeros, so that lengths are met that do not exceed the limit.
            bytes in proptest::collection::vec(prop_oneof![5 => Just(0_u8), 1 => any::<u8>()], 0..600),
            chunk in 1_usize..70,
            limit in 0_usize..300,
        ) {
            let (wanted, whole) = expected(&bytes, limit);
            let (frames, error) = read(bytes, chunk, limit);
            prop_assert_eq!(frames, wanted);
            prop_assert_eq!(error.is_none(), whole);
            if let Some(FrameError::TooLarge { limit: named, found }) = error {
                prop_assert_eq!(named, limit as u64);
                prop_assert!(found > named);
            }
        }
    }

    #[test]
    fn a_frame_at_the_limit_is_read_and_one_beyond_it_says_both() {
        let framed = |length: usize| {
            let mut buffer = BytesMut::new();
            append(Bytes::from(vec![b'x'; length]), &mut buffer).expect("a frame");
            buffer.to_vec()
        };
        assert!(matches!(read(framed(10), 3, 10), (frames, None) if frames.len() == 1));
        let (frames, error) = read(framed(11), 3, 10);
        assert!(frames.is_empty());
        assert!(matches!(error, Some(FrameError::TooLarge { limit: 10, found: 11 })), "{error:?}");
    }
}
