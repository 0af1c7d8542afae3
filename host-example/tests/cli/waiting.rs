//! What `wait` waits for, and the code that it exits with.

use serde_json::json;

use super::*;

#[test]
fn a_wait_exits_as_the_command_did() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let _served = sandbox.serve();
    let submit = |id: &str, options: &[&str], command: &[&str]| {
        sandbox.done(&[&["submit", "--store", &store, "--id", id], options, &["--"], command].concat());
    };
    submit("good", &[], &["true"]);
    submit("bad", &[], &["/bin/sh", "-c", "exit 42"]);
    submit("killed", &[], &["/bin/sh", "-c", "kill -KILL $$"]);
    submit("absent", &[], &["/no/such/program"]);
    submit("no-program", &[], &["/etc/passwd"]);
    submit("late", &["--deadline", "100ms"], &["sleep", "600"]);
    submit("slow", &["--time-limit", "100ms"], &["sleep", "600"]);
    let waited = |ids: &[&str]| code(&sandbox.proctor(&[&["wait", "--store", &store], ids].concat()));
    for (id, expected) in
        [("good", 0), ("bad", 42), ("killed", 137), ("absent", 127), ("no-program", 126), ("late", 124), ("slow", 124)]
    {
        assert_eq!(waited(&[id]), expected, "{id}");
    }
    assert_eq!(waited(&["good", "good"]), 0);
    assert_eq!(waited(&["good", "killed", "bad"]), 137, "the first in the order that was typed");
}

#[test]
fn all_that_are_named_have_to_end() {
    let sandbox = Sandbox::new();
    let (store, gate) = (sandbox.store(), sandbox.text("gate"));
    let _served = sandbox.serve();
    let script = format!("until [ -e '{gate}' ]; do sleep 0.02; done");
    sandbox.done(&["submit", "--store", &store, "--id", "slow", "--", "/bin/sh", "-c", &script]);
    sandbox.done(&["submit", "--store", &store, "--wait", "--id", "quick", "--", "true"]);
    let mut waiting = sandbox.start(&["wait", "--json", "--store", &store, "slow", "quick"]);
    let mut lines = BufReader::new(waiting.stdout.take().expect("a pipe")).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("a line")).expect("JSON") };
    assert_eq!(next()["process_id"], "quick", "each is told when it has ended");
    assert!(waiting.try_wait().expect("a status").is_none());
    std::fs::write(&gate, "").expect("a file");
    assert_eq!(next()["process_id"], "slow");
    assert_eq!(code(&bounded(waiting)), 0);
}

#[test]
fn a_wait_has_an_end_when_it_was_given_one() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    sandbox.done(&["submit", "--store", &store, "--id", "p", "--", "sleep", "600"]);
    let at_rest = sandbox.proctor(&["wait", "--store", &store, "p", "--timeout", "50ms"]);
    assert_refused(&at_rest, 124, &["p: not yet, and the time is up"]);
    let served = sandbox.serve();
    let beside = sandbox.proctor(&["wait", "--store", &store, "p", "--timeout", "50ms"]);
    assert_refused(&beside, 124, &["p: not yet, and the time is up"]);
    let web = ["--url", &served.url, "--token-file", &sandbox.tokens()];
    let through = sandbox.proctor(&[&["wait", "p", "--timeout", "50ms"], &web[..]].concat());
    assert_refused(&through, 124, &["p: not yet, and the time is up"]);
}

#[test]
fn an_event_ends_a_wait_and_the_end_without_it_too() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let served = sandbox.serve();
    sandbox.done(&["submit", "--store", &store, "--wait", "--id", "p", "--", "/bin/sh", "-c", "echo one; echo two"]);
    for place in [["--store", store.as_str()].as_slice(), &["--url", &served.url, "--token-file", &sandbox.tokens()]] {
        let waited = |args: &[&str]| sandbox.proctor(&[&["wait", "p"], args, place].concat());
        let first = json_lines(&waited(&["--json", "--event", "command.output"])).remove(0);
        assert_eq!(first["payload"]["text"], "one");
        let after = first["sequence"].to_string();
        let second = json_lines(&waited(&["--json", "--event", "command.output", "--after", &after])).remove(0);
        assert_eq!(second["payload"]["text"], "two");
        assert_eq!(json_lines(&waited(&["--json", "--event", "*"]))[0]["sequence"], json!(1));
        assert!(stdout(&waited(&["--event", "command.output"])).ends_with("stdout  one\n"));
        let after = second["sequence"].to_string();
        let ended = waited(&["--event", "command.output", "--after", &after]);
        assert_refused(&ended, 1, &["p: the event did not happen, and the process has ended: it is completed"]);
    }
}
