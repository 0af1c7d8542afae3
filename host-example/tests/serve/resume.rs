//! Streams that are taken up again while hosts die: every event once, and in order.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    client::{connect, read_head},
    dice::{Dice, number_in},
    host::{BOUND, Host},
};

/// How often the host dies in each round.
const DEATHS: usize = 3;

/// How many lines the process writes, one each 10 ms.
const LINES: usize = 120;

/// What a follower asks by.
#[derive(Clone)]
struct Place {
    address: SocketAddr,
    token: String,
    path: String,
}

/// How the stream is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Client {
    Curl,
    Plain,
}

#[derive(Default)]
struct Follower {
    events: Vec<Value>,
    last_id: Option<String>,
    is_over: bool,
    ends_told: usize,
}

impl Follower {
    /// Follows until the stream is over, however often it breaks.
    fn follow(mut self, client: Client, place: &Place, tell: &mpsc::Sender<()>) -> Self {
        while !self.is_over {
            let read = match client {
                Client::Curl => self.read_by_curl(place, tell),
                Client::Plain => self.read_plainly(place, tell),
            };
            if read.is_err() || !self.is_over {
                // As any client does between two tries.
                thread::sleep(Duration::from_millis(20));
            }
        }
        self
    }

    fn read_by_curl(&mut self, place: &Place, tell: &mpsc::Sender<()>) -> io::Result<()> {
        let mut command = Command::new("curl");
        command.args(["-s", "-N", "-f", "-H", &format!("Authorization: Bearer {}", place.token)]);
        if let Some(id) = &self.last_id {
            command.args(["-H", &format!("Last-Event-ID: {id}")]);
        }
        command.arg(format!("http://{}{}", place.address, place.path)).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let read = self.read(BufReader::new(child.stdout.take().expect("a pipe")), tell);
        child.wait()?;
        read
    }

    fn read_plainly(&mut self, place: &Place, tell: &mpsc::Sender<()>) -> io::Result<()> {
        let mut stream = connect(place.address)?;
        // In HTTP/1.0 the lines come as they are, without chunks.
        let id = self.last_id.as_ref().map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        write!(
            stream,
            "GET {} HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer {}\r\n{id}\r\n",
            place.path, place.address, place.token
        )?;
        let mut reader = BufReader::new(stream);
        match read_head(&mut reader)?.0 {
            200 => self.read(reader, tell),
            status => Err(io::Error::other(format!("answered {status}"))),
        }
    }

    /// Reads server-sent events. What has no empty line behind it has not come.
    fn read(&mut self, reader: impl BufRead, tell: &mpsc::Sender<()>) -> io::Result<()> {
        let (mut kind, mut id, mut data) = (String::new(), None, String::new());
        for line in reader.lines() {
            let line = line?;
            match line.split_once(": ").unwrap_or((&line, "")) {
                ("event", value) => value.clone_into(&mut kind),
                ("id", value) => id = Some(value.to_owned()),
                ("data", value) => data.push_str(value),
                ("", _) if line.is_empty() => {
                    match &*kind {
                        "event" => {
                            self.events.push(serde_json::from_str(&data).expect("an event"));
                            self.last_id = id.take();
                            // The other side counts no more once it has done with killing.
                            let _ = tell.send(());
                        }
                        "end" => {
                            self.ends_told += 1;
                            self.is_over = true;
                        }
                        "stopping" | "" => {}
                        other => panic!("unexpected: {other} {data}"),
                    }
                    kind.clear();
                    data.clear();
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn has_curl() -> bool {
    Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn round(number: usize, clients: &[Client], dice: &mut Dice) {
    let mut host = Host::start(&[]);
    // It goes on where the attempt before it stood, so that it ends.
    let script = format!(
        "i=$(cat count 2>/dev/null); i=${{i:-0}}; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; echo $i >count; sleep 0.01; done"
    );
    host.start_script("lines", "rerunnable", &script);
    let path = "/api/v1/processes/lines/events/stream".to_owned();
    let place = Place { address: host.address, token: host.token(), path };
    let followers: Vec<_> = clients
        .iter()
        .map(|&client| {
            let (place, (tell, told)) = (place.clone(), mpsc::channel());
            (thread::spawn(move || Follower::default().follow(client, &place, &tell)), told)
        })
        .collect();
    let mut deaths = 0;
    for _ in 0..DEATHS {
        // After some more events were seen by one of them, and at any point in what follows.
        let told = &followers[dice.below(followers.len())].1;
        for _ in 0..dice.below(25) {
            if told.recv_timeout(BOUND).is_err() {
                break;
            }
        }
        thread::sleep(Duration::from_micros(dice.throw() % 20_000));
        host.kill();
        deaths += 1;
        host.restart();
    }
    let process = host.outcome_of("lines");
    let expected = host.stored_events("lines");
    println!(
        "round {number}: {deaths} deaths, {} events, {} attempts",
        expected.len(),
        process["attempts"].as_u64().unwrap_or(0)
    );
    assert!(expected.len() > LINES, "{} events", expected.len());
    for (client, (follower, _)) in clients.iter().zip(followers) {
        let follower = follower.join().expect("a follower");
        let sequences = |events: &[Value]| events.iter().map(|event| event["sequence"].clone()).collect::<Vec<_>>();
        assert_eq!(sequences(&follower.events), sequences(&expected), "round {number}, {client:?}");
        assert_eq!(follower.events, expected, "round {number}, {client:?}");
        assert_eq!(follower.ends_told, 1);
    }
    // Who goes on from the last event has heard everything.
    let last = expected.last().and_then(|event| event["sequence"].as_u64()).expect("an event");
    let mut request = host.request("GET", "/api/v1/processes/lines/events/stream", None);
    request.truncate(request.len() - 2);
    request.extend(format!("last-event-id: 1.{last}\r\n\r\n").bytes());
    assert_eq!(super::client::ask(host.address, &request).expect("an answer").status, 204);
}

/// `PROCTOR_STREAM_ROUNDS` makes more of them, `PROCTOR_STREAM_SEED` repeats one.
#[test]
fn a_stream_that_is_taken_up_again_tells_every_event_once_while_hosts_are_killed() {
    let mut dice = Dice::of_variable("PROCTOR_STREAM_SEED");
    let mut clients = vec![Client::Plain];
    if has_curl() {
        clients.push(Client::Curl);
    } else {
        println!("curl is not installed: only the plain client is tested");
    }
    for number in 1..=number_in("PROCTOR_STREAM_ROUNDS", 3) {
        round(number, &clients, &mut dice);
    }
}
