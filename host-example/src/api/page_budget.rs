//! How much of a list goes into one page, or is held for the reader of a stream: so many items, and so many bytes of them.
//!
//! It owns the bounds, and how many items are read at a time, so that hardly more is in memory than goes into the page. It does not
//! know what is listed, nor how it is read.

use std::io;

use serde::Serialize;

/// The bytes of a page, as JSON. One item may be larger, and is a page of its own then.
const PAGE_BYTES: usize = 4 << 20;

/// The bytes that a stream reads ahead.
const STREAM_BYTES: usize = 1 << 20;

/// How many items are read before anything is known of their size.
const FIRST_READ: u32 = 4;

/// The most that are read at a time: behind small ones there may be large ones.
const MAX_READ: u32 = 32;

/// By how much a read may be larger than the one before.
const GROWTH: u32 = 4;

/// What still has room.
#[derive(Debug)]
pub(super) struct PageBudget {
    bytes: usize,
    items_left: u32,
    bytes_left: usize,
    next_read: u32,
    is_empty: bool,
    is_full: bool,
}

impl PageBudget {
    /// That of a page of so many items at most.
    pub(super) const fn of_page(limit: u32) -> Self {
        Self::new(PAGE_BYTES, limit)
    }

    /// That of what a stream reads ahead.
    pub(super) const fn of_stream() -> Self {
        Self::new(STREAM_BYTES, u32::MAX)
    }

    const fn new(bytes: usize, limit: u32) -> Self {
        Self { bytes, items_left: limit, bytes_left: bytes, next_read: FIRST_READ, is_empty: true, is_full: false }
    }

    /// How many items to read next; `None` when there is no room.
    pub(super) fn next_read(&self) -> Option<u32> {
        let room = self.next_read.min(self.items_left);
        (room > 0 && !self.is_full).then_some(room)
    }

    /// How many of these that were read have room, from the first one on. The first of all has it, however large it is.
    pub(super) fn admit<T: Serialize>(&mut self, read: &[T]) -> usize {
        let (mut admitted, mut bytes) = (0, 0);
        for item in read {
            let size = json_bytes(item);
            if bytes + size > self.bytes_left && !self.is_empty {
                self.is_full = true;
                break;
            }
            self.is_empty = false;
            admitted += 1;
            bytes += size;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        let count = u32::try_from(admitted).unwrap_or(u32::MAX);
        self.items_left = self.items_left.saturating_sub(count);
        let mean = (bytes / admitted.max(1)).max(1);
        let fitting = u32::try_from(self.bytes_left / mean).unwrap_or(u32::MAX);
        self.next_read = fitting.clamp(1, self.next_read.saturating_mul(GROWTH).min(MAX_READ));
        self.is_full |= self.bytes_left == 0;
        admitted
    }

    /// All room is there again: what was admitted was handed on. How large items are stays known.
    pub(super) const fn clear(&mut self) {
        self.bytes_left = self.bytes;
        self.is_empty = true;
        self.is_full = false;
    }
}

/// How long the JSON of a value is.
fn json_bytes<T: Serialize>(value: &T) -> usize {
    let mut counter = Counter(0);
    // What has no JSON is not sent either.
    drop(serde_json::to_writer(&mut counter, value));
    counter.0
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a list through a budget: how many items its page has, and how many bytes were read at most at a time.
    fn page_of(list: &[String], mut budget: PageBudget) -> (usize, usize) {
        let (mut paged, mut most) = (0, 0);
        while let Some(count) = budget.next_read() {
            let until = list.len().min(paged + count as usize);
            let read = &list[paged..until];
            most = most.max(read.iter().map(json_bytes).sum());
            let admitted = budget.admit(read);
            paged += admitted;
            if admitted < read.len() || paged == list.len() {
                break;
            }
        }
        (paged, most)
    }

    fn items(size: usize, count: usize) -> Vec<String> {
        vec!["x".repeat(size - 2); count]
    }

    #[test]
    fn a_page_ends_after_its_items_or_its_bytes() {
        assert_eq!(page_of(&items(100, 2_000), PageBudget::of_page(1_000)).0, 1_000);
        assert_eq!(page_of(&items(100, 50), PageBudget::of_page(1_000)).0, 50);
        for (size, expected) in [(1 << 20, 4), (3 << 20, 1), (9 << 20, 1), (1 << 10, 4 << 10)] {
            let (paged, most) = page_of(&items(size, 5_000.min((64 << 20) / size)), PageBudget::of_page(10_000));
            assert_eq!(paged, expected, "{size}");
            assert!(most <= FIRST_READ as usize * size.max(PAGE_BYTES / 4), "{size}: {most} bytes at a time");
        }
    }

    #[test]
    fn large_items_behind_small_ones_end_the_page() {
        let list: Vec<_> = items(100, 500).into_iter().chain(items(1 << 20, 100)).collect();
        let (paged, most) = page_of(&list, PageBudget::of_page(1_000));
        assert_eq!(paged, 503);
        assert!(most <= MAX_READ as usize * (1 << 20), "{most}");
    }

    #[test]
    fn a_stream_that_has_met_large_items_reads_them_one_by_one() {
        let large = items(1 << 20, 4);
        let mut budget = PageBudget::of_stream();
        assert_eq!(budget.admit(&large), 1);
        assert_eq!(budget.next_read(), None);
        budget.clear();
        assert_eq!(budget.next_read(), Some(1));
        budget.admit(&items(10, 1));
        budget.clear();
        assert_eq!(budget.next_read(), Some(GROWTH));
    }
}
