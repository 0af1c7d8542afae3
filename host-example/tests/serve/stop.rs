//! How a host goes down: what is told, waited for, left to the next host, and given up.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::{UnixDatagram, UnixStream},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    client::{connect, read_head},
    host::{BOUND, Host},
};

/// Longer than anything takes that does not wait for what it should not wait for.
const LONG: &str = "10m";

/// Opens a stream of a process.
fn open_stream(host: &Host, id: &str) -> BufReader<TcpStream> {
    let mut stream = connect(host.address).expect("a connection");
    stream.write_all(&host.request("GET", &format!("/api/v1/processes/{id}/events/stream"), None)).expect("sent");
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).expect("a head").0, 200);
    reader
}

#[test]
fn whoever_follows_is_told_of_the_stop_and_who_comes_is_refused() {
    let mut host = Host::start(&["--stop-patience", LONG]);
    host.start_script("owned", "owner_bound", "echo up; exec sleep 600");
    host.wait_for_output("owned");
    let registered = json!({"process_id": "outside", "disposition": "externally_owned", "work": {"kind": "other"}});
    assert_eq!(host.post("/api/v1/processes", &registered).status, 201);
    let mut stream = open_stream(&host, "outside");
    // They have asked nothing yet, or nothing more.
    let _silent = connect(host.address).expect("a connection");
    let mut idle = connect(host.address).expect("a connection");
    write!(idle, "GET /readyz HTTP/1.1\r\nhost: {}\r\n\r\n", host.address).expect("sent");
    let mut idle = BufReader::new(idle);
    assert_eq!(super::client::read_answer(&mut idle).expect("an answer").status, 200);

    host.signal(Signal::TERM);
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("an end that is none of a broken connection");
    assert!(told.contains("event: stopping\n"), "{told}");
    assert_eq!(idle.read(&mut [0]).expect("closed"), 0);
    let status = host.ended();
    assert_eq!(status.code(), Some(0), "{}", host.said());
    assert!(!host.socket().exists());
    assert!(TcpStream::connect(host.address).is_err());

    // What was bound to the host has not outlived it, and whoever asks the next host is told.
    host.restart();
    assert_eq!(host.outcome_of("owned")["status"], "cancelled");
    assert_eq!(host.get("/api/v1/processes/outside").json()["status"], "running");
}

#[test]
fn who_comes_while_a_stop_waits_is_refused_at_once() {
    let mut host = Host::start(&["--on-stop", "wait", "--stop-patience", LONG]);
    // Somebody is connected, through each of the doors, who takes nothing of what is sent.
    host.start_script("much", "owner_bound", "head -c 30000000 /dev/zero | tr '\\0' x | fold -w 4000");
    host.outcome_of("much");
    let web = open_stream(&host, "much");
    let mut local = UnixStream::connect(host.socket()).expect("the socket");
    local.write_all(&host.request("GET", "/api/v1/processes/much/events/stream", None)).expect("sent");
    local.read_exact(&mut [0]).expect("it is open");
    host.start_script("slow", "owner_bound", "echo up; until [ -e go ]; do sleep 0.02; done; echo done");
    host.wait_for_output("slow");
    host.signal(Signal::TERM);
    host.said_line("stopping after SIGTERM");
    let until = Instant::now() + BOUND;
    while TcpStream::connect(host.address).is_ok() || host.socket().exists() {
        assert!(Instant::now() < until, "the doors stay open");
        std::thread::yield_now();
    }
    drop((web, local));
    assert!(host.is_running(), "it waits for the command");
    std::fs::write(host.path("go"), "").expect("written");
    assert_eq!(host.ended().code(), Some(0), "{}", host.said());
    host.restart();
    let process = host.outcome_of("slow");
    assert_eq!((&process["status"], &process["attempts"]), (&json!("completed"), &json!(1)), "{process}");
}

