//! Every registry keeps the contract: one line each.

use registry_tests::registry_backend::RegistryBackend;
use registry_tests::registry_conformance;

registry_conformance!(memory_direct, RegistryBackend::memory_direct());
registry_conformance!(memory_watched, RegistryBackend::memory_watched());
registry_conformance!(memory_actors, RegistryBackend::memory_actors());
registry_conformance!(memory_two_registries, RegistryBackend::memory_two_registries());
registry_conformance!(memory_remote, RegistryBackend::memory_remote());
registry_conformance!(sqlite_direct, RegistryBackend::sqlite_direct());
registry_conformance!(sqlite_actors, RegistryBackend::sqlite_actors());
registry_conformance!(sqlite_two_registries, RegistryBackend::sqlite_two_registries());
registry_conformance!(sqlite_remote, RegistryBackend::sqlite_remote());
