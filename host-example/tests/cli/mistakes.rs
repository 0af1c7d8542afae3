//! What people are told who typed something else than they meant, or meant what is not there.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
};

use super::*;

#[test]
fn a_slip_in_a_word_is_answered_with_the_word() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let refused = |args: &[&str], words: &[&str]| assert_refused(&sandbox.proctor(args), 64, words);
    refused(&["sumbit", "--", "true"], &["`submit`"]);
    refused(&["submit", "echo", "hi"], &["`proctor submit -- echo hi`"]);
    refused(&["run", "--store", &store, "ls", "-l"], &["`proctor run --store", "-- ls -l`"]);
    refused(&["submit"], &["COMMAND"]);
    refused(&["wait"], &["ID"]);
    refused(&["wait", "p", "--after", "3"], &["--event"]);
    refused(&["wait", "p", "--timeout", "90"], &["such as `250ms`"]);
    refused(&["signal", "p", "go", "{x"], &["expected JSON"]);
    refused(&["list", "--status", "runing"], &["`running`"]);
    refused(&[], &["`submit`", "`wait`", "`completions`"]);
}

#[test]
fn an_id_that_nobody_has_is_answered_with_those_that_are_like_it() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    sandbox.done(&["submit", "--store", &store, "--id", "nightly-report", "--", "true"]);
    let unknown = |place: &[&str]| {
        for verb in [&["show"][..], &["events"], &["logs"], &["explain"], &["wait"], &["cancel"], &["abandon"]] {
            let output = sandbox.proctor(&[verb, &["nightly-reprot"], place].concat());
            assert_refused(&output, 66, &["unknown process `nightly-reprot`", "did you mean `nightly-report`?"]);
        }
    };
    unknown(&["--store", &store]);
    let served = sandbox.serve();
    unknown(&["--url", &served.url, "--token-file", &sandbox.tokens()]);
    let both = sandbox.proctor(&["cancel", "--store", &store, "nobody", "nightly-report"]);
    assert_eq!(code(&both), 66, "{both:?}");
    assert!(stderr(&both).contains("nightly-report: "), "the other one is asked all the same: {both:?}");
}

#[test]
fn who_does_not_reach_a_host_is_told_why() {
    let sandbox = Sandbox::new();
    let served = sandbox.serve();
    let list = |args: &[&str]| sandbox.proctor(&[&["list"], args].concat());
    assert_refused(&list(&["--url", &served.url]), 77, &["expects a token", "PROCTOR_TOKEN", ".tokens"]);
    let wrong = ["--url", &served.url, "--token", "some-other-token"];
    assert_refused(&list(&wrong), 77, &["does not know this token"]);
    assert_refused(&list(&["--token", "t"]), 64, &["--url"]);
    assert_refused(&list(&["--url", "https://localhost:1"]), 64, &["no TLS"]);
    assert_refused(&list(&["--url", "http://"]), 64, &["http://127.0.0.1:7117"]);
    let link = format!("{}/login/x", served.url);
    assert_refused(&list(&["--url", &link]), 64, &["link for a browser", &served.url]);
    assert_refused(
        &list(&["--url", &served.url, "--token-file", &sandbox.text("none")]),
        66,
        &["cannot read the token"],
    );
    let url = served.url.clone();
    served.stop();
    assert_refused(&list(&["--url", &url]), 69, &["no host answers", "proctor serve"]);
    assert_refused(&list(&["--socket", &sandbox.text("none.sock")]), 69, &["no host listens", "proctor serve"]);
}

#[test]
fn what_is_no_host_is_not_taken_for_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answers = ["HTTP/1.1 404 Not Found", "HTTP/1.1 200 OK"];
    let answering = thread::spawn(move || {
        for status in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).expect("a request");
            write!(stream, "{status}\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>").expect("sent");
        }
    });
    let sandbox = Sandbox::new();
    for _ in answers {
        assert_refused(&sandbox.proctor(&["show", "p", "--url", &url]), 76, &["no proctor host"]);
    }
    answering.join().expect("both were asked");
}

#[test]
fn a_host_of_another_user_is_not_ours() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const NOBODY: u32 = 65_534;
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.0.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let binary = sandbox.path("proctor-of-all");
    fs::copy(PROCTOR, &binary).expect("a copy");
    let _served = sandbox.serve();
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(args).uid(NOBODY).gid(NOBODY).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        bounded(command.spawn().expect("proctor starts"))
    };
    let store = sandbox.store();
    let submitted = as_nobody(&["submit", "--store", &store, "--", "true"]);
    assert_refused(&submitted, 77, &["the user with id 0", "--url"]);
    fs::set_permissions(&store, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_refused(&as_nobody(&["list", "--store", &store]), 77, &["store.db", "no permission"]);
}

#[test]
fn completions_are_there_for_every_shell() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&sandbox.done(&["completions", shell]));
        assert!(script.contains("submit") && script.contains("completions"), "{shell}");
    }
    assert_refused(&sandbox.proctor(&["completions", "bsh"]), 64, &["`bash`"]);
}

#[test]
fn every_verb_has_its_help() {
    let sandbox = Sandbox::new();
    let help = stdout(&sandbox.done(&["--help"]));
    for verb in ["run", "submit", "wait", "list", "events", "logs", "cancel", "open"] {
        assert!(help.contains(&format!("  {verb} ")), "{verb} is not in {help}");
        assert!(stdout(&sandbox.done(&[verb, "--help"])).contains("Usage: proctor"), "{verb}");
    }
    let code_row = "  77  the token is wrong";
    assert!(help.contains(code_row), "{help}");
}
