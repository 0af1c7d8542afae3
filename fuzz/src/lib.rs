//! Runs a fuzz target of the registry by name. The bodies stand in `registry_actor::fuzzing`, where a stable compiler can
//! replay the corpus.

/// Runs the target of that name.
///
/// # Panics
/// When there is none, and when the bytes break it.
pub fn run(name: &str, bytes: &[u8]) {
    let target = registry_actor::fuzzing::all().into_iter().find(|target| target.name == name);
    (target.expect("the target is there").run)(bytes);
}
