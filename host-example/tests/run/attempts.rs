//! Attempts: retries, deadlines, parents, and what is taken over at each point of an attempt.

use std::{fs, process};

use registry_actor::{
    domain::{
        AbandonRequest, ParentEndRule, ProcessEventAppendRequest, ProcessParent, ProcessStarted, RecoveryDisposition,
    },
    port::ProcessRegistryExt,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{FormerHost, Sandbox, assert_refused, code, declared, is_alive, output_lines, pid, stderr, stdout, until};

#[test]
fn a_command_that_is_not_over_at_its_deadline_is_ended_with_124() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--id", "late", "--deadline", "700ms"], "echo $$; exec sleep 1000");
    assert_eq!(code(&output), 124, "{}", stderr(&output));
    assert!(!is_alive(pid(&stdout(&output))));
    let shown = sandbox.show("late");
    let outcome = &shown["outcome"];
    assert_eq!((&outcome["class"], &outcome["code"]), (&"timeout".into(), &"deadline_passed".into()));
    assert_eq!(outcome["raw"]["signal"], 15);
    let deadline = shown["deadline_at_ms"].as_u64().expect("a deadline");
    assert_eq!(deadline - shown["created_at_ms"].as_u64().expect("a time"), 700);
}

#[test]
fn an_attempt_past_its_time_limit_is_ended_and_the_next_one_has_as_much_time_again() {
    let sandbox = Sandbox::new();
    let options = ["--id", "slow", "--time-limit", "400ms", "--disposition", "rerunnable"];
    let again = [&options[..], &["--max-attempts", "2", "--backoff", "1ms"]].concat();
    let output = sandbox.run(&again, "echo $$; exec sleep 1000");
    assert_eq!(code(&output), 124, "{}", stderr(&output));
    let pids: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
    assert_eq!(pids.len(), 2, "{pids:?}");
    assert!(!pids.iter().any(|line| is_alive(pid(line))), "{pids:?}");
    let shown = sandbox.show("slow");
    assert_eq!((&shown["status"], &shown["attempts"]), (&"failed".into(), &2.into()));
    assert_eq!(shown["outcome"]["code"], "time_limit_passed");
}

#[test]
fn a_deadline_that_passes_between_two_attempts_has_the_same_code() {
    let sandbox = Sandbox::new();
    let options =
        ["--id", "late", "--disposition", "rerunnable", "--max-attempts", "9", "--backoff", "1h", "--deadline", "1s"];
    let output = sandbox.run(&options, "exit 3");
    assert_eq!(code(&output), 124, "{}", stderr(&output));
    let shown = sandbox.show("late");
    assert_eq!((&shown["outcome"]["code"], &shown["attempts"]), (&"deadline_passed".into(), &1.into()));
}

#[test]
fn a_failing_command_is_tried_as_often_as_declared_and_then_fails() {
    let sandbox = Sandbox::new();
    let options = ["--id", "flaky", "--disposition", "rerunnable", "--max-attempts", "3", "--backoff", "1ms"];
    let output = sandbox.run(&options, "echo attempt $PROCTOR_ATTEMPT; exit $((PROCTOR_ATTEMPT + 4))");
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    assert_eq!(stdout(&output), "attempt 1\nattempt 2\nattempt 3\n");
    let said = stderr(&output);
    for (attempt, status) in [(1, 5), (2, 6)] {
        let line = format!("attempt {attempt} failed (the command exited with status {status})");
        assert!(said.contains(&line), "{line} is not in {said}");
    }
    let shown = sandbox.show("flaky");
    assert_eq!((&shown["attempts"], &shown["last_failure"]["attempt"]), (&3.into(), &2.into()));
    assert_eq!(shown["outcome"]["raw"], json!({"exit_code": 7, "attempt": 3}));
    let store = sandbox.store();
    let facts = stdout(&sandbox.output(&["show", "--store", &store, "flaky"]));
    assert!(facts.contains("3 of 3") && facts.contains("attempt 2: the command exited with status 6"), "{facts}");
}

#[test]
fn an_attempt_that_goes_well_ends_the_trying() {
    let sandbox = Sandbox::new();
    let options = ["--id", "flaky", "--disposition", "rerunnable", "--max-attempts", "3", "--backoff", "1ms"];
    let output = sandbox.run(&options, "[ $PROCTOR_ATTEMPT = 2 ]");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(sandbox.show("flaky")["outcome"]["value"]["attempt"], 2);
}

#[test]
fn an_interrupt_between_two_attempts_cancels() {
    let sandbox = Sandbox::new();
    let options = ["--id", "flaky", "--disposition", "rerunnable", "--max-attempts", "3", "--backoff", "1h"];
    let mut running = sandbox.start(&options, "echo once; exit 1");
    assert_eq!(running.line(), "once");
    until("the attempt has failed", || sandbox.show("flaky")["last_failure"]["attempt"] == 1);
    running.signal(Signal::INT);
    assert_eq!(code(&running.end()), 130);
    assert_eq!(sandbox.show("flaky")["status"], "cancelled");
}

