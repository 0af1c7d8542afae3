//! A real browser: Chromium, driven by its debugging protocol over a pipe.
//!
//! It owns the browser's life, one tab of it, and how a person's hands are played. It does not know what the page is about. The
//! protocol is plain JSON between NUL bytes: a crate that types all of it takes longer to build than this whole workspace.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// One browser at a time: each is many processes.
static ONE: Mutex<()> = Mutex::new(());

/// Where Chromium is; it is installed if need be. `None`, said loudly, where that cannot be.
///
/// # Panics
/// On a machine that calls itself `CI`, where nothing may be left out.
pub(crate) fn chromium() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| find().or_else(install)).as_deref()
}

fn find() -> Option<PathBuf> {
    let directories = env::var_os("PATH").unwrap_or_default();
    let among_programs = env::split_paths(&directories).flat_map(|directory| {
        ["chromium", "chromium-browser", "google-chrome", "chrome"].map(|name| directory.join(name))
    });
    env::var_os("PROCTOR_CHROMIUM").map(PathBuf::from).into_iter().chain(among_programs).find(|path| path.exists())
}

fn install() -> Option<PathBuf> {
    // A mirror may be away for a moment.
    let install = "for try in 1 2 3; do
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium && exit 0
        sleep 5
    done
    exit 1";
    let reason = match Command::new("sh").args(["-c", install]).output() {
        Ok(output) if output.status.success() => "apt-get installed none".to_owned(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let found = find();
    if found.is_none() {
        let line =
            format!("\nTHE BROWSER TESTS DID NOT RUN: there is no Chromium, and none can be installed: {reason}\n");
        // Past the capture of the test harness, which shows nothing of tests that pass.
        let _ = std::io::stderr().write_all(line.as_bytes());
        assert!(env::var_os("CI").is_none(), "{line}");
    }
    found
}

/// A browser with one tab.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    told: mpsc::Receiver<Value>,
    session: Option<String>,
    last_call: u64,
    problems: Vec<String>,
    profile: Option<TempDir>,
    _one: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts it with an empty profile.
    pub(crate) fn start(path: &Path) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = TempDir::new().expect("a directory");
        // The protocol is spoken over the descriptors 3 and 4, which a shell can give and `Command` cannot.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#])
            .arg(path)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe", "--window-size=1280,900"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It is many processes, which end together.
            .process_group(0);
        let mut child = command.spawn().expect("a browser");
        let (input, output) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let value = serde_json::from_slice(&message).expect("JSON of the browser");
                message.clear();
                if tell.send(value).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            input,
            told,
            session: None,
            last_call: 0,
            problems: Vec::new(),
            profile: Some(profile),
            _one: one,
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Calls a method of the protocol.
    fn try_call(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        self.last_call += 1;
        let mut message = json!({ "id": self.last_call, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).expect("a browser that lives");
        loop {
            let mut told =
                self.told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the browser says nothing to {method}"));
            if told["id"] != self.last_call {
                self.note(&told);
            } else if let Some(error) = told.get("error") {
                return Err(error.to_string());
            } else {
                return Ok(told["result"].take());
            }
        }
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Keeps what the console would show in red or yellow.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let problem = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => params["exceptionDetails"].to_string(),
            Some("Runtime.consoleAPICalled") if params["type"] == "error" || params["type"] == "warning" => {
                params["args"].to_string()
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                format!("{} {}", params["entry"]["text"], params["entry"]["url"])
            }
            _ => return,
        };
        self.problems.push(problem);
    }

    /// What the console has shown in red or yellow since this was asked last.
    pub(crate) fn problems(&mut self) -> Vec<String> {
        self.evaluate("0");
        std::mem::take(&mut self.problems)
    }

    /// The value of an expression in the page; a promise is awaited.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        self.try_evaluate(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    fn try_evaluate(&mut self, expression: &str) -> Result<Value, String> {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.try_call("Runtime.evaluate", &params)?;
        match answer.get("exceptionDetails") {
            Some(exception) => Err(exception.to_string()),
            None => Ok(answer["result"]["value"].take()),
        }
    }

    /// Waits until the expression is true, and answers its value.
    pub(crate) fn until(&mut self, expression: &str) -> Value {
        let waiting = format!(
            "(async () => {{
                const until = performance.now() + 2000;
                for (;;) {{
                    const found = await ({expression});
                    if (found || performance.now() > until) return found;
                    await new Promise((resolve) => setTimeout(resolve, 40));
                }}
            }})()"
        );
        let until = Instant::now() + PATIENCE;
        loop {
            // A page that is left while it is asked answers with an error.
            let found = self.try_evaluate(&waiting);
            match &found {
                Ok(value) if !matches!(value, Value::Null | Value::Bool(false)) && *value != 0 && *value != "" => {
                    return found.unwrap_or_default();
                }
                _ if Instant::now() < until => {}
                _ => {
                    let text = self.evaluate("document.body.innerText");
                    let problems = self.problems();
                    panic!(
                        "never true: {expression}\nlast: {found:?}\nconsole: {problems:?}\npage:\n{}",
                        text.as_str().unwrap_or("")
                    );
                }
            }
        }
    }

    /// Goes to an address.
    pub(crate) fn go(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
        self.until("document.readyState === 'complete' && location.protocol !== 'about:'");
    }

    /// Loads the page once more.
    pub(crate) fn reload(&mut self) {
        self.evaluate("window.isOld = true");
        self.call("Page.reload", &json!({}));
        self.until("!window.isOld && document.readyState === 'complete'");
    }

    /// Clicks with the mouse on what the expression finds once it is there.
    pub(crate) fn click(&mut self, expression: &str) {
        let place = self.until(&format!(
            "(() => {{
                const found = {expression};
                if (!found || !found.checkVisibility()) return undefined;
                found.scrollIntoView({{ block: 'center' }});
                const box = found.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &params);
        }
    }

    /// Clicks on the button, link, label or summary with these words; in a dialog, if one is open.
    pub(crate) fn click_on(&mut self, words: &str) {
        let words = json!(words);
        self.click(&format!(
            "[...(document.querySelector('dialog[open]') ?? document).querySelectorAll('button, a, label, summary')]
                .find((found) => found.textContent.trim().startsWith({words}) && found.checkVisibility() && !found.disabled)"
        ));
    }

    /// Types into what has the focus.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "ArrowDown" => 40,
            "ArrowUp" => 38,
            _ => i64::from(key.bytes().next().unwrap_or_default().to_ascii_uppercase()),
        };
        let text = if key == "Enter" {
            "\r"
        } else if key.len() == 1 {
            key
        } else {
            ""
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", &params);
        }
    }

    /// Shows the page in `light` or `dark`, and so many pixels wide.
    pub(crate) fn look(&mut self, scheme: &str, width: u32) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Keeps a picture of what is seen, where `PROCTOR_PAGE_PICTURES` names a directory for them.
    pub(crate) fn picture(&mut self, name: &str) {
        let Some(directory) = env::var_os("PROCTOR_PAGE_PICTURES") else { return };
        let picture = self.call("Page.captureScreenshot", &json!({}));
        let bytes = STANDARD.decode(picture["data"].as_str().unwrap_or_default()).expect("a picture");
        std::fs::write(Path::new(&directory).join(format!("{name}.png")), bytes).expect("a file");
    }

    /// What axe-core finds wrong with the page as it is, a line for each rule and place.
    pub(crate) fn accessibility_findings(&mut self) -> Vec<String> {
        let axe = include_str!("../../browser/axe.min.js");
        if self.evaluate("typeof window.axe") != "object" {
            self.evaluate(&format!("{axe};0"));
        }
        let findings = self.evaluate(
            "axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations.flatMap(({ id, nodes }) =>
                nodes.map(({ target, failureSummary }) => `${id} at ${target.join(' ')}: ${failureSummary}`)))",
        );
        findings.as_array().expect("findings").iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
        // A part of it that is not quite dead may write once more; the directory goes with the machine's others then.
        if let Some(profile) = self.profile.take() {
            let _ = profile.close();
        }
    }
}
