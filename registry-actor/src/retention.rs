//! Retention: which ended processes are pruned when, as a policy, and the task that applies it on a schedule.
//!
//! The [policy](RetentionPolicy) is pure: time goes in, [prune filters](crate::domain::PruneFilter) come out. The
//! [task](Retention) turns them into commands of a registry, each one bounded transaction. It knows neither which log
//! stands behind the registry nor who projects the change feed: how far projections have come is asked of a
//! [`ProjectionSource`] before every command, so that a projector which lags is never overtaken.

#[cfg(feature = "actors")]
mod believed_clock;
mod policy;
#[cfg(feature = "actors")]
mod projection;
#[cfg(feature = "actors")]
mod report;
#[cfg(feature = "actors")]
mod schedule;
#[cfg(feature = "actors")]
mod task;

pub use policy::{InvalidRetentionPolicy, Retain, RetentionPolicy, RetentionRule};
#[cfg(feature = "actors")]
pub use projection::{NoProjection, ProjectionSource, ProjectionUnknown};
#[cfg(feature = "actors")]
pub use report::{PassEnd, RetentionError, RetentionReport, RetentionStatus};
#[cfg(feature = "actors")]
pub use schedule::RetentionSchedule;
#[cfg(feature = "actors")]
pub use task::Retention;
