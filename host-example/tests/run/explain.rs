//! `proctor explain`: each step that a process can stand before, in a store that a former host has left.

use registry_actor::{
    domain::{
        AttemptFailure, LeaseOwnerLiveness, ProcessAwaitOutput, ProcessId, ProcessInput, ProcessRegistration,
        RecoveryDisposition, RetryPolicy,
    },
    port::ProcessRegistryExt,
};
use rustix::process::Signal;
use serde_json::Value;

use super::{
    Command, FormerHost, ProcessRegistry, Sandbox, assert_refused, code, declared, json_lines, stderr, stdout,
};

impl Sandbox {
    /// What is explained, and the exit code.
    fn explain(&self, id: &str) -> (Value, i32) {
        let output = self.read("explain", &[id]);
        assert!(stderr(&output).is_empty(), "{}", stderr(&output));
        (json_lines(&output).remove(0), code(&output))
    }

    fn explain_in_words(&self, id: &str) -> String {
        let store = self.store();
        stdout(&self.output(&["explain", "--store", &store, id]))
    }
}

async fn fail_first_attempt(former: &FormerHost, id: &ProcessId) {
    let lease = former.begin(id, former.liveness()).await;
    let failure = AttemptFailure::execution("exit_status", "the command exited with status 9");
    former.0.execute(id, Command::FailAttempt { failure, fence: lease.fence() }).await.expect("failed");
}

#[tokio::test]
async fn each_step_is_explained_by_what_the_next_host_would_do() {
    use RecoveryDisposition::{ExternallyOwned, OwnerBound, Rerunnable};
    let sandbox = Sandbox::new();
    let former = FormerHost::of(&sandbox.store()).await;
    former.register(declared("fresh", &["true"], OwnerBound)).await;
    for (id, disposition) in [("bound", OwnerBound), ("again", Rerunnable)] {
        let id = former.register(declared(id, &["true"], disposition)).await;
        former.begin(&id, former.liveness()).await;
    }
    let retry = RetryPolicy { max_attempts: 3, initial_backoff_ms: 3_600_000, max_backoff_ms: 3_600_000 };
    let id = former.register(declared("pausing", &["true"], Rerunnable).with_retry(retry)).await;
    fail_first_attempt(&former, &id).await;
    former.register(declared("outside", &["true"], ExternallyOwned)).await;
    let other = ProcessInput::new("other", serde_json::json!({}));
    former.register(ProcessRegistration::new(ProcessId::new("foreign").expect("an id"), other, Rerunnable)).await;
    let id = former.register(declared("stuck", &["true"], OwnerBound)).await;
    let lease = former.begin(&id, LeaseOwnerLiveness::Opaque).await;
    former.0.complete_process_lease(&lease).await.expect("given up");
    let id = former.register(declared("opaque", &["true"], OwnerBound)).await;
    former.begin(&id, LeaseOwnerLiveness::Opaque).await;
    let mut needy = declared("needy", &["true"], Rerunnable);
    needy.input.payload["env_names"] = serde_json::json!(["NO_SUCH_VARIABLE"]);
    former.register(needy).await;
    former.register(declared("late", &["true"], OwnerBound).with_deadline_ms(1)).await;
    let id = former.register(declared("asked", &["true"], OwnerBound)).await;
    former.0.request_process_cancel(&id, None).await.expect("requested");
    let id = former.register(declared("over", &["true"], OwnerBound)).await;
    former.0.complete_process(&id, ProcessAwaitOutput::success(Value::Null)).await.expect("ended");

    // While its host lives, nobody else does anything with what it holds.
    let (held, _) = sandbox.explain("bound");
    assert_eq!((&held["step"]["step"], &held["step"]["owner"]["owner_id"]), (&"held".into(), &"a former host".into()));
    former.die().await;

    let step = |id: &str| {
        let (explained, code) = sandbox.explain(id);
        assert_eq!(explained["process_id"], id);
        assert!(explained["since_ms"].is_u64() && !explained["rule"].as_str().expect("a rule").is_empty());
        assert_eq!(code, i32::from(id == "stuck"), "{id}");
        assert_eq!(explained["stuck"] == true, id == "stuck", "{id}");
        let step = &explained["step"];
        (step["step"].as_str().expect("a step").to_owned(), step["action"].as_str().map(str::to_owned))
    };
    let due = |action: &str| ("due".to_owned(), Some(action.to_owned()));
    let awaits = |step: &str| (step.to_owned(), None);
    for (id, expected) in [
        ("fresh", due("run")),
        ("bound", due("abandon")),
        ("again", due("run")),
        ("pausing", awaits("retry_due")),
        ("outside", awaits("external_owner")),
        ("foreign", awaits("executor")),
        ("stuck", awaits("stuck")),
        ("opaque", awaits("held")),
        ("needy", awaits("cannot_run")),
        ("late", due("fail")),
        ("asked", due("cancel")),
        ("over", awaits("ended")),
    ] {
        assert_eq!(step(id), expected, "{id}");
    }
    for (id, words) in [
        ("bound", "declares it abandoned, in the place of a former host"),
        ("pausing", "the last one failed (the command exited with status 9)"),
        ("foreign", "processes of kind `other`"),
        ("stuck", "it was started by `a former host` and is bound to it"),
        ("needy", "NO_SUCH_VARIABLE"),
        ("over", "it has ended, it is completed"),
    ] {
        let said = sandbox.explain_in_words(id);
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    assert_refused(&sandbox.output(&["explain", "--store", &sandbox.store(), "nobody"]), 66, &["nobody"]);

    // And it does.
    assert_eq!(code(&sandbox.run(&["--id", "next"], "true")), 0);
    let status = |id: &str| sandbox.show(id)["status"].as_str().expect("a status").to_owned();
    let found =
        ["fresh", "bound", "again", "pausing", "outside", "foreign", "stuck", "opaque", "needy", "late", "asked"]
            .map(status);
    let expected = [
        "completed",
        "abandoned",
        "completed",
        "running",
        "running",
        "running",
        "running",
        "running",
        "running",
        "failed",
        "cancelled",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_process_is_explained_beside_its_live_host() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&["--id", "p"], "echo ready; sleep 1000");
    assert_eq!(running.line(), "ready");
    let (held, exit) = sandbox.explain("p");
    assert_eq!((exit, &held["step"]["step"]), (0, &"held".into()));
    let said = sandbox.explain_in_words("p");
    assert!(said.contains(&format!("held by proctor run (pid {})", running.child.id())), "{said}");
    running.signal(Signal::TERM);
    running.end();
    assert_eq!(sandbox.explain("p").0["step"]["state"], "cancelled");
}
