//! The reader of output against real pipes, of which the test holds the writing ends.

use std::{
    fs,
    io::{self, PipeWriter, Write},
    thread,
    time::{Duration, Instant},
};

use host_example::output::{Dropped, OutputBudget, OutputEnd, OutputReader, Stream};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(3600);

fn reader(budget: OutputBudget, capacity_lines: usize) -> (PipeWriter, PipeWriter, OutputReader) {
    let (stdout, stdout_writer) = io::pipe().expect("a pipe");
    let (stderr, stderr_writer) = io::pipe().expect("a pipe");
    let reader = OutputReader::start(stdout.into(), stderr.into(), budget, capacity_lines).expect("a reader");
    (stdout_writer, stderr_writer, reader)
}

async fn next(reader: &mut OutputReader) -> Option<(Stream, String)> {
    let line = timeout(BOUND, reader.next_line()).await.expect("a line in time")?;
    Some((line.stream, String::from_utf8_lossy(line.text.as_bytes()).into_owned()))
}

async fn end(reader: OutputReader) -> OutputEnd {
    timeout(BOUND, reader.end()).await.expect("an end in time").expect("readable pipes")
}

#[tokio::test]
async fn lines_come_in_the_order_in_which_the_streams_became_readable() {
    let (mut stdout, mut stderr, mut reader) = reader(OutputBudget::default(), 8);
    for turn in 0..20 {
        writeln!(stdout, "out {turn}").expect("the pipe is open");
        assert_eq!(next(&mut reader).await, Some((Stream::Stdout, format!("out {turn}"))));
        writeln!(stderr, "err {turn}").expect("the pipe is open");
        assert_eq!(next(&mut reader).await, Some((Stream::Stderr, format!("err {turn}"))));
    }
    drop((stdout, stderr));
    assert_eq!(next(&mut reader).await, None);
    assert_eq!(end(reader).await, OutputEnd::default());
}

#[tokio::test]
async fn a_last_line_without_newline_is_delivered_and_reported() {
    let (mut stdout, stderr, mut reader) = reader(OutputBudget::default(), 8);
    drop(stderr);
    write!(stdout, "whole\nhalf").expect("the pipe is open");
    drop(stdout);
    assert_eq!(next(&mut reader).await, Some((Stream::Stdout, "whole".to_owned())));
    assert_eq!(next(&mut reader).await, Some((Stream::Stdout, "half".to_owned())));
    assert_eq!(next(&mut reader).await, None);
    assert_eq!(end(reader).await, OutputEnd { unterminated: vec![Stream::Stdout], ..OutputEnd::default() });
}

#[tokio::test]
async fn past_the_budget_the_pipe_is_drained_and_the_rest_is_counted() {
    const LINES: usize = 200_000;
    let (mut stdout, stderr, mut reader) = reader(OutputBudget::new(10), 8);
    drop(stderr);
    // This is more than any pipe holds: the writer ends only if the reader goes on to read.
    let writer = thread::spawn(move || stdout.write_all(&b"1234\n".repeat(LINES)));
    for _ in 0..2 {
        assert_eq!(next(&mut reader).await, Some((Stream::Stdout, "1234".to_owned())));
    }
    assert_eq!(next(&mut reader).await, None);
    writer.join().expect("the writer does not panic").expect("the pipe was open to the end");
    let dropped = end(reader).await.dropped.expect("something was dropped");
    assert_eq!(dropped.stdout, Dropped { lines: LINES as u64 - 2, bytes: 5 * (LINES as u64 - 2) });
    assert_eq!((dropped.stderr, dropped.limit_bytes), (Dropped::default(), 10));
}

#[tokio::test]
async fn a_pipe_held_open_is_given_up_after_all_that_was_written_is_read() {
    let (mut stdout, stderr, mut reader) = reader(OutputBudget::default(), 8);
    drop(stderr);
    writeln!(stdout, "written before").expect("the pipe is open");
    reader.closer().close_within(Duration::ZERO);
    assert_eq!(next(&mut reader).await, Some((Stream::Stdout, "written before".to_owned())));
    assert_eq!(next(&mut reader).await, None);
    assert_eq!(end(reader).await.held_open, [Stream::Stdout]);
    assert!(writeln!(stdout, "written after").is_err(), "nobody reads the pipe any more");
}

