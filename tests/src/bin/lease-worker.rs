//! A worker in a process of its own: see `registry_tests::lease_worker`.

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = registry_tests::lease_worker::work_until_killed(&arguments).await {
        eprintln!("lease-worker: {error}");
        std::process::exit(1);
    }
}
