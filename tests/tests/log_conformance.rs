//! Every log keeps the contract: one line each.

use registry_tests::log_backend::{MemoryBackend, SqliteBackend};
use registry_tests::log_conformance;

log_conformance!(memory, MemoryBackend::default());
log_conformance!(sqlite, SqliteBackend::default());
