//! Measuring: closed-loop callers for a while, and what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What one slice of one row gave.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    ack_us: Vec<u32>,
    wall: Duration,
    cpu: Duration,
}

impl Slice {
    /// Slices of the same row as one.
    pub(super) fn joined(slices: Vec<Self>) -> Self {
        let (wall, cpu) = (slices.iter().map(|slice| slice.wall).sum(), slices.iter().map(|slice| slice.cpu).sum());
        let mut ack_us: Vec<u32> = slices.into_iter().flat_map(|slice| slice.ack_us).collect();
        ack_us.sort_unstable();
        Self { ack_us, wall, cpu }
    }

    pub(super) fn appends_per_s(&self) -> f64 {
        self.ack_us.len() as f64 / self.wall.as_secs_f64()
    }

    /// A quantile of the time from call to answer; 0 where nothing was measured.
    pub(super) fn ack_us(&self, quantile: f64) -> f64 {
        let last = self.ack_us.len().saturating_sub(1) as f64;
        self.ack_us.get((last * quantile).round() as usize).copied().map_or(0.0, f64::from)
    }

    /// Of the whole operating-system process, callers included.
    pub(super) fn cpu_us_per_append(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.ack_us.len().max(1) as f64
    }
}

/// Lets every caller append, wait for the answer, and append again, for a while.
pub(super) async fn closed_loop<C, F>(callers: Vec<C>, duration: Duration) -> anyhow::Result<Slice>
where
    C: FnMut() -> F + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let stop = Arc::new(AtomicBool::new(false));
    let (begun, cpu_begun) = (Instant::now(), cpu_time());
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut ack_us = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let called = Instant::now();
                    caller().await?;
                    ack_us.push(u32::try_from(called.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
                anyhow::Ok(ack_us)
            })
        })
        .collect();
    tokio::time::sleep(duration).await;
    stop.store(true, Ordering::Relaxed);
    let mut ack_us = Vec::new();
    for task in tasks {
        ack_us.extend(task.await??);
    }
    let (wall, cpu) = (begun.elapsed(), cpu_time().saturating_sub(cpu_begun));
    ack_us.sort_unstable();
    Ok(Slice { ack_us, wall, cpu })
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The middle value; of an even number the upper one of the middle two. 0 where there is none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_medians_come_from_the_sorted_values() {
        let slice =
            Slice { ack_us: (1..=101).collect(), wall: Duration::from_secs(1), cpu: Duration::from_micros(202) };
        assert_eq!((slice.ack_us(0.5), slice.ack_us(0.99), slice.ack_us(1.0)), (51.0, 100.0, 101.0));
        assert_eq!((slice.appends_per_s(), slice.cpu_us_per_append()), (101.0, 2.0));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