#[test]
fn what_can_run_again_goes_on_in_the_next_host() {
    let mut host = Host::start(&["--stop-patience", LONG]);
    host.start_script(
        "again",
        "rerunnable",
        "echo up; if [ -e tried ]; then echo end; else touch tried; exec sleep 600; fi",
    );
    host.wait_for_output("again");
    host.signal(Signal::TERM);
    assert_eq!(host.ended().code(), Some(0), "{}", host.said());
    host.restart();
    let process = host.outcome_of("again");
    assert_eq!((&process["status"], &process["attempts"]), (&json!("completed"), &json!(2)), "{process}");
}

#[test]
fn a_second_signal_hurries() {
    let mut host = Host::start(&["--on-stop", "wait", "--stop-patience", LONG]);
    let script = "setsid sleep 600 >/dev/null 2>&1 & echo $!; trap '' TERM; while :; do sleep 1; done";
    host.start_script("endless", "owner_bound", script);
    host.wait_for_output("endless");
    let events = host.stored_events("endless");
    let daemon = events.iter().find_map(|event| event["payload"]["text"].as_str()).expect("a pid").to_owned();
    host.signal(Signal::TERM);
    host.said_line("stopping after SIGTERM");
    host.signal(Signal::TERM);
    assert_eq!(host.ended().code(), Some(0), "{}", host.said());
    assert!(!host.socket().exists());
    host.restart();
    let process = host.outcome_of("endless");
    assert_eq!(process["status"], "cancelled", "{process}");
    // Its end was declared while what it had put into a session of its own ran on for ever.
    let stat = std::fs::read_to_string(format!("/proc/{daemon}/stat"));
    assert!(stat.as_ref().map_or(true, |stat| stat.contains(") Z ")), "it lives on: {stat:?}");
}

/// A session that ends, or a machine, tells host and command at the same time. The command was faster, and what should have gone on in
/// the next host had failed.
#[test]
fn a_command_that_hears_of_the_stop_before_its_host_is_left_to_the_next_host_all_the_same() {
    let mut host = Host::start(&["--stop-patience", LONG]);
    host.start_script(
        "again",
        "rerunnable",
        "echo $$; if [ -e tried ]; then echo end; else touch tried; exec sleep 600; fi",
    );
    host.wait_for_output("again");
    let events = host.stored_events("again");
    let pid = events.iter().find_map(|event| event["payload"]["text"].as_str()?.parse().ok()).expect("a pid");
    let command = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(command, Signal::TERM).expect("it is there");
    host.signal(Signal::TERM);
    assert_eq!(host.ended().code(), Some(0), "{}", host.said());
    host.restart();
    let process = host.outcome_of("again");
    assert_eq!((&process["status"], &process["attempts"]), (&json!("completed"), &json!(2)), "{process}");
}

#[test]
fn a_client_that_does_not_read_holds_up_no_stop_past_its_patience() {
    let mut host = Host::start(&["--stop-patience", "1s"]);
    // More than the buffers of any socket take.
    host.start_script("much", "owner_bound", "head -c 30000000 /dev/zero | tr '\\0' x | fold -w 4000");
    host.outcome_of("much");
    let mut stream = open_stream(&host, "much");
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line");
    host.signal(Signal::TERM);
    assert_eq!(host.ended().code(), Some(0), "{}", host.said());
    assert!(host.said().contains("did not end in time"), "it was not held up at all:\n{}", host.said());
    assert!(!host.socket().exists());
}

#[test]
fn the_service_manager_is_told_when_it_serves_and_when_it_stops() {
    let mut manager = None;
    let mut host = Host::start_with(&[], |directory, command| {
        let path = directory.path().join("notify");
        manager = Some(UnixDatagram::bind(&path).expect("a socket"));
        command.env("NOTIFY_SOCKET", path);
    });
    let manager = manager.expect("a socket");
    manager.set_read_timeout(Some(BOUND)).expect("a bound");
    let heard = || {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let ready = heard();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    assert_eq!(host.get("/readyz").status, 200);
    host.signal(Signal::TERM);
    let stopping = heard();
    assert!(stopping.lines().any(|line| line == "STOPPING=1"), "{stopping}");
    assert_eq!(host.ended().code(), Some(0));
    manager.set_read_timeout(Some(Duration::from_millis(1))).expect("a bound");
    assert!(manager.recv(&mut [0; 512]).is_err(), "nothing else was said");
}
