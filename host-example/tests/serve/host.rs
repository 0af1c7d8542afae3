//! A served host that can be killed, started again at the same place, and asked.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{self, Child, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Answer, ask, read_answer};

/// How long anything may take that does not hang.
pub(crate) const BOUND: Duration = Duration::from_secs(90);

pub(crate) const PROCTOR: &str = env!("CARGO_BIN_EXE_proctor");

/// A host that is served, or was.
pub(crate) struct Host {
    directory: TempDir,
    arguments: Vec<String>,
    child: Child,
    /// Where it serves; the next one serves there too.
    pub(crate) address: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
    told: mpsc::Receiver<()>,
}

impl Host {
    /// Starts one over a new store, with further arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_, _| {})
    }

    /// The same, after something was done to its directory and its command.
    pub(crate) fn start_with(arguments: &[&str], prepare: impl FnOnce(&TempDir, &mut process::Command)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let mut command = serve_command(&directory, anywhere, &arguments);
        prepare(&directory, &mut command);
        let (child, said, told) = spawn(&mut command);
        let mut host = Self { directory, arguments, child, address: anywhere, said, told };
        host.address = host.announced();
        host
    }

    /// Starts the next host, once this one has ended.
    pub(crate) fn restart(&mut self) {
        (self.child, self.said, self.told) = spawn(&mut serve_command(&self.directory, self.address, &self.arguments));
        assert_eq!(self.announced(), self.address);
    }

    /// The address of its page.
    fn announced(&self) -> SocketAddr {
        let line = self.said_line("page at http://");
        let place = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
        place.parse().unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Waits for a line on stderr.
    pub(crate) fn said_line(&self, part: &str) -> String {
        let until = Instant::now() + BOUND;
        loop {
            let found = self.said.lock().expect("lines").iter().find(|line| line.contains(part)).cloned();
            if let Some(line) = found {
                return line;
            }
            let left = until.saturating_duration_since(Instant::now());
            // The lines first: the last ones come together with the end.
            if self.told.recv_timeout(left).is_err() {
                let said = self.said.lock().expect("lines").join("\n");
                assert!(said.contains(part), "expected a line with {part:?}, found:\n{said}");
            }
        }
    }

    /// All lines on stderr so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("lines").join("\n")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("s.db")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("s.db.sock")
    }

    pub(crate) fn token(&self) -> String {
        let text = fs::read_to_string(self.path("s.db.tokens")).expect("tokens");
        let line = text.lines().find_map(|line| line.strip_prefix("secret = ")).expect("a secret");
        line.trim_matches('"').to_owned()
    }

    /// Dies without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it was there");
        self.child.wait().expect("its end");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("it is there");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        ended_within(&mut self.child, BOUND).unwrap_or_else(|| panic!("it does not end; it said:\n{}", self.said()))
    }

    /// What the kernel tells of it.
    pub(crate) fn proc_file(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }

    /// How much memory it has, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(self.proc_file("status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// A request with the token of this host.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n",
            self.address,
            self.token()
        );
        match body {
            None => request.push_str("\r\n"),
            Some(body) => {
                let body = body.to_string();
                let length = body.len();
                request.push_str(&format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"));
            }
        }
        request.into_bytes()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        ask(self.address, &self.request("GET", path, None)).expect("an answer")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        ask(self.address, &self.request("POST", path, Some(body))).expect("an answer")
    }

    /// Asks through the Unix socket.
    pub(crate) fn get_locally(&self, path: &str) -> Answer {
        let mut stream = UnixStream::connect(self.socket()).expect("the socket");
        stream.set_read_timeout(Some(BOUND)).expect("a bound");
        stream.write_all(&self.request("GET", path, None)).expect("sent");
        read_answer(&mut BufReader::new(stream)).expect("an answer")
    }

    /// Starts a shell script.
    pub(crate) fn start_script(&self, id: &str, disposition: &str, script: &str) {
        let body = json!({
            "process_id": id, "disposition": disposition,
            "command": {"argv": ["sh", "-c", script], "cwd": self.directory.path()},
        });
        let answer = self.post("/api/v1/processes", &body);
        assert_eq!(answer.status, 201, "{}", answer.json());
    }

    /// Waits for the end of a process; answers it.
    pub(crate) fn outcome_of(&self, id: &str) -> Value {
        let answer = self.get(&format!("/api/v1/processes/{id}/wait?within_ms=60000")).json();
        assert_eq!(answer["answer"], "completed", "{answer}");
        answer["process"].clone()
    }

    /// Waits until a process has written a line.
    pub(crate) fn wait_for_output(&self, id: &str) {
        let path = format!("/api/v1/processes/{id}/wait?event_type=command.output&within_ms=60000");
        let answer = self.get(&path).json();
        assert_eq!(answer["answer"], "happened", "{answer}");
    }

    /// Runs a verb on its store.
    pub(crate) fn proctor(&self, arguments: &[&str]) -> Output {
        let mut command = process::Command::new(PROCTOR);
        isolated(&mut command, &self.directory).args(arguments).output().expect("proctor starts")
    }

    /// The events of a process as the store has them.
    pub(crate) fn stored_events(&self, id: &str) -> Vec<Value> {
        let store = self.store().display().to_string();
        let output = self.proctor(&["events", "--json", "--store", &store, id]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("the host said:\n{}", self.said());
        }
    }
}

/// Waits for the end of a child, for a while.
pub(crate) fn ended_within(child: &mut Child, bound: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return Some(status);
        }
        if Instant::now() > until {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A user with nothing but this directory.
pub(crate) fn isolated<'a>(command: &'a mut process::Command, directory: &TempDir) -> &'a mut process::Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PROCTOR_") {
            command.env_remove(name);
        }
    }
    command
        .env("HOME", directory.path())
        .env("XDG_STATE_HOME", directory.path())
        .env("XDG_CONFIG_HOME", directory.path())
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
}

fn serve_command(directory: &TempDir, address: SocketAddr, arguments: &[String]) -> process::Command {
    let mut command = process::Command::new(PROCTOR);
    isolated(&mut command, directory)
        .args(["serve", "--requests-per-second", "0", "--listen", &address.to_string(), "--store"])
        .arg(directory.path().join("s.db"))
        .args(arguments);
    command
}

fn spawn(command: &mut process::Command) -> (Child, Arc<Mutex<Vec<String>>>, mpsc::Receiver<()>) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("proctor starts");
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let said = Arc::new(Mutex::new(Vec::new()));
    let (tell, told) = mpsc::channel();
    let lines = Arc::clone(&said);
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            lines.lock().expect("lines").push(line);
            // Nobody may be waiting.
            let _ = tell.send(());
        }
    });
    (child, said, told)
}
