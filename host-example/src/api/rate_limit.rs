//! How many requests each caller may make in a second, in the long run.
//!
//! It owns the counts. Who a caller is was found out before; peers of the socket are the host's own user and are not counted.

use std::{num::NonZeroU32, sync::Arc};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};

use super::{Api, access::LocalPeer, problem::Problem};
use crate::serve::credentials::Caller;

/// The counts, by the name of the caller.
pub(crate) struct RateLimit {
    limiter: DefaultKeyedRateLimiter<String>,
    per_second: NonZeroU32,
}

impl RateLimit {
    /// So many requests a second, and as many at once; 0 is without a limit.
    pub(crate) fn new(per_second: u32) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        Some(Self { limiter: RateLimiter::keyed(Quota::per_second(per_second)), per_second })
    }

    /// Counts a request.
    ///
    /// # Errors
    /// When it is one too many; it is not counted then.
    fn count(&self, caller: &str) -> Result<(), Problem> {
        self.limiter.check_key(&caller.to_owned()).map_err(|refused| {
            let wait = refused.wait_time_from(self.limiter.clock().now());
            let detail = format!("`{caller}` may make {} requests a second", self.per_second);
            // Whole seconds, and never 0.
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail).retry_after(wait.as_secs() + 1)
        })
    }
}

/// Counts the requests of those who are known.
pub(super) async fn count(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let is_local = request.extensions().get::<LocalPeer>().is_some();
    if let (Some(limit), Some(caller), false) = (&api.rate_limit, request.extensions().get::<Caller>(), is_local)
        && let Err(problem) = limit.count(&caller.name)
    {
        return problem.into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_a_count_of_its_own() {
        let limit = RateLimit::new(2).expect("a limit");
        assert!(limit.count("a").is_ok() && limit.count("a").is_ok());
        let refused = limit.count("a").expect_err("one too many");
        assert_eq!((refused.status, refused.code(), refused.retry_after_seconds), (429, "too_many_requests", Some(1)));
        assert!(limit.count("b").is_ok());
    }

    #[test]
    fn nothing_is_no_limit() {
        assert!(RateLimit::new(0).is_none());
    }
}
