//! Every watched registry keeps the claims of whoever waits, watches and drives: one line each. A registry that does not
//! tell of its commits is wrapped, one that does is listened to.

use registry_tests::registry_backend::RegistryBackend;
use registry_tests::watching_conformance;

watching_conformance!(memory_decorated, RegistryBackend::memory_direct());
watching_conformance!(memory_native, RegistryBackend::memory_actors());
watching_conformance!(memory_remote, RegistryBackend::memory_remote());
watching_conformance!(sqlite_decorated, RegistryBackend::sqlite_direct());
watching_conformance!(sqlite_native, RegistryBackend::sqlite_actors());
watching_conformance!(sqlite_remote, RegistryBackend::sqlite_remote());
