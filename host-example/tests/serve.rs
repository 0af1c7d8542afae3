//! `proctor serve` as it is shipped: the real binary under crashes, abuse and stops.
//!
//! What a test waits for is a line, an answer or the end of a process. Times are bounds on hanging.

#[path = "serve/abuse.rs"]
mod abuse;
#[path = "serve/client.rs"]
mod client;
#[path = "serve/dice.rs"]
mod dice;
#[path = "serve/host.rs"]
mod host;
#[path = "serve/resume.rs"]
mod resume;
#[path = "serve/slow_clients.rs"]
mod slow_clients;
#[path = "serve/startup.rs"]
mod startup;
#[path = "serve/stop.rs"]
mod stop;
