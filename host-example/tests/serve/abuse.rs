//! Requests that no client means: each is answered by a problem of the client's where HTTP allows an answer, none by a fault of the
//! host's, and the host is as well afterwards as before.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{
    client::{Answer, connect, read_answer},
    dice::{Dice, number_in},
    host::{BOUND, Host},
};

/// How many clients misbehave at the same time.
const CLIENTS: usize = 4;

/// How much larger the host may be after the abuse: what its allocator keeps, and not what requests have left.
const GROWTH_KIB: u64 = 48 * 1024;

/// What has to come of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    /// A problem document with a status of the client's.
    Problem,
    /// It is no HTTP: a bare status of the client's, or an end.
    Rejection,
    /// Whatever makes sense of it, and no fault of the host's.
    NoFault,
}

struct Abuse {
    what: &'static str,
    expected: Expected,
    request: Vec<u8>,
}

/// Makes requests that make no sense.
struct Abuser {
    address: SocketAddr,
    token: String,
    dice: Dice,
}

impl Abuser {
    fn next(&mut self) -> Abuse {
        let makers = [
            Self::bad_json,
            Self::wrong_values,
            Self::large_body,
            Self::wrong_type,
            Self::path_trick,
            Self::large_head,
            Self::broken_head,
            Self::wrong_method,
            Self::broken_chunks,
            Self::wrong_length,
            Self::wrong_host,
            Self::wrong_token,
            Self::wrong_query,
            Self::wrong_place,
            Self::pipelined_garbage,
            Self::mutation,
            Self::noise,
        ];
        self.dice.one_of(&makers)(self)
    }

    fn head(&self, method: &str, path: &str, further: &str) -> Vec<u8> {
        let Self { address, token, .. } = self;
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n{further}\r\n")
            .into_bytes()
    }