#[tokio::test]
async fn a_reader_that_waits_for_output_is_woken_to_give_up() {
    let (mut stdout, stderr, mut reader) = reader(OutputBudget::default(), 8);
    writeln!(stdout, "the reader runs").expect("the pipe is open");
    assert!(next(&mut reader).await.is_some());
    // It has delivered all that there is. So once it sleeps, it sleeps until something wakes it.
    let begin = Instant::now();
    while !readers_sleep() {
        assert!(begin.elapsed() < BOUND, "the reader is busy with nothing");
        thread::yield_now();
    }
    reader.closer().close_within(Duration::from_millis(1));
    assert_eq!(next(&mut reader).await, None);
    assert_eq!(end(reader).await.held_open, Stream::ALL);
    drop((stdout, stderr));
}

/// Whether all readers, those of the tests that run at the same time included, sleep.
fn readers_sleep() -> bool {
    let tasks = fs::read_dir("/proc/self/task").expect("threads");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok())
        .all(|stat| !stat.contains("(output)") || stat.contains(") S "))
}

#[tokio::test]
async fn a_pipe_that_somebody_floods_is_given_up_nevertheless() {
    let (stdout, mut stderr, mut reader) = reader(OutputBudget::new(100), 8);
    drop(stdout);
    let flood = thread::spawn(move || while stderr.write_all(b"flood\n").is_ok() {});
    assert!(next(&mut reader).await.is_some());
    reader.closer().close_within(Duration::from_millis(1));
    while next(&mut reader).await.is_some() {}
    assert_eq!(end(reader).await.held_open, [Stream::Stderr]);
    flood.join().expect("the flood ends as the pipe breaks");
}

#[tokio::test]
async fn a_closed_pipe_that_a_slow_consumer_left_unread_is_not_held_open() {
    let (mut stdout, stderr, mut reader) = reader(OutputBudget::default(), 1);
    drop(stderr);
    // The chunks are those of the reader, which so blocks on its full channel with more in the pipe.
    stdout.write_all(&b"x\n".repeat(4)).expect("the pipe is open");
    assert!(next(&mut reader).await.is_some());
    stdout.write_all(&b"x\n".repeat(1000)).expect("the pipe is open");
    reader.closer().close_within(Duration::ZERO);
    drop(stdout);
    let mut lines = 1;
    while next(&mut reader).await.is_some() {
        lines += 1;
    }
    assert_eq!(lines, 1004);
    assert_eq!(end(reader).await, OutputEnd::default());
}

#[tokio::test]
async fn a_pipe_that_closes_in_time_is_not_waited_for_longer() {
    let (stdout, stderr, mut reader) = reader(OutputBudget::default(), 8);
    reader.closer().close_within(LONG);
    drop((stdout, stderr));
    assert_eq!(next(&mut reader).await, None);
    assert_eq!(end(reader).await, OutputEnd::default());
}

#[tokio::test]
async fn of_two_deadlines_the_earlier_counts() {
    let (stdout, stderr, mut reader) = reader(OutputBudget::default(), 8);
    reader.closer().close_within(Duration::ZERO);
    reader.closer().close_within(LONG);
    assert_eq!(next(&mut reader).await, None);
    assert_eq!(end(reader).await.held_open, Stream::ALL);
    drop((stdout, stderr));
}

#[tokio::test]
async fn without_a_consumer_the_pipe_is_drained() {
    let (mut stdout, stderr, reader) = reader(OutputBudget::default(), 1);
    drop(stderr);
    let writer = thread::spawn(move || stdout.write_all(&b"nobody reads this\n".repeat(100_000)));
    assert_eq!(end(reader).await, OutputEnd::default());
    writer.join().expect("the writer does not panic").expect("the pipe was open to the end");
}
