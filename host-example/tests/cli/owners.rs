//! Who owns a store or a socket: another user, a host that comes up or goes down, a verb for a moment, or nobody who can be asked.

use std::{
    fs,
    io::Read,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixListener,
        process::CommandExt,
    },
    time::Instant,
};

use registry_actor::log::{SqliteLog, SqliteOptions};
use serde_json::json;

use super::*;

const NOBODY: u32 = 65_534;

#[test]
fn a_listener_of_another_user_is_told_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.0.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let binary = sandbox.path("proctor-of-all");
    fs::copy(PROCTOR, &binary).expect("a copy");
    let theirs = sandbox.path("theirs");
    fs::create_dir(&theirs).expect("a directory");
    chown(&theirs, Some(NOBODY), Some(NOBODY)).expect("an owner");
    let store = theirs.join("s.db").display().to_string();
    let mut serve = Command::new(&binary);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--store", &store]).uid(NOBODY).gid(NOBODY).env_clear();
    serve.current_dir("/").env("HOME", &theirs).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let _served = sandbox.await_page(serve.spawn().expect("proctor starts"));
    let submitted = sandbox.proctor(&["submit", "--store", &store, "--env", "SECRET=s", "--", "true"]);
    assert_refused(&submitted, 77, &["nothing was sent", "found a host of the user with id 65534", "--url"]);
    assert_eq!(json_lines(&sandbox.done(&["list", "--json", "--store", &store])).len(), 0);
}

#[test]
fn a_socket_that_another_user_has_put_there_is_told_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let socket = sandbox.path("store.db.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    chown(&socket, Some(NOBODY), Some(NOBODY)).expect("an owner");
    let submitted = sandbox.proctor(&["submit", "--store", &sandbox.store(), "--", "true"]);
    assert_refused(&submitted, 77, &["nothing was sent", "found a file of the user with id 65534"]);
    let mut sent = Vec::new();
    listener.accept().expect("a connection").0.read_to_end(&mut sent).expect("it is closed");
    assert!(sent.is_empty(), "{sent:?}");
}

#[test]
fn who_has_a_store_for_a_moment_only_is_waited_for() {
    let sandbox = Sandbox::new();
    let log = SqliteLog::open(sandbox.path("store.db"), SqliteOptions::default()).expect("a store");
    let submitting = sandbox.start(&["submit", "--store", &sandbox.store(), "--id", "p", "--", "true"]);
    let serving = sandbox.start(&["serve", "--listen", "127.0.0.1:0", "--store", &sandbox.store()]);
    // Nothing rests on it: both find the store owned, if they are quick enough to look.
    thread::sleep(Duration::from_millis(700));
    drop(log);
    let _served = sandbox.await_page(serving);
    let submitted = bounded(submitting);
    assert_eq!((code(&submitted), stdout(&submitted).as_str()), (0, "p\n"), "{submitted:?}");
    sandbox.done(&["wait", "--store", &sandbox.store(), "p"]);
}

#[test]
fn an_owner_that_does_not_listen_any_more_is_stopping() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let served = sandbox.serve_with(&["--store", &store, "--on-stop", "wait", "--stop-patience", "60s"]);
    sandbox.done(&["submit", "--store", &store, "--id", "p", "--", "sleep", "600"]);
    sandbox.done(&["wait", "--store", &store, "p", "--event", "process.attempt_started"]);
    kill_process(pid(&served.child), Signal::TERM).expect("the host is there");
    let until = Instant::now() + BOUND;
    while sandbox.path("store.db.sock").exists() {
        assert!(Instant::now() < until, "the socket stays");
        thread::yield_now();
    }
    let cancelled = sandbox.proctor(&["cancel", "--store", &store, "p"]);
    assert_refused(&cancelled, 75, &["owned by", "is stopping"]);
}

#[test]
fn where_a_host_is_its_settings_say() {
    let sandbox = Sandbox::new();
    let (store, socket) = (sandbox.text("elsewhere.db"), sandbox.text("elsewhere.socket"));
    fs::create_dir_all(sandbox.path("config/proctor")).expect("a directory");
    let settings = sandbox.path("config/proctor/serve.toml");
    fs::write(&settings, format!("store = '{store}'\nsocket = '{socket}'\n")).expect("settings");
    let at_rest = sandbox.done(&["submit", "--id", "early", "--", "true"]);
    assert!(stderr(&at_rest).contains("elsewhere.db"), "{at_rest:?}");
    let _served = sandbox.serve_with(&[]);
    assert_eq!(code(&sandbox.proctor(&["submit", "--wait", "--id", "p", "--", "true"])), 0);
    for place in [&[][..], &["--store", &store]] {
        let shown = json_lines(&sandbox.done(&[&["show", "--json", "p"], place].concat())).remove(0);
        assert_eq!(shown["store"], json!(store));
        sandbox.done(&[&["submit", "--wait"], place, &["--", "true"]].concat());
    }
    assert!(stdout(&sandbox.done(&["open"])).starts_with("http://127.0.0.1:"));
    fs::write(&settings, "stor = 1").expect("settings");
    assert_refused(&sandbox.proctor(&["submit", "--", "true"]), 64, &["serve.toml", "stor"]);
}

#[test]
fn a_file_that_is_no_store_hides_no_other() {
    let sandbox = Sandbox::new();
    sandbox.done(&["run", "--id", "p", "--", "true"]);
    let bad = sandbox.path("state/proctor/store-2.db");
    fs::write(&bad, "this is no store, and never was: it is a text that is longer than a header").expect("a file");
    for args in [&["show", "p"][..], &["wait", "p"], &["list"]] {
        let output = sandbox.done(args);
        assert!(stderr(&output).contains("skipped: ") && stderr(&output).contains("store-2.db"), "{output:?}");
    }
    let unknown = sandbox.proctor(&["show", "q"]);
    assert_refused(&unknown, 65, &["store-2.db", "none of the stores"]);
    fs::remove_file(&bad).expect("removed");
    assert_refused(&sandbox.proctor(&["show", "q"]), 66, &["unknown process `q`"]);
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_a_store_at_rest() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path(&"d".repeat(100));
    fs::create_dir(&directory).expect("a directory");
    let store = directory.join("store.db").display().to_string();
    sandbox.done(&["submit", "--store", &store, "--id", "p", "--", "true"]);
    let cancelled = sandbox.done(&["cancel", "--store", &store, "p"]);
    assert!(stderr(&cancelled).contains("no host is running"), "{cancelled:?}");
    assert_refused(&sandbox.proctor(&["open", "--store", &store]), 69, &["no host is running"]);
}