    fn with_body(&self, path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
        let mut request =
            self.head("POST", path, &format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len()));
        request.extend(body);
        request
    }

    fn posted(&mut self, body: &[u8]) -> Vec<u8> {
        let path = self.dice.one_of(&[
            "/api/v1/processes",
            "/api/v1/processes/known/cancel",
            "/api/v1/processes/known/signals/s",
            "/api/v1/processes/known/abandon",
        ]);
        self.with_body(path, "application/json", body)
    }

    fn bad_json(&mut self) -> Abuse {
        let deep = "[".repeat(20_000);
        let deep_object = "{\"work\":".repeat(5_000);
        let noise = self.dice.bytes(40);
        let body: &[u8] = match self.dice.below(12) {
            0 => b"{",
            1 => b"{'command': {}}",
            2 => deep.as_bytes(),
            3 => deep_object.as_bytes(),
            4 => b"",
            5 => b"{\"command\": NaN}",
            6 => b"{\"tags\": [\"\xff\xfe\"]}",
            7 => b"\0\0\0\0",
            8 => b"{\"deadline_ms\": 1e999}",
            9 => b"{\"process_id\": \"\\ud800\"}",
            10 => b"{} {}",
            _ => &noise,
        };
        Abuse { what: "bad json", expected: Expected::Problem, request: self.posted(body) }
    }

    fn wrong_values(&mut self) -> Abuse {
        let long = "x".repeat(600);
        let bodies = [
            json!(null),
            json!(7),
            json!("text"),
            json!([]),
            json!({}),
            json!({"command": 5}),
            json!({"command": {}}),
            json!({"command": {"argv": []}}),
            json!({"command": {"argv": "true"}}),
            json!({"command": {"argv": [1]}}),
            json!({"command": {"argv": ["a\0b"]}}),
            json!({"command": {"argv": ["true"], "cwd": "relative"}}),
            json!({"command": {"argv": ["true"], "cwd": "/\0"}}),
            json!({"command": {"argv": ["true"], "env": {"A=B": "c"}}}),
            json!({"command": {"argv": ["true"], "env": {"A": "\0"}}}),
            json!({"command": {"argv": ["true"], "env": {"": "c"}}}),
            json!({"command": {"argv": ["true"], "max_output_bytes": -1}}),
            json!({"command": {"argv": ["true"], "max_output_bytes": 1.5}}),
            json!({"command": {"argv": ["true"]}, "work": {"kind": "other"}}),
            json!({"command": {"argv": ["true"]}, "disposition": "externally_owned"}),
            json!({"command": {"argv": ["true"]}, "disposition": "eternal"}),
            json!({"command": {"argv": ["true"]}, "unknown": 1}),
            json!({"command": {"argv": ["true"]}, "process_id": ""}),
            json!({"command": {"argv": ["true"]}, "process_id": long}),
            json!({"command": {"argv": ["true"]}, "process_id": 7}),
            json!({"command": {"argv": ["true"]}, "tags": "one"}),
            json!({"command": {"argv": ["true"]}, "deadline_ms": -1}),
            json!({"command": {"argv": ["true"]}, "deadline_ms": "soon"}),
            json!({"command": {"argv": ["true"]}, "deadline_ms": 1e30}),
            json!({"command": {"argv": ["true"]}, "retry": {"max_attempts": 2}}),
            json!({"command": {"argv": ["true"]}, "disposition": "rerunnable", "retry": {"max_attempts": 0}}),
            json!({"command": {"argv": ["true"]}, "disposition": "rerunnable", "retry": {}}),
            json!({"command": {"argv": ["true"]}, "parent": ""}),
            json!({"work": {"kind": "command", "payload": {}}}),
            json!({"work": {"payload": {}}}),
            json!({"work": {"kind": ["a"]}}),
        ];
        let body = &bodies[self.dice.below(bodies.len())];
        let request = self.with_body("/api/v1/processes", "application/json", body.to_string().as_bytes());
        Abuse { what: "wrong values", expected: Expected::Problem, request }
    }

    fn large_body(&mut self) -> Abuse {
        let large = vec![b' '; (1 << 20) + 1 + self.dice.below(1 << 20)];
        let request = match self.dice.below(3) {
            0 => self.posted(&large),
            1 => self.head(
                "POST",
                "/api/v1/processes",
                "content-type: application/json\r\ncontent-length: 1000000000000\r\n",
            ),
            _ => {
                let mut request = self.head(
                    "POST",
                    "/api/v1/processes",
                    "content-type: application/json\r\ntransfer-encoding: chunked\r\n",
                );
                for chunk in large.chunks(60_000) {
                    request.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    request.extend(chunk);
                    request.extend(b"\r\n");
                }
                request.extend(b"0\r\n\r\n");
                request
            }
        };
        Abuse { what: "large body", expected: Expected::Problem, request }
    }

    fn wrong_type(&mut self) -> Abuse {
        let kind = self.dice.one_of(&[
            "text/plain",
            "application/x-www-form-urlencoded",
            "",
            "\u{7f}",
            "multipart/form-data; boundary=x",
        ]);
        let request = self.with_body("/api/v1/processes", kind, b"{\"work\":{\"kind\":\"other\"}}");
        let expected = if kind == "\u{7f}" { Expected::Rejection } else { Expected::Problem };
        Abuse { what: "wrong type", expected, request }
    }

    fn path_trick(&mut self) -> Abuse {
        let long = format!("/api/v1/processes/{}", "a".repeat(1_000 + self.dice.below(20_000)));
        let deep = "/..".repeat(2_000);
        let path = match self.dice.below(19) {
            0 => "/../../etc/passwd",
            1 => "/%2e%2e/%2e%2e/etc/passwd",
            2 => "/api/v1/processes/%00",
            3 => "/api/v1/processes/%ff%fe",
            4 => "/api/v1/processes/..%2f..%2fs.db.tokens",
            5 => "/api/v1/processes/%zz",
            6 => "//",
            7 => "/api//v1/processes/known",
            8 => "/api/v1/processes/known/../../../healthz",
            9 => "http://evil.example/nowhere",
            10 => "/login/",
            11 => "/login/%00%00",
            12 => "/login/../../s.db.tokens",
            13 => "/api/v2/processes",
            14 => "/api/v1/processes/unknown/events/stream",
            15 => "/api/v1/processes/known/signals",
            16 => "/;/?#",
            17 => &deep,
            _ => &long,
        };
        Abuse { what: "path trick", expected: Expected::Problem, request: self.head("GET", path, "") }
    }

    fn large_head(&mut self) -> Abuse {
        let further = match self.dice.below(4) {
            0 => "x-a: b\r\n".repeat(101 + self.dice.below(5_000)),
            1 => format!("x-a: {}\r\n", "b".repeat(300_000)),
            2 => format!("{}: b\r\n", "x".repeat(300_000)),
            _ => {
                let path = format!("/{}", "a".repeat(66_000 + self.dice.below(50_000)));
                return Abuse {
                    what: "large head",
                    expected: Expected::Rejection,
                    request: self.head("GET", &path, ""),
                };
            }
        };
        let request = self.head("GET", "/api/v1/processes", &further);
        Abuse { what: "large head", expected: Expected::Rejection, request }
    }

    fn broken_head(&mut self) -> Abuse {
        let request = match self.dice.below(9) {
            0 => self.head("GET", "/healthz", "no colon\r\n"),
            1 => self.head("GET", "/healthz", "x a: b\r\n"),
            2 => self.head("GET", "/healthz", "x-a: b\0c\r\n"),
            3 => self.head("GET", "/healthz", ": b\r\n"),
            4 => b"GET /healthz HTTP/9.9\r\n\r\n".to_vec(),
            5 => b"GET  /healthz HTTP/1.1\r\n\r\n".to_vec(),
            6 => b"GET\r\n\r\n".to_vec(),
            7 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        };
        Abuse { what: "broken head", expected: Expected::Rejection, request }
    }

    fn wrong_method(&mut self) -> Abuse {
        let method = self.dice.one_of(&["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO", "get", "PROPFIND"]);
        let path = self.dice.one_of(&["/api/v1/processes", "/api/v1/processes/known", "/healthz", "/login/x"]);
        Abuse { what: "wrong method", expected: Expected::Problem, request: self.head(method, path, "") }
    }

    fn broken_chunks(&mut self) -> Abuse {
        let mut request =
            self.head("POST", "/api/v1/processes", "content-type: application/json\r\ntransfer-encoding: chunked\r\n");
        let chunks: &[u8] = self.dice.one_of(&[
            b"zz\r\n{}\r\n0\r\n\r\n".as_slice(),
            b"-1\r\n{}\r\n0\r\n\r\n",
            b"ffffffffffffffff\r\n{}",
            b"fffffffffffffffffffffff\r\n{}",
            b"2\r\n{}garbage\r\n0\r\n\r\n",
            b"\r\n\r\n",
            b"2;\r\r{}\r\n0\r\n\r\n",
        ]);
        request.extend(chunks);
        // Some of these wait for what never comes: the sender ends, and is not answered.
        Abuse { what: "broken chunks", expected: Expected::NoFault, request }
    }

    fn wrong_length(&mut self) -> Abuse {
        let further = self.dice.one_of(&[
            "content-length: abc\r\n",
            "content-length: -1\r\n",
            "content-length: 1\r\ncontent-length: 2\r\n",
            "content-length: 99999999999999999999999\r\n",
            "transfer-encoding: gzip\r\n",
            "transfer-encoding: chunked, gzip\r\n",
        ]);
        let further = format!("content-type: application/json\r\n{further}");
        Abuse {
            what: "wrong length",
            expected: Expected::Rejection,
            request: self.head("POST", "/api/v1/processes", &further),
        }
    }

    fn wrong_host(&mut self) -> Abuse {
        let host = self.dice.one_of(&[
            "host: evil.example\r\n",
            "host: \r\n",
            "",
            "host: 127.0.0.1\r\n",
            "host: \u{e4}\r\n",
            "host: localhost:1\r\nhost: localhost:1\r\n",
            "host: 127.0.0.1:1@evil.example\r\n",
        ]);
        let request = format!("GET /healthz HTTP/1.1\r\n{host}connection: close\r\n\r\n").into_bytes();
        Abuse { what: "wrong host", expected: Expected::Problem, request }
    }

    fn wrong_token(&mut self) -> Abuse {
        let long = format!("authorization: Bearer {}\r\n", "x".repeat(30_000));
        let shown = match self.dice.below(9) {
            0 => "authorization: Bearer\r\n",
            1 => "authorization: Bearer x\r\n",
            2 => "authorization: Basic b3duZXI6\r\n",
            3 => "authorization: \u{e4}\u{f6}\r\n",
            4 => "cookie: proctor_session=9999999999\r\n",
            5 => "cookie: proctor_session=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D9999999999\r\n",
            6 => "cookie: ;;;=;=proctor_session=;%\r\n",
            7 => "",
            _ => &long,
        };
        let address = self.address;
        let path =
            self.dice.one_of(&["/api/v1/processes", "/api/v1/openapi.json", "/api/v1/processes/known/events/stream"]);
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{shown}connection: close\r\n\r\n").into_bytes();
        Abuse { what: "wrong token", expected: Expected::Problem, request }
    }

    fn wrong_query(&mut self) -> Abuse {
        let path = self.dice.one_of(&[
            "/api/v1/processes?limit=0",
            "/api/v1/processes?limit=-1",
            "/api/v1/processes?limit=99999999999999999999",
            "/api/v1/processes?status=eternal",
            "/api/v1/processes?unknown=1",
            "/api/v1/processes?limit=1&limit=2",
            "/api/v1/processes?after=%00",
            "/api/v1/processes?waiting=perhaps",
            "/api/v1/processes/known/events?limit=1001",
            "/api/v1/processes/known/events?after=-1",
            "/api/v1/processes/known/events?after=99999999999999999999",
            "/api/v1/processes/known/wait?within_ms=60001",
            "/api/v1/processes/known/wait?within_ms=18446744073709551615",
            "/api/v1/processes/known/wait?after=1",
            "/api/v1/processes/known/wait?within_ms=soon",
        ]);
        Abuse { what: "wrong query", expected: Expected::Problem, request: self.head("GET", path, "") }
    }

    fn wrong_place(&mut self) -> Abuse {
        let place = self.dice.one_of(&["1", "a.b", "1.-1", "2.0", "4294967296.1", "1.18446744073709551616", "\u{e4}"]);
        let request = self.head("GET", "/api/v1/processes/known/events/stream", &format!("last-event-id: {place}\r\n"));
        Abuse { what: "wrong place", expected: Expected::Problem, request }
    }

    fn pipelined_garbage(&mut self) -> Abuse {
        let mut request = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", self.address).into_bytes();
        let count = 1 + self.dice.below(300);
        request.extend(self.dice.bytes(count));
        Abuse { what: "pipelined garbage", expected: Expected::NoFault, request }
    }

    /// A request that makes sense, with some of its bytes changed.
    fn mutation(&mut self) -> Abuse {
        let body = json!({
            "process_id": format!("mutant-{}", self.dice.below(1_000)), "disposition": "externally_owned",
            "work": {"kind": "other", "payload": {"n": 1}}, "tags": ["a", "b"], "deadline_ms": 600_000,
        });
        let mut request = match self.dice.below(5) {
            0 => self.with_body("/api/v1/processes/known/signals/s", "application/json", b"{\"payload\": 1}"),
            1 => self.head("GET", "/api/v1/processes/known/events?after=3&limit=7", ""),
            2 => {
                let path = self.dice.one_of(&[
                    "/api/v1/processes?created_from_ms=18446744073709551615",
                    "/api/v1/processes?created_until_ms=18446744073709551615&tags=,,,",
                    "/api/v1/processes/known/events?after=18446744073709551615",
                    "/api/v1/processes/known/wait?event_type=*&after=18446744073709551615&within_ms=1",
                    "/api/v1/processes/known/wait?event_type=&after=9223372036854775808&within_ms=1",
                ]);
                self.head("GET", path, "")
            }
            _ => self.with_body("/api/v1/processes", "application/json", body.to_string().as_bytes()),
        };
        for _ in 0..self.dice.below(4) {
            let at = self.dice.below(request.len());
            match self.dice.below(3) {
                0 => request[at] = self.dice.throw() as u8,
                1 => request.insert(at, self.dice.throw() as u8),
                _ => drop(request.remove(at)),
            }
        }
        Abuse { what: "mutation", expected: Expected::NoFault, request }
    }

    fn noise(&mut self) -> Abuse {
        let count = 1 + self.dice.below(5_000);
        Abuse { what: "noise", expected: Expected::NoFault, request: self.dice.bytes(count) }
    }
}

