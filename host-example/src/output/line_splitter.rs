//! Bytes of one stream to lines.
//!
//! It owns where lines begin and end, and how long one may get. It does not know where the bytes come from, nor what
//! they mean beyond newlines and the sequences of UTF-8.

/// The longest line that is delivered as one. A longer one comes in parts.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

const NEWLINE: u8 = b'\n';

/// The longest sequence of UTF-8.
const MAX_SEQUENCE_BYTES: usize = 4;

/// A line, or a part of one that is too long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The exact bytes, without a newline.
    pub bytes: Vec<u8>,
    /// What followed them in the stream.
    pub end: LineEnd,
}

/// What follows a piece in its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineEnd {
    /// A newline.
    Newline,
    /// More of the same line, which is in the next piece.
    Continued,
    /// Nothing: the stream ended without a newline.
    EndOfStream,
}

impl Piece {
    /// The bytes that the piece took in its stream, its newline included.
    #[must_use]
    pub fn stream_bytes(&self) -> u64 {
        self.bytes.len() as u64 + u64::from(self.end == LineEnd::Newline)
    }
}

/// The bytes of an unfinished line.
#[derive(Debug, Default)]
pub struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    /// Takes a chunk and emits every piece that it completes.
    pub fn push(&mut self, chunk: &[u8], mut emit: impl FnMut(Piece)) {
        let mut rest = chunk;
        while let Some(newline) = rest.iter().position(|&byte| byte == NEWLINE) {
            self.extend(&rest[..newline], &mut emit);
            emit(Piece { bytes: std::mem::take(&mut self.pending), end: LineEnd::Newline });
            rest = &rest[newline + 1..];
        }
        self.extend(rest, &mut emit);
    }

    /// Takes the end of the stream and emits the line that had no newline, if there is one.
    pub fn finish(self, mut emit: impl FnMut(Piece)) {
        if !self.pending.is_empty() {
            emit(Piece { bytes: self.pending, end: LineEnd::EndOfStream });
        }
    }

    /// Adds bytes without a newline. A part is cut off only when the line is known to be longer than it, so that every
    /// part but the last is followed by something.
    fn extend(&mut self, bytes: &[u8], emit: &mut impl FnMut(Piece)) {
        self.pending.extend_from_slice(bytes);
        while self.pending.len() > MAX_LINE_BYTES {
            let rest = self.pending.split_off(cut_at(&self.pending));
            emit(Piece { bytes: std::mem::replace(&mut self.pending, rest), end: LineEnd::Continued });
        }
    }
}

/// Where to cut a line that is longer than allowed: at the limit, or just before the sequence of UTF-8 that spans it.
fn cut_at(line: &[u8]) -> usize {
    let sequence = (MAX_LINE_BYTES + 1 - MAX_SEQUENCE_BYTES..=MAX_LINE_BYTES)
        .rev()
        .find(|&at| line[at] & 0b1100_0000 != 0b1000_0000);
    match sequence {
        Some(start) if start + sequence_length(line[start]) > MAX_LINE_BYTES => start,
        // Whatever is here, it is no text, or a sequence ends right before the limit.
        _ => MAX_LINE_BYTES,
    }
}

fn sequence_length(first: u8) -> usize {
    match first {
        0xf0..=0xf7 => 4,
        0xe0..=0xef => 3,
        0xc0..=0xdf => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut splitter = LineSplitter::default();
        for chunk in chunks {
            splitter.push(chunk, |piece| pieces.push(piece));
        }
        splitter.finish(|piece| pieces.push(piece));
        pieces
    }

    fn piece(bytes: &[u8], end: LineEnd) -> Piece {
        Piece { bytes: bytes.to_vec(), end }
    }

    #[test]
    fn lines_end_at_newlines_wherever_the_chunks_end() {
        let text = b"one\n\ntwo\r\nthree";
        let expected = [
            piece(b"one", LineEnd::Newline),
            piece(b"", LineEnd::Newline),
            piece(b"two\r", LineEnd::Newline),
            piece(b"three", LineEnd::EndOfStream),
        ];
        for size in 1..=text.len() {
            assert_eq!(split(text.chunks(size)), expected, "chunks of {size} bytes");
        }
    }

    #[test]
    fn a_final_newline_starts_no_line_and_nothing_is_no_line() {
        assert_eq!(split([&b"one\n"[..]]), [piece(b"one", LineEnd::Newline)]);
        assert_eq!(split([&b""[..]]), []);
    }

    #[test]
    fn a_line_is_held_until_its_newline_comes() {
        let mut splitter = LineSplitter::default();
        splitter.push(b"half", |piece| panic!("{piece:?} is no line yet"));
        let mut pieces = Vec::new();
        splitter.push(b" a line\n", |piece| pieces.push(piece));
        assert_eq!(pieces, [piece(b"half a line", LineEnd::Newline)]);
    }

    #[test]
    fn a_line_of_the_limit_is_whole_and_one_byte_more_makes_two_parts() {
        let mut line = vec![b'x'; MAX_LINE_BYTES];
        line.push(b'\n');
        assert_eq!(split([&line[..]]), [piece(&line[..MAX_LINE_BYTES], LineEnd::Newline)]);
        line.insert(0, b'y');
        let expected = [piece(&line[..MAX_LINE_BYTES], LineEnd::Continued), piece(b"x", LineEnd::Newline)];
        for size in [1000, MAX_LINE_BYTES, line.len()] {
            assert_eq!(split(line.chunks(size)), expected, "chunks of {size} bytes");
        }
    }

    #[test]
    fn parts_of_valid_text_are_valid_text() {
        for character in ["x", "ä", "€", "🦀"] {
            // Every shift puts the limit at another place within a character.
            for shift in 0..4 {
                let text = format!("{}{}", "-".repeat(shift), character.repeat(200_000 / character.len()));
                let pieces = split(text.as_bytes().chunks(4096));
                assert!(pieces.len() > 2);
                for piece in &pieces {
                    assert!(str::from_utf8(&piece.bytes).is_ok(), "{character} shifted by {shift}");
                    assert!(piece.bytes.len() <= MAX_LINE_BYTES);
                }
                assert_eq!(pieces.iter().flat_map(|piece| piece.bytes.clone()).collect::<Vec<_>>(), text.as_bytes());
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_cut_at_the_limit_and_kept() {
        for byte in [0x80, 0xff, 0xe2, 0xf0] {
            let junk = vec![byte; 3 * MAX_LINE_BYTES];
            let pieces = split([&junk[..]]);
            assert_eq!(pieces.iter().flat_map(|piece| piece.bytes.clone()).collect::<Vec<_>>(), junk);
            assert!(
                pieces.iter().all(|piece| piece.bytes.len() + 4 > MAX_LINE_BYTES || piece.end != LineEnd::Continued)
            );
        }
    }

    #[test]
    fn the_pieces_take_as_many_bytes_as_the_stream_had() {
        let text = [&b"a\n\nb"[..], &[b'x'; 2 * MAX_LINE_BYTES], b"\nc"].concat();
        assert_eq!(split([&text[..]]).iter().map(Piece::stream_bytes).sum::<u64>(), text.len() as u64);
    }
}
