//! Each verb does the same through a socket, through an address, and on a store at rest.

use registry_actor::{
    actor::{ActorRegistry, RegistryOptions},
    domain::{ProcessEventType, ProcessId, ProcessInput, ProcessRegistration, RecoveryDisposition},
    log::{SqliteLog, SqliteOptions},
    port::ProcessRegistryExt,
};
use serde_json::json;

use super::*;

/// Does something through the socket of a host, and then through the address of another one.
fn at_both(test: impl Fn(&Sandbox, &[&str])) {
    let sandbox = Sandbox::new();
    let served = sandbox.serve();
    test(&sandbox, &["--store", &sandbox.store()]);
    drop(served);
    let sandbox = Sandbox::new();
    let served = sandbox.serve();
    test(&sandbox, &["--url", &served.url, "--token-file", &sandbox.tokens()]);
}

fn with<'a>(verb: &[&'a str], place: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [verb, place, rest].concat()
}

#[test]
fn a_submitted_command_is_run_by_the_host_and_found_again() {
    at_both(|sandbox, place| {
        let script = "echo out; echo err >&2; exit 3";
        let submitted = sandbox.done(&with(
            &["submit", "--id", "p", "--tag", "t", "--deadline", "1h"],
            place,
            &["--", "/bin/sh", "-c", script],
        ));
        assert_eq!(stdout(&submitted), "p\n");
        let waited = sandbox.proctor(&with(&["wait", "p"], place, &[]));
        assert_eq!((code(&waited), stdout(&waited).as_str()), (3, ""));
        assert!(stderr(&waited).contains("p: failed (the command exited with status 3)"), "{waited:?}");

        let logs = sandbox.done(&with(&["logs", "p"], place, &[]));
        assert_eq!((stdout(&logs).as_str(), stderr(&logs).as_str()), ("out\n", "err\n"));
        let events = json_lines(&sandbox.done(&with(&["events", "--json", "p"], place, &[])));
        let sequences: Vec<u64> = events.iter().filter_map(|event| event["sequence"].as_u64()).collect();
        assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>());
        assert_eq!(events.last().expect("an event")["event_type"], "process.failed");
        let few =
            json_lines(&sandbox.done(&with(&["events", "--json", "p", "--after", "2", "--limit", "2"], place, &[])));
        assert_eq!(few, events[2..4]);

        let shown = json_lines(&sandbox.done(&with(&["show", "--json", "p"], place, &[]))).remove(0);
        assert_eq!(
            (&shown["process_id"], &shown["status"], &shown["tags"]),
            (&json!("p"), &json!("failed"), &json!(["t"]))
        );
        assert_eq!(shown["outcome"]["raw"]["exit_code"], 3);
        assert_ne!(shown["deadline_at_ms"], Value::Null);
        let listed =
            json_lines(&sandbox.done(&with(&["list", "--json", "--tag", "t", "--status", "failed"], place, &[])));
        assert_eq!((listed.len(), &listed[0]["outcome"]), (1, &shown["outcome"]));
        let origin = if place[0] == "--store" { ("store", place[1]) } else { ("host", place[1]) };
        assert_eq!((&shown[origin.0], &listed[0][origin.0]), (&json!(origin.1), &json!(origin.1)));
        assert_eq!(json_lines(&sandbox.done(&with(&["list", "--json", "--status", "running"], place, &[]))).len(), 0);

        let explained = json_lines(&sandbox.done(&with(&["explain", "--json", "p"], place, &[]))).remove(0);
        assert_eq!(explained["step"], json!({"step": "ended", "state": "failed"}));
        for verb in ["show", "explain", "events"] {
            assert!(stdout(&sandbox.done(&with(&[verb, "p"], place, &[]))).contains("failed"), "{verb}");
        }
        assert!(stdout(&sandbox.done(&with(&["list"], place, &[]))).contains("failed  p "), "list");
    });
}

#[test]
fn a_running_command_is_cancelled_through_its_host() {
    at_both(|sandbox, place| {
        sandbox.done(&with(&["submit", "--id", "p"], place, &["--", "/bin/sh", "-c", "echo on; exec sleep 600"]));
        sandbox.done(&with(&["wait", "p", "--event", "command.output"], place, &[]));
        let cancelled = sandbox.done(&with(&["cancel", "p", "--reason", "enough", "--json"], place, &[]));
        assert_eq!(json_lines(&cancelled)[0]["process_id"], "p");
        let waited = sandbox.proctor(&with(&["wait", "p"], place, &[]));
        assert_eq!(code(&waited), 143, "{waited:?}");
        assert!(stderr(&waited).contains("enough"), "{waited:?}");
        let again = sandbox.done(&with(&["kill", "p"], place, &[]));
        assert!(stderr(&again).contains("p: has ended already, it is cancelled"), "{again:?}");
    });
}

