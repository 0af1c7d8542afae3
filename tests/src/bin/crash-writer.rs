//! A host that is made to die: see `registry_tests::crash_writer`.

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = registry_tests::crash_writer::write_until_killed(&arguments).await {
        eprintln!("crash-writer: {error}");
        std::process::exit(1);
    }
}
