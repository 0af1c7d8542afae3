//! How a host comes up, and what keeps it from it.

use std::{
    fs,
    os::unix::{fs::FileTypeExt, net::UnixListener},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use super::{
    client::connect,
    host::{Host, PROCTOR, isolated},
};

/// Has the shell lower the soft limit of open files before it becomes the command.
fn limit_open_files(command: &mut Command, limit: u32) {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -S -n {limit} && exec \"$@\""), "sh"]).arg(command.get_program());
    limited.args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    *command = limited;
}

fn serve(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROCTOR);
    isolated(&mut command, directory).arg("serve").args(arguments).output().expect("proctor starts")
}

fn refusal(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_store_that_somebody_serves_is_refused_to_the_next_one() {
    let host = Host::start(&[]);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let store = host.store().display().to_string();
    let (code, said) = refusal(&serve(&elsewhere, &["--store", &store, "--listen", "127.0.0.1:0"]));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains(&store) && said.lines().count() == 1, "{said}");
    assert_eq!(host.get_locally("/readyz").status, 200, "its socket is still its own");
}

/// A host raises its limit for its connections. A command that had it would break where it waits by `select`.
#[test]
fn a_command_has_the_limit_of_open_files_that_the_host_was_started_with() {
    let host = Host::start_with(&[], |_, command| limit_open_files(command, 700));
    let limits = fs::read_to_string(host.proc_file("limits")).expect("its limits");
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    assert!(!open_files.contains(" 700 "), "the host has raised its own: {open_files}");
    host.start_script("asks", "owner_bound", "ulimit -S -n");
    host.outcome_of("asks");
    let lines: Vec<_> = host.stored_events("asks").iter().map(|event| event["payload"]["text"].clone()).collect();
    assert!(lines.contains(&"700".into()), "{lines:?}");
}

#[test]
fn a_port_that_somebody_has_is_refused_and_leaves_nothing() {
    let host = Host::start(&[]);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let store = elsewhere.path().join("s.db").display().to_string();
    let (code, said) = refusal(&serve(&elsewhere, &["--store", &store, "--listen", &host.address.to_string()]));
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains(&host.address.to_string()) && said.contains("--listen"), "{said}");
    assert!(!elsewhere.path().join("s.db.sock").exists());
}

#[test]
fn the_socket_of_a_dead_host_is_replaced_and_that_of_a_living_one_is_not() {
    let mut host = Host::start(&[]);
    host.kill();
    assert!(host.socket().exists(), "a death leaves the file");
    host.restart();
    assert_eq!(host.get_locally("/readyz").status, 200);

    let elsewhere = tempfile::tempdir().expect("a directory");
    let store = elsewhere.path().join("s.db").display().to_string();
    let socket = elsewhere.path().join("other.sock");
    let arguments = ["--store", &store, "--listen", "127.0.0.1:0", "--socket", socket.to_str().expect("text")];
    let living = UnixListener::bind(&socket).expect("a socket");
    let (code, said) = refusal(&serve(&elsewhere, &arguments));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("other.sock") && said.contains("--socket"), "{said}");
    assert!(fs::symlink_metadata(&socket).expect("a file").file_type().is_socket());
    drop(living);

    fs::remove_file(&socket).expect("removed");
    fs::write(&socket, "kept").expect("written");
    let (code, said) = refusal(&serve(&elsewhere, &arguments));
    assert_eq!(code, Some(73), "{said}");
    assert_eq!(fs::read_to_string(&socket).expect("text"), "kept");
}

#[test]
fn the_settings_that_are_printed_are_those_that_hold_when_they_are_read_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let told = ["--print-config", "--store", "/s.db", "--on-stop", "wait", "--max-streams", "7", "--retain", "720h"];
    let told =
        [&told[..], &["--allow-command", "ls,true", "--stop-patience", "1500ms", "--log-format", "json"]].concat();
    let printed = serve(&directory, &told);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let file = directory.path().join("printed.toml");
    fs::write(&file, &printed.stdout).expect("written");
    let again = serve(&directory, &["--print-config", "--config", file.to_str().expect("text")]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&printed.stdout));
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    for line in ["store = \"/s.db\"", "on_stop = \"wait\"", "max_streams = 7", "socket = \"/s.db.sock\""] {
        assert!(text.lines().any(|found| found == line), "expected {line}, found:\n{text}");
    }
}

#[test]
fn a_low_limit_of_open_files_is_raised_to_what_the_connections_take() {
    let host = Host::start_with(&[], |_, command| {
        let mut limited = Command::new("sh");
        limited.args(["-c", r#"ulimit -Sn 100 && exec "$0" "$@""#]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        *command = limited;
    });
    let many: Vec<_> = (0..300).map(|_| connect(host.address).expect("a connection")).collect();
    assert_eq!(host.get("/readyz").status, 200);
    assert!(!host.said().contains("could not be taken"), "{}", host.said());
    drop(many);
}