#[test]
fn the_same_submission_is_the_same_process_and_another_one_is_refused() {
    at_both(|sandbox, place| {
        let submit = |word| sandbox.proctor(&with(&["submit", "--id", "p", "--json"], place, &["--", "echo", word]));
        assert_eq!(json_lines(&submit("one"))[0]["process_id"], "p");
        sandbox.done(&with(&["wait", "p"], place, &[]));
        let again = submit("one");
        assert_eq!((code(&again), &json_lines(&again)[0]["status"]), (0, &json!("completed")));
        assert!(stderr(&again).contains("`p` was submitted before; it is completed"), "{again:?}");
        assert_refused(&submit("two"), 73, &["the id `p` is taken"]);
        let child = |parent| with(&["submit", "--parent", parent], place, &["--", "true"]);
        assert_refused(&sandbox.proctor(&child("nobody")), 66, &["the parent `nobody` is unknown"]);
        sandbox.done(&child("p"));
    });
}

#[test]
fn a_retried_command_is_the_one_that_was_declared() {
    at_both(|sandbox, place| {
        let options =
            ["submit", "--wait", "--id", "p", "--disposition", "rerunnable", "--max-attempts", "2", "--backoff", "1ms"];
        let waited =
            sandbox.proctor(&with(&options, place, &["--env", "A=b", "--", "/bin/sh", "-c", "exit $((${#A}+6))"]));
        assert_eq!((code(&waited), stdout(&waited).as_str()), (7, "p\n"), "{waited:?}");
        let shown = json_lines(&sandbox.done(&with(&["show", "--json", "p"], place, &[]))).remove(0);
        assert_eq!((&shown["attempts"], &shown["retry"]["initial_backoff_ms"]), (&json!(2), &json!(1)));
        assert_eq!(shown["input"]["env"], json!({"A": "b"}));
    });
}

#[test]
fn a_command_runs_where_its_caller_is_and_beyond_an_address_where_the_host_is() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve();
    let there = sandbox.path("there").canonicalize().unwrap_or_else(|_| {
        std::fs::create_dir(sandbox.path("there")).expect("a directory");
        sandbox.path("there").canonicalize().expect("a directory")
    });
    let submitted = |place: &[&str]| {
        let args = with(&["submit", "--follow"], place, &["--", "/bin/pwd"]);
        let output = bounded(sandbox.command(&args).current_dir(&there).spawn().expect("proctor starts"));
        assert_eq!(code(&output), 0, "{output:?}");
        stdout(&output).trim_end().to_owned()
    };
    let (store, tokens) = (sandbox.store(), sandbox.tokens());
    let own = std::env::current_dir().expect("a directory");
    assert_eq!(submitted(&["--store", &store]), there.display().to_string());
    let web = ["--url", &served.url, "--token-file", &tokens];
    assert_eq!(submitted(&web), own.display().to_string());
    assert_eq!(submitted(&[&web[..], &["--cwd", "."]].concat()), there.display().to_string());
}

#[test]
fn open_prints_a_link_that_lets_a_browser_in_once() {
    at_both(|sandbox, place| {
        let link = stdout(&sandbox.done(&with(&["open"], place, &[])));
        let link = link.trim_end();
        assert!(link.starts_with("http://127.0.0.1:") && link.contains("/login/"), "{link}");
        let shown = json_lines(&sandbox.done(&with(&["open", "--json"], place, &[]))).remove(0);
        assert_ne!(shown["url"], link);
        let address = link.trim_start_matches("http://").split('/').next().expect("an address").to_owned();
        let enter = || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(&address).expect("the host listens");
            let path = &link[link.find("/login/").expect("a path")..];
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            answer.lines().next().expect("a status").to_owned()
        };
        assert!(enter().contains(" 303 "), "the first time");
        assert!(enter().contains(" 403 "), "the second time");
    });
}

