//! A served host as a second process, for as long as it is measured.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::Mutex,
    time::timeout,
};

/// How long it may take to come up and to go down.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct HttpHost {
    child: Mutex<Child>,
    pid: u32,
    base: String,
    token: String,
}

impl HttpHost {
    pub(super) async fn start(store: &Path, streams: u16) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--requests-per-second", "0"])
            .args(["--concurrent-runs", &super::http_rows::CONCURRENT_RUNS.to_string()])
            // One caller gets half of them.
            .args(["--max-streams", &(u32::from(streams) * 2).to_string()])
            .arg("--store")
            .arg(store)
            .env("PROCTOR_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a host")?;
        let pid = child.id().context("the host ended at once")?;
        let mut lines = BufReader::new(child.stderr.take().context("the host says nothing")?).lines();
        let announced = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, place)) = line.split_once("page at http://")
                    && let Some((address, _)) = place.split_once('/')
                {
                    return Ok(address.to_owned());
                }
            }
            anyhow::bail!("the host did not come up")
        };
        let address = timeout(PATIENCE, announced).await.context("the host does not come up")??;
        // What it says later is of use to whoever measures.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
            }
        });
        let tokens = fs::read_to_string(crate::serve::credentials::Credentials::path(store))?;
        let tokens: toml::Table = tokens.parse()?;
        let token = tokens["token"][0]["secret"].as_str().context("the tokens have no secret")?.to_owned();
        Ok(Self { child: Mutex::new(child), pid, base: format!("http://{address}/api/v1"), token })
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to end, and waits for it.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid.cast_signed()).context("a pid is not 0")?;
        kill_process(pid, Signal::TERM)?;
        timeout(PATIENCE, self.child.lock().await.wait()).await.context("the host does not end")??;
        Ok(())
    }
}

/// How much memory an operating-system process has.
pub(super) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let resident = pages.split_whitespace().nth(1).context("statm has a second number")?;
    Ok(resident.parse::<u64>()? * rustix::param::page_size() as u64)
}
