//! How far projections of the change feed have come, as whoever projects answers it.

use async_trait::async_trait;

use crate::domain::ProjectionWatermark;

/// Answers how far projections of the change feed have come. It is asked before every command that prunes.
///
/// With several projectors it answers the least of their cursors. One that cannot answer now says so: then nothing is pruned.
#[async_trait]
pub trait ProjectionSource: Send + Sync {
    /// The watermark now. It may be older than the truth, never newer. May be dropped at any time.
    ///
    /// # Errors
    /// [`ProjectionUnknown`]; the pass ends and is tried again later.
    async fn watermark(&self) -> Result<ProjectionWatermark, ProjectionUnknown>;
}

/// How far projections have come is not known now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("how far the projections have come is not known: {reason}")]
pub struct ProjectionUnknown {
    /// Why.
    pub reason: String,
}

/// Nobody projects the feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoProjection;

#[async_trait]
impl ProjectionSource for NoProjection {
    async fn watermark(&self) -> Result<ProjectionWatermark, ProjectionUnknown> {
        Ok(ProjectionWatermark::NoProjector)
    }
}

#[async_trait]
impl<F: Fn() -> Result<ProjectionWatermark, ProjectionUnknown> + Send + Sync> ProjectionSource for F {
    async fn watermark(&self) -> Result<ProjectionWatermark, ProjectionUnknown> {
        self()
    }
}
