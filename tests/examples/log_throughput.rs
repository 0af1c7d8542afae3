//! How many batches of one event a bare log stores per second, with so many submitters that each wait for their answer.
//!
//! `log_throughput [memory | DIRECTORY] [submitters] [processes] [seconds]`. A directory gets a fresh store. Figures of
//! different runs compare only when the disk was equally quiet; run the alternatives in turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use registry_actor::domain::ProcessEventAppendRequest;
use registry_actor::log::{MemoryLog, SqliteLog, SqliteOptions};
use registry_actor::port::ProcessLog;
use registry_tests::log_author::{Author, append, submit};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().unwrap_or_else(|| "memory".to_owned());
    let mut number = |default| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (submitters, processes, seconds) = (number(64), number(64), number(3));
    let checkpoint_pages = number(2_000);
    let directory = (place != "memory").then(|| tempfile::tempdir_in(&place).expect("a directory"));
    let log: Arc<dyn ProcessLog> = match &directory {
        None => Arc::new(MemoryLog::new("store")),
        Some(directory) => Arc::new(
            SqliteLog::open(
                directory.path().join("store.db"),
                SqliteOptions::default().with_checkpoint_pages(u32::try_from(checkpoint_pages).expect("pages")),
            )
            .expect("a store"),
        ),
    };
    let mut authors = Vec::new();
    for process in 0..processes.max(submitters) {
        authors.push(Author::registered(&*log, &format!("process-{process}")).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stored = Arc::new(AtomicU64::new(0));
    let per_submitter = authors.len().div_ceil(submitters as usize);
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for chunk in authors.chunks(per_submitter) {
        let (log, stop, stored, mut own) = (Arc::clone(&log), Arc::clone(&stop), Arc::clone(&stored), chunk.to_vec());
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                let count = own.len();
                let author = &mut own[turn % count];
                turn += 1;
                let text = "a line of output that is as long as lines of output are, more or less, on most days";
                let payload = serde_json::json!({ "line": turn, "text": text });
                let batch = author.batch(&[append(ProcessEventAppendRequest::new("output", payload))]);
                let asked = Instant::now();
                let head = submit(&*log, batch.clone()).await.expect("stored");
                latencies.push(asked.elapsed());
                author.install(&batch, head);
                stored.fetch_add(1, Ordering::Relaxed);
            }
            latencies
        }));
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a submitter"));
    }
    let elapsed = begun.elapsed();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{submitters} submitters, {} processes: {:.0} batches/s, p50 {:?}, p99 {:?}, max {:?}",
        authors.len(),
        stored.load(Ordering::Relaxed) as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
    log.close().await;
    if let Some(directory) = &directory {
        let bytes = std::fs::metadata(directory.path().join("store.db")).expect("a file").len();
        println!("{} bytes on disk for each batch", bytes / stored.load(Ordering::Relaxed).max(1));
    }
}