#[test]
fn at_rest_a_process_waits_for_the_next_host() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    for id in ["on", "off", "given-up"] {
        let submitted = sandbox.done(&["submit", "--store", &store, "--id", id, "--", "echo", id]);
        assert_eq!(stdout(&submitted), format!("{id}\n"));
        assert!(stderr(&submitted).contains("no host is running") && stderr(&submitted).contains("proctor serve"));
    }
    let cancelled = sandbox.done(&["cancel", "--store", &store, "off"]);
    assert!(stderr(&cancelled).contains("no host is running: the next one sees to it"), "{cancelled:?}");
    let abandoned = sandbox.done(&["abandon", "--store", &store, "given-up", "--reason", "old", "--json"]);
    assert_eq!(json_lines(&abandoned)[0]["abandon_request"]["reason"], "old");
    for stays in ["--wait", "--follow"] {
        let refused = sandbox.proctor(&["submit", "--store", &store, stays, "--id", "none", "--", "true"]);
        assert_refused(&refused, 69, &["no host is running", "proctor serve"]);
    }
    assert_refused(&sandbox.proctor(&["open", "--store", &store]), 69, &["no host is running", "proctor serve"]);

    let _served = sandbox.serve();
    let ended = |id: &str| code(&sandbox.proctor(&["wait", "--store", &store, id]));
    assert_eq!([ended("on"), ended("off"), ended("given-up")], [0, 143, 69]);
    assert_refused(&sandbox.proctor(&["show", "--store", &store, "none"]), 66, &["unknown process `none`"]);
}

#[test]
fn without_a_word_the_host_of_the_user_is_meant() {
    let sandbox = Sandbox::new();
    sandbox.done(&["run", "--id", "alone", "--", "true"]);
    let _served = sandbox.serve_with(&[]);
    let submitted = sandbox.done(&["submit", "--wait", "--id", "served", "--", "true"]);
    assert_eq!(stdout(&submitted), "served\n");
    assert!(stdout(&sandbox.done(&["open"])).starts_with("http://127.0.0.1:"));
    let listed = json_lines(&sandbox.done(&["ls", "--json"]));
    let stores: Vec<_> = listed.iter().map(|process| process["store"].as_str().expect("a store")).collect();
    assert!(stores[0].ends_with("store-1.db") && stores[1].ends_with("serve.db"), "{stores:?}");
    // A process is found in whichever store it is.
    assert_eq!(code(&sandbox.proctor(&["wait", "alone", "served"])), 0);
    let newest = json_lines(&sandbox.done(&["ps", "--json", "-n", "1"]));
    assert_eq!((newest.len(), &newest[0]["process_id"]), (1, &json!("served")));
}

#[test]
fn variables_stand_for_the_options_of_the_place() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve();
    sandbox.done(&["submit", "--store", &sandbox.store(), "--wait", "--id", "p", "--", "true"]);
    let shown = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = sandbox.command(&[&["show", "--json", "p"], args].concat());
        command.envs(variables.iter().copied());
        bounded(command.spawn().expect("proctor starts"))
    };
    let (store, tokens) = (sandbox.store(), sandbox.tokens());
    let web = [("PROCTOR_URL", served.url.as_str()), ("PROCTOR_TOKEN_FILE", &tokens)];
    assert_eq!(json_lines(&shown(&web, &[]))[0]["host"], served.url.as_str());
    assert_eq!(json_lines(&shown(&web, &["--store", &store]))[0]["store"], store.as_str());
    assert_eq!(json_lines(&shown(&[("PROCTOR_STORE", &store)], &[]))[0]["store"], store.as_str());
    let socket = format!("{store}.sock");
    assert_eq!(json_lines(&shown(&[("PROCTOR_SOCKET", &socket)], &[]))[0]["host"], socket.as_str());
    let secret = std::fs::read_to_string(&tokens).expect("tokens");
    let secret = secret.lines().find_map(|line| line.strip_prefix("secret = ")).expect("a secret").trim_matches('"');
    assert_eq!(code(&shown(&[("PROCTOR_URL", &served.url), ("PROCTOR_TOKEN", secret)], &[])), 0);
    let typed = ["--url", &served.url, "--token", secret];
    assert_eq!(code(&shown(&[("PROCTOR_TOKEN", "another-one")], &typed)), 0);
}

