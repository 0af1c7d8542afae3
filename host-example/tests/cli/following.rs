//! Following a process, while its host goes and comes.

use std::io::Read;

use super::*;

/// A rerunnable command that says its attempt, and ends when it is let.
fn submit_gated(sandbox: &Sandbox, gate: &str) {
    let script = format!("echo begun; until [ -e '{gate}' ]; do sleep 0.02; done; echo done");
    let store = sandbox.store();
    let options =
        ["submit", "--store", &store, "--id", "p", "--disposition", "rerunnable", "--", "/bin/sh", "-c", &script];
    sandbox.done(&options);
}

/// Follows `p`, kills the host after the first line of output, and lets the command end at the next one.
fn follow_over_a_restart(
    follow: impl Fn(&Sandbox, &Served) -> Child,
    serve_again: impl Fn(&Sandbox, &Served) -> Vec<String>,
) {
    let sandbox = Sandbox::new();
    let gate = sandbox.text("gate");
    let served = sandbox.serve();
    submit_gated(&sandbox, &gate);
    let mut following = follow(&sandbox, &served);
    let mut told = BufReader::new(following.stdout.take().expect("a pipe"));
    let mut lines = Vec::new();
    let mut read_until_output = |lines: &mut Vec<String>| loop {
        let mut line = String::new();
        assert_ne!(told.read_line(&mut line).expect("a line"), 0, "the following ended: {lines:?}");
        lines.push(line.trim_end().to_owned());
        if line.contains("command.output") {
            return;
        }
    };
    read_until_output(&mut lines);
    let again = serve_again(&sandbox, &served);
    served.kill();
    let _next = sandbox.serve_with(&again.iter().map(String::as_str).collect::<Vec<_>>());
    read_until_output(&mut lines);
    std::fs::write(&gate, "").expect("a file");
    let mut rest = String::new();
    told.read_to_string(&mut rest).expect("text");
    lines.extend(rest.lines().map(str::to_owned));
    assert_eq!(code(&bounded(following)), 0);
    let stored = stdout(&sandbox.done(&["events", "--json", "--store", &sandbox.store(), "p"]));
    assert!(stored.contains(r#""text":"done""#), "{stored}");
    assert_eq!(lines, stored.lines().collect::<Vec<_>>(), "no event is missing, and none came twice");
}

#[test]
fn following_a_store_outlives_its_host() {
    follow_over_a_restart(
        |sandbox, _| sandbox.start(&["events", "--follow", "--json", "--store", &sandbox.store(), "p"]),
        |sandbox, _| vec!["--store".to_owned(), sandbox.store()],
    );
}

#[test]
fn following_an_address_goes_on_with_the_next_host_there() {
    follow_over_a_restart(
        |sandbox, served| {
            let (url, tokens) = (&served.url, sandbox.tokens());
            sandbox.start(&["events", "-f", "--json", "--url", url, "--token-file", &tokens, "p"])
        },
        |sandbox, served| {
            let address = served.url.trim_start_matches("http://").to_owned();
            vec!["--store".to_owned(), sandbox.store(), "--listen".to_owned(), address]
        },
    );
}

#[test]
fn a_wait_outlives_the_host() {
    let sandbox = Sandbox::new();
    let (store, gate) = (sandbox.store(), sandbox.text("gate"));
    let served = sandbox.serve();
    submit_gated(&sandbox, &gate);
    sandbox.done(&["wait", "p", "--event", "command.output", "--store", &store]);
    let waiting = sandbox.start(&["wait", "p", "--store", &store]);
    served.stop();
    std::fs::write(&gate, "").expect("a file");
    let _next = sandbox.serve();
    assert_eq!(code(&bounded(waiting)), 0);
}

#[test]
fn a_store_without_a_served_host_is_followed_too() {
    let sandbox = Sandbox::new();
    let (store, gate) = (sandbox.store(), sandbox.text("gate"));
    let script = format!("echo begun; until [ -e '{gate}' ]; do sleep 0.02; done; echo done >&2; exit 5");
    let mut running = sandbox.start(&["run", "--store", &store, "--id", "p", "--", "/bin/sh", "-c", &script]);
    let mut begun = [0; 6];
    running.stdout.take().expect("a pipe").read_exact(&mut begun).expect("a line");
    let mut following = sandbox.start(&["logs", "-f", "--store", &store, "p"]);
    let mut shown = [0; 6];
    following.stdout.as_mut().expect("a pipe").read_exact(&mut shown).expect("a line");
    assert_eq!((begun, shown), (*b"begun\n", *b"begun\n"));
    let waiting = sandbox.start(&["wait", "--store", &store, "p"]);
    let refused = sandbox.proctor(&["cancel", "--store", &store, "p"]);
    assert_refused(&refused, 75, &["owned by", "does not listen for requests"]);
    std::fs::write(&gate, "").expect("a file");
    let followed = bounded(following);
    assert_eq!((code(&followed), stderr(&followed).as_str()), (0, "done\n"));
    assert_eq!([code(&bounded(waiting)), code(&bounded(running))], [5, 5]);
}

#[test]
fn a_submission_that_is_followed_is_like_a_run() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let _served = sandbox.serve();
    let script = r"echo out; echo err >&2; printf 'a\377b'; exit 9";
    let followed = sandbox.proctor(&["submit", "--follow", "--store", &store, "--", "/bin/sh", "-c", script]);
    assert_eq!((code(&followed), followed.stdout.as_slice()), (9, b"out\na\xffb\n".as_slice()), "{followed:?}");
    let said = stderr(&followed);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("proctor: submitted `sh-") && lines[2].ends_with("exited with status 9)"), "{said}");
    assert_eq!(lines[1], "err");
}

#[test]
fn output_that_was_not_recorded_is_told_of() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let script = "echo first; echo second; echo third";
    sandbox.done(&["run", "--store", &store, "--id", "p", "--max-output", "8", "--", "/bin/sh", "-c", script]);
    let logs = sandbox.done(&["logs", "--store", &store, "p"]);
    assert_eq!(stdout(&logs), "first\n");
    assert!(stderr(&logs).contains("2 lines of output with 13 bytes were beyond the limit"), "{logs:?}");
}