#[test]
fn what_makes_no_sense_about_attempts_is_one_line() {
    let sandbox = Sandbox::new();
    let refused = |options: &[&str], words: &[&str]| assert_refused(&sandbox.run(options, "true"), 64, words);
    refused(&["--max-attempts", "2"], &["--max-attempts", "--disposition rerunnable"]);
    refused(&["--disposition", "rerunnable", "--max-attempts", "0"], &["--max-attempts", "0"]);
    refused(&["--backoff", "1s"], &["--max-attempts"]);
    refused(&["--deadline", "soon"], &["--deadline", "`1h 30m`"]);
    refused(&["--deadline", "10"], &["--deadline", "`90s`"]);
    assert_refused(&sandbox.run(&["--parent", "nobody"], "true"), 66, &["`nobody`", "store.db"]);
    refused(&["--id", "p", "--parent", "p"], &["parent"]);
}

#[tokio::test]
async fn the_child_of_a_cancelled_parent_is_cancelled() {
    let sandbox = Sandbox::new();
    let former = FormerHost::of(&sandbox.store()).await;
    let parent = former.register(declared("parent", &["true"], RecoveryDisposition::Rerunnable)).await;
    former.0.request_process_cancel(&parent, Some("enough".to_owned())).await.expect("requested");
    let on_end = ParentEndRule::RequestCancel;
    let registration = declared("left", &["true"], RecoveryDisposition::Rerunnable);
    former.register(registration.with_parent(ProcessParent { process_id: parent, on_end })).await;
    former.die().await;
    let output = sandbox.run(&["--id", "child", "--parent", "parent"], "echo it runs; sleep 1000");
    assert_eq!((code(&output), stdout(&output)), (143, String::new()), "{}", stderr(&output));
    for id in ["parent", "left", "child"] {
        assert_eq!(sandbox.show(id)["status"], "cancelled", "{id}");
        assert!(output_lines(&sandbox.events(id)).is_empty(), "{id} ran");
    }
    assert_eq!(sandbox.show("child")["parent"]["process_id"], "parent");
}

#[tokio::test]
async fn a_child_that_runs_is_asked_to_stop_when_its_parent_ends() {
    let sandbox = Sandbox::new();
    let go = sandbox.path("go").display().to_string();
    let script = format!("until [ -e {go} ]; do sleep 0.02; done");
    let former = FormerHost::of(&sandbox.store()).await;
    former.register(declared("parent", &["/bin/sh", "-c", &script], RecoveryDisposition::Rerunnable)).await;
    former.die().await;
    let mut running = sandbox.start(&["--id", "child", "--parent", "parent"], "echo ready; exec sleep 1000");
    assert_eq!(running.line(), "ready");
    fs::write(&go, "").expect("a file");
    let output = running.end();
    assert_eq!(code(&output), 143, "{}", stderr(&output));
    assert_eq!(sandbox.show("parent")["status"], "completed");
    let outcome = sandbox.show("child")["outcome"].clone();
    assert!(outcome["message"].as_str().is_some_and(|message| message.contains("`parent`")), "{outcome}");
}

/// Between the begin of an attempt, which is the worker's, and the marker, which is the executor's, nothing runs yet.
#[tokio::test]
async fn a_host_that_died_between_the_attempt_and_its_marker_has_left_nothing_to_be_found() {
    let sandbox = Sandbox::new();
    let former = FormerHost::of(&sandbox.store()).await;
    for (id, disposition) in [("bound", RecoveryDisposition::OwnerBound), ("again", RecoveryDisposition::Rerunnable)] {
        let id = former.register(declared(id, &["echo", "hello"], disposition)).await;
        former.begin(&id, former.liveness()).await;
    }
    former.die().await;
    let output = sandbox.run(&["--id", "next"], "exit 5");
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let bound = sandbox.show("bound");
    assert_eq!((&bound["status"], &bound["attempts"]), (&"abandoned".into(), &1.into()));
    let remains = &bound["outcome"]["evidence"]["detail"]["remains"];
    assert_eq!(*remains, json!({"nothing_left_alive": true, "attempts": []}));
    let again = sandbox.show("again");
    assert_eq!((&again["status"], &again["outcome"]["value"]["attempt"]), (&"completed".into(), &2.into()));
    assert_eq!(output_lines(&sandbox.events("again")), [("stdout".into(), "hello".into())]);
    assert!(stderr(&output).contains("`again` runs again as attempt 2"), "{}", stderr(&output));
}