impl Abuse {
    /// Sends it, and reads all that is answered.
    fn answers(&self, address: SocketAddr) -> io::Result<Vec<Answer>> {
        let mut stream = connect(address)?;
        // Who is answered early may hear no more.
        drop(stream.write_all(&self.request));
        if self.expected != Expected::Problem {
            // It may wait for what never comes.
            drop(stream.set_read_timeout(Some(Duration::from_millis(100))));
            if matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                drop(stream.shutdown(Shutdown::Write));
            }
            drop(stream.set_read_timeout(Some(BOUND)));
        }
        let mut reader = BufReader::new(stream);
        let mut answers = Vec::new();
        loop {
            match read_answer(&mut reader) {
                Ok(answer) => answers.push(answer),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(answers),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(answers),
                Err(error) => return Err(error),
            }
        }
    }

    /// What is wrong with the answers.
    fn fault(&self, answers: &[Answer]) -> Option<String> {
        let is_of_client = |answer: &Answer| (400..500).contains(&answer.status);
        let fits = match self.expected {
            Expected::Problem => {
                matches!(answers, [answer] if is_of_client(answer) && answer.problem_code().is_some())
            }
            Expected::Rejection => match answers {
                [] => true,
                [answer] => is_of_client(answer),
                _ => false,
            },
            Expected::NoFault => answers.iter().all(|answer| answer.status < 500),
        };
        let start = &self.request[..self.request.len().min(600)];
        (!fits).then(|| {
            let shown: Vec<_> =
                answers.iter().map(|answer| (answer.status, String::from_utf8_lossy(&answer.body))).collect();
            format!("{}: expected {:?}, found {shown:?} to {}", self.what, self.expected, start.escape_ascii())
        })
    }
}