#[test]
fn signals_reach_a_process_through_its_host_and_at_rest() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let log = SqliteLog::open(sandbox.path("store.db"), SqliteOptions::default()).expect("a store");
        let registry =
            ActorRegistry::start(std::sync::Arc::new(log), RegistryOptions::default()).await.expect("a registry");
        let id = ProcessId::new("p").expect("an id");
        let input = ProcessInput::new("approval", json!({}));
        let registration = ProcessRegistration::new(id, input, RecoveryDisposition::ExternallyOwned)
            .with_extra_event_types([ProcessEventType::plain("signal.go")]);
        registry.register_process(registration).await.expect("registered");
        registry.shut_down(BOUND).await;
    });
    let sent = |args: &[&str]| json_lines(&sandbox.done(&[&["signal", "--json", "p", "go"], args].concat())).remove(0);
    let at_rest = sent(&[r#"{"n":1}"#, "--signal-id", "once", "--store", &store]);
    assert_eq!((&at_rest["ordinal"], &at_rest["replayed"]), (&json!(1), &json!(false)));
    let another = || sandbox.proctor(&["signal", "p", "go", "2", "--signal-id", "once", "--store", &store]);
    assert_refused(&another(), 73, &["conflicts with an existing event"]);
    let served = sandbox.serve();
    assert_refused(&another(), 73, &["conflicts with an existing event"]);
    let again = sent(&[r#"{"n":1}"#, "--signal-id", "once", "--store", &store]);
    assert_eq!((&again["ordinal"], &again["replayed"]), (&json!(1), &json!(true)));
    let through_web = sent(&["--url", &served.url, "--token-file", &sandbox.tokens()]);
    assert_eq!((&through_web["ordinal"], &through_web["process_id"]), (&json!(2), &json!("p")));
    let events = json_lines(&sandbox.done(&["events", "--json", "--store", &store, "p"]));
    let payloads: Vec<_> = events.iter().map(|event| event["payload"].clone()).collect();
    assert!(payloads.iter().any(|payload| payload.to_string().contains(r#"{"n":1}"#)), "{payloads:?}");

    sandbox.done(&["submit", "--store", &store, "--id", "command", "--signal", "stop", "--", "sleep", "600"]);
    for place in [["--store", store.as_str()].as_slice(), &["--url", &served.url, "--token-file", &sandbox.tokens()]] {
        let refused = sandbox.proctor(&[&["signal", "command", "go"], place].concat());
        assert_refused(&refused, 64, &["process `command` takes no signal `go`", "--signal"]);
        sandbox.done(&[&["signal", "command", "stop"], place].concat());
    }
    let second = ["wait", "command", "--event", "signal.stop", "--after", "0", "--json", "--store", &store];
    assert_eq!(json_lines(&sandbox.done(&second))[0]["event_type"], "signal.stop");
}

#[test]
fn what_is_done_to_a_store_is_told_to_machines_too() {
    let sandbox = Sandbox::new();
    let (store, copy, again) = (sandbox.store(), sandbox.text("copy"), sandbox.text("again.db"));
    sandbox.done(&["run", "--store", &store, "--id", "p", "--", "true"]);
    let told = |args: &[&str]| json_lines(&sandbox.done(args)).remove(0);
    let backup = told(&["backup", "--json", "--store", &store, &copy]);
    assert_eq!((&backup["store"], &backup["checked"]["processes"]), (&json!(store), &json!(1)));
    assert!(std::path::Path::new(backup["path"].as_str().expect("a path")).exists(), "{backup}");
    let restored = told(&["restore", "--json", &copy, "--store", &again]);
    assert_eq!((&restored["store"], &restored["checked"]["processes"]), (&json!(again), &json!(1)));
    assert_ne!(restored["epoch"], Value::Null);
    let prune =
        |options: &[&str]| told(&[&["prune", "--json", "--older-than", "0s", "--store", &store], options].concat());
    let meant = prune(&["--dry-run"]);
    assert_eq!((&meant["dry_run"], &meant["pruned_processes"]), (&json!(true), &json!(1)));
    let pruned = prune(&[]);
    assert_eq!(
        (&pruned["dry_run"], &pruned["pruned_processes"], &pruned["store"]),
        (&json!(false), &json!(1), &json!(store))
    );
    assert_refused(&sandbox.proctor(&["show", "--store", &store, "p"]), 66, &["`p` ended as completed and was pruned"]);
}

#[test]
fn what_a_host_owns_is_pruned_by_it() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let _served = sandbox.serve();
    for (id, tag) in [("old", "a"), ("kept", "audit")] {
        sandbox.done(&["submit", "--wait", "--store", &store, "--id", id, "--tag", tag, "--", "true"]);
    }
    sandbox.done(&["submit", "--store", &store, "--id", "running", "--", "sleep", "600"]);
    let args = ["prune", "--json", "--older-than", "0s", "--keep-tag", "audit", "--store", &store];
    let pruned = sandbox.done(&args);
    assert_eq!(json_lines(&pruned)[0]["pruned_processes"], 1);
    assert!(stderr(&pruned).contains("store.db: 1 processes with 5 events pruned"), "{pruned:?}");
    assert_refused(&sandbox.proctor(&["show", "--store", &store, "old"]), 66, &["was pruned"]);
    let left = json_lines(&sandbox.done(&["list", "--json", "--store", &store]));
    let ids: Vec<_> = left.iter().map(|process| process["process_id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["kept", "running"]);
}