/// Before the registry counted attempts, hosts did: their events are still in stores.
#[tokio::test]
async fn what_an_attempt_of_an_older_store_has_left_is_found_by_its_own_record() {
    let sandbox = Sandbox::new();
    let marker = "00112233445566778899aabbccddeef2";
    let mut left = process::Command::new("sleep").arg("1000").env("PROCTOR_MARKER", marker).spawn().expect("it starts");
    let former = FormerHost::of(&sandbox.store()).await;
    let id = former.register(declared("old", &["true"], RecoveryDisposition::OwnerBound)).await;
    let payload = |attempt: u32, marker: &str| json!({"attempt": attempt, "marker": marker});
    let events = vec![
        ProcessEventAppendRequest::new("command.attempt_started", payload(1, "00112233445566778899aabbccddeef1")),
        ProcessEventAppendRequest::new("command.attempt_started", payload(2, marker)),
    ];
    former.0.append_events(&id, events).await.expect("appended");
    let lease = former.claim(&id, former.liveness()).await;
    let started = ProcessStarted { owner: lease.owner.clone(), started_at_ms: 1 };
    former.0.record_first_started_fenced(&id, started, lease.fence()).await.expect("recorded");
    former.die().await;
    let output = sandbox.run(&["--id", "next"], "true");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let status = left.wait().expect("it has ended");
    assert!(!status.success());
    let evidence = sandbox.show("old")["outcome"]["evidence"].clone();
    let attempts = evidence["detail"]["remains"]["attempts"].as_array().expect("a list").clone();
    let found: Vec<_> = attempts.iter().map(|attempt| (attempt["attempt"].clone(), attempt["found"].clone())).collect();
    assert_eq!(found, [(Value::from(1), Value::from(0)), (Value::from(2), Value::from(1))], "{evidence}");
}

#[tokio::test]
async fn what_passed_its_deadline_while_no_host_was_there_is_failed_by_the_next() {
    let sandbox = Sandbox::new();
    let former = FormerHost::of(&sandbox.store()).await;
    let registration = declared("late", &["echo", "hello"], RecoveryDisposition::Rerunnable);
    former.register(registration.with_deadline_ms(1)).await;
    former.die().await;
    let output = sandbox.run(&["--id", "next"], "true");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(sandbox.show("late")["outcome"]["code"], "deadline_passed");
    assert!(stderr(&output).contains("recovery: `late` is failed"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_recovered_command_that_lacks_a_variable_is_left_for_a_host_that_has_it() {
    let sandbox = Sandbox::new();
    let former = FormerHost::of(&sandbox.store()).await;
    let mut registration = declared("needy", &["true"], RecoveryDisposition::OwnerBound);
    registration.input.payload["env_names"] = json!(["NO_SUCH_VARIABLE"]);
    former.register(registration).await;
    former.die().await;
    let output = sandbox.run(&["--id", "next"], "true");
    let said = stderr(&output);
    assert_eq!(code(&output), 0, "{said}");
    assert!(said.contains("recovery: `needy` is left alone") && said.contains("NO_SUCH_VARIABLE"), "{said}");
    let shown = sandbox.show("needy");
    assert_eq!((&shown["status"], &shown["attempts"], &shown["lease"]), (&"running".into(), &0.into(), &Value::Null));
}

#[tokio::test]
async fn an_interrupt_cancels_what_was_recovered_and_cannot_go_on_in_another_host() {
    let sandbox = Sandbox::new();
    let former = FormerHost::of(&sandbox.store()).await;
    former.register(declared("early", &["sleep", "1000"], RecoveryDisposition::OwnerBound)).await;
    former.die().await;
    let mut running = sandbox.start(&["--id", "next"], "echo ready; sleep 1000");
    assert_eq!(running.line(), "ready");
    running.signal(Signal::TERM);
    assert_eq!(code(&running.end()), 143);
    let shown = sandbox.show("early");
    assert_eq!((&shown["status"], &shown["outcome"]["message"]), (&"cancelled".into(), &"cancelled by SIGTERM".into()));
}

#[tokio::test]
async fn as_many_commands_as_were_left_are_recovered_although_few_run_at_once() {
    let sandbox = Sandbox::new();
    let former = FormerHost::of(&sandbox.store()).await;
    let ids: Vec<String> = (0..12).map(|number| format!("left-{number:02}")).collect();
    for id in &ids {
        former.register(declared(id, &["sleep", "0.05"], RecoveryDisposition::Rerunnable)).await;
    }
    former.die().await;
    let output = sandbox.run(&["--id", "next"], "true");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for id in &ids {
        assert_eq!(sandbox.show(id)["status"], "completed", "{id}: {}", stderr(&output));
    }
    let said = stderr(&output);
    assert!(said.lines().last().is_some_and(|line| line.starts_with("proctor: next: ")), "{said}");
}

/// A request of an abandonment is honoured as soon as nobody holds the process.
#[tokio::test]
async fn a_requested_abandonment_is_done_by_the_next_host() {
    let sandbox = Sandbox::new();
    let former = FormerHost::of(&sandbox.store()).await;
    let request = AbandonRequest { requested_by: "somebody".to_owned(), requested_at_ms: 1, reason: None };
    let id = former.register(declared("outside", &["true"], RecoveryDisposition::ExternallyOwned)).await;
    former.0.request_process_abandon(&id, request).await.expect("requested");
    former.die().await;
    assert_eq!(code(&sandbox.run(&["--id", "next"], "true")), 0);
    assert_eq!(sandbox.show("outside")["outcome"]["evidence"]["writer"], "reconciled_request");
}
