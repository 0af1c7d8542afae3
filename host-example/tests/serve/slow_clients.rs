//! Clients that take their time: none of them keeps a place for ever, and none keeps others out.
//!
//! The patience of a host is some seconds, and these tests wait for it: they run beside each other.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    client::{Answer, connect, read_answer, read_head},
    host::{BOUND, Host},
};

/// How many connections there is room for.
const ROOM: usize = 4;

/// The pause between two bytes of who sends slowly.
const PAUSE: Duration = Duration::from_millis(200);

/// Sends these bytes over and over, one at a time, until the host has had enough; answers what it said.
fn trickle(mut stream: TcpStream, head: &[u8], bytes: &[u8]) -> Option<Answer> {
    stream.write_all(head).expect("sent");
    let answered = BufReader::new(stream.try_clone().expect("the same connection"));
    let reading = thread::spawn(move || {
        let mut answered = answered;
        let answer = read_answer(&mut answered).ok();
        // It is over when the host says so, and not by our own bound.
        answered.read_to_end(&mut Vec::new()).map(|_| answer)
    });
    let until = Instant::now() + BOUND;
    for byte in bytes.iter().cycle() {
        if reading.is_finished() {
            break;
        }
        assert!(Instant::now() < until, "the host listens for ever");
        drop(stream.write_all(&[*byte]));
        thread::sleep(PAUSE);
    }
    reading.join().expect("a reader").unwrap_or(None)
}

#[test]
fn slow_heads_and_idle_connections_give_their_places_to_others() {
    let host = Host::start(&["--max-connections", &ROOM.to_string()]);
    let slow: Vec<_> = (0..ROOM)
        .map(|_| {
            let stream = connect(host.address).expect("a connection");
            thread::spawn(move || trickle(stream, b"GET /readyz HTTP/1.1\r\n", b"x-more: y\r\n"))
        })
        .collect();
    // Whoever is at the machine itself has room of his own.
    assert_eq!(host.get_locally("/readyz").status, 200);
    assert_eq!(host.get("/readyz").status, 200, "it waits for a place, and gets one");
    for slow in slow {
        assert_eq!(slow.join().expect("a client"), None, "no whole request came");
    }
    let mut idle: Vec<_> = (0..ROOM)
        .map(|_| {
            let mut stream = connect(host.address).expect("a connection");
            write!(stream, "GET /readyz HTTP/1.1\r\nhost: {}\r\n\r\n", host.address).expect("sent");
            let mut reader = BufReader::new(stream);
            assert_eq!(read_answer(&mut reader).expect("an answer").status, 200);
            reader
        })
        .collect();
    assert_eq!(host.get("/readyz").status, 200, "it waits for a place, and gets one");
    for idle in &mut idle {
        assert_eq!(idle.read(&mut [0]).expect("closed, and not reset"), 0);
    }
}

#[test]
fn a_body_that_trickles_is_given_up_with_a_problem() {
    let host = Host::start(&[]);
    let mut request = host.request("POST", "/api/v1/processes", None);
    request.truncate(request.len() - 2);
    request.extend(b"content-type: application/json\r\ncontent-length: 100000\r\n\r\n{\"tags\":[\"");
    let answer = trickle(connect(host.address).expect("a connection"), &request, b"x").expect("an answer");
    assert_eq!((answer.status, answer.problem_code().as_deref()), (408, Some("request_timeout")), "{answer:?}");
}

#[test]
fn who_does_not_read_a_stream_loses_the_place_to_somebody_who_does() {
    let host = Host::start(&["--max-streams", "1"]);
    // More than the buffers of any socket take.
    let script = "head -c 30000000 /dev/zero | tr '\\0' x | fold -w 4000";
    let body = json!({
        "process_id": "much", "command": {"argv": ["sh", "-c", script], "max_output_bytes": 40_000_000},
    });
    assert_eq!(host.post("/api/v1/processes", &body).status, 201);
    host.outcome_of("much");
    let request = host.request("GET", "/api/v1/processes/much/events/stream", None);
    let open = || {
        let mut stream = connect(host.address).expect("a connection");
        stream.write_all(&request).expect("sent");
        let mut reader = BufReader::new(stream);
        let status = read_head(&mut reader).expect("a head").0;
        (status, reader)
    };
    let (status, unread) = open();
    assert_eq!(status, 200);
    assert_eq!(open().0, 503, "there is room for one");
    let until = Instant::now() + BOUND;
    let mut reader = loop {
        let (status, reader) = open();
        if status == 200 {
            break reader;
        }
        assert!(Instant::now() < until, "who does not read keeps the place for ever");
        thread::sleep(PAUSE);
    };
    let mut told = String::new();
    reader.read_to_string(&mut told).expect("the whole stream");
    assert!(told.contains("event: end\n"), "{} bytes", told.len());
    drop(unread);
}