/// How often each kind was answered how, and what was wrong.
#[derive(Default)]
struct Tally {
    answered: BTreeMap<(&'static str, Vec<u16>), usize>,
    faults: Vec<String>,
}

fn abuse(abuser: &mut Abuser, count: usize) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..count {
        let abuse = abuser.next();
        match abuse.answers(abuser.address) {
            Ok(answers) => {
                let statuses = answers.iter().map(|answer| answer.status).collect();
                *tally.answered.entry((abuse.what, statuses)).or_default() += 1;
                tally.faults.extend(abuse.fault(&answers));
            }
            Err(error) => tally.faults.push(format!("{}: {error}", abuse.what)),
        }
    }
    tally
}

/// All clients at once.
fn misbehave(host: &Host, dice: &mut Dice, count: usize) -> Tally {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut abuser = Abuser { address: host.address, token: host.token(), dice: dice.fork() };
            thread::spawn(move || abuse(&mut abuser, count / CLIENTS))
        })
        .collect();
    let mut all = Tally::default();
    for client in clients {
        let tally = client.join().expect("a client");
        for (kind, count) in tally.answered {
            *all.answered.entry(kind).or_default() += count;
        }
        all.faults.extend(tally.faults);
    }
    all
}

/// `PROCTOR_ABUSE_REQUESTS` makes more of them, `PROCTOR_ABUSE_SEED` repeats them.
#[test]
fn no_request_makes_the_host_fail_or_grow() {
    let mut dice = Dice::of_variable("PROCTOR_ABUSE_SEED");
    let host = Host::start(&[]);
    let known = json!({"process_id": "known", "disposition": "externally_owned", "work": {"kind": "other"}});
    assert_eq!(host.post("/api/v1/processes", &known).status, 201);
    let count = number_in("PROCTOR_ABUSE_REQUESTS", 1_000);

    let warm_up = misbehave(&host, &mut dice, count.min(1_000) / 2);
    let before = host.rss_kib();
    let tally = misbehave(&host, &mut dice, count);
    let after = host.rss_kib();
    for ((what, statuses), count) in &tally.answered {
        println!("{what:>18}  {count:>6}  {statuses:?}");
    }
    println!("{} KiB before, {} KiB after {count} requests", before, after);
    let faults: Vec<_> = warm_up.faults.into_iter().chain(tally.faults).collect();
    assert!(faults.is_empty(), "{} faults, such as:\n{}", faults.len(), faults[..faults.len().min(10)].join("\n"));
    assert!(after < before + GROWTH_KIB, "from {before} to {after} KiB");
    assert!(!host.said().contains("panicked"), "{}", host.said());

    host.start_script("after", "owner_bound", "echo well");
    assert_eq!(host.outcome_of("after")["status"], "completed");
}
