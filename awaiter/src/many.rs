//! Waiting for several things at once: for the first of them, or for all.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use registry_actor::port::{ProcessWait, WaitAnswer, WaitReader};
use tokio::time::sleep_until;

use crate::awaiter::{AwaitError, ProcessAwaiter, deadline};

/// The first of several waits that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstAnswer {
    /// Its place among the waits, from 0.
    pub index: usize,
    /// Its answer.
    pub answer: WaitAnswer,
}

impl ProcessAwaiter {
    /// Waits until one of the waits is answered, at most for so long; `None` waits as long as it takes. An end before an
    /// awaited event and a process that is no longer retained are answers too. All other waits are released at once.
    ///
    /// `Ok(None)`: the deadline came first, and the log, which is read once more then, had none of them; or there was nothing to wait for. Which of
    /// several that are answered already is told is not promised. May be dropped at any time.
    ///
    /// # Errors
    /// [`AwaitError`] of any of them that cannot go on, an unknown process among other things.
    pub async fn await_any(
        &self,
        waits: &[ProcessWait],
        within: Option<Duration>,
    ) -> Result<Option<FirstAnswer>, AwaitError> {
        let mut readers: Vec<_> = waits.iter().map(WaitReader::new).collect();
        let mut pending = self.pending(&mut readers);
        let first = async {
            match pending.next().await {
                Some((index, answer)) => Ok(Some(FirstAnswer { index, answer: answer? })),
                None => Ok(None),
            }
        };
        let Some(within) = within else {
            return first.await;
        };
        tokio::select! {
            biased;
            first = first => return first,
            () = sleep_until(deadline(within)) => {}
        }
        drop(pending);
        let mut last_reads = self.last_reads(readers.iter_mut().enumerate().collect());
        while let Some((index, answer)) = last_reads.next().await {
            match answer? {
                WaitAnswer::Deadline => {}
                answer => return Ok(Some(FirstAnswer { index, answer })),
            }
        }
        Ok(None)
    }

    /// Waits until all waits are answered, at most for so long; `None` waits as long as it takes. The answers stand in
    /// the order of the waits; one that the log, which is read once more
    /// then, did not have at the deadline is [`WaitAnswer::Deadline`]. May be dropped
    /// at any time.
    ///
    /// # Errors
    /// [`AwaitError`] of any of them that cannot go on, an unknown process among other things; the others are released.
    pub async fn await_all(
        &self,
        waits: &[ProcessWait],
        within: Option<Duration>,
    ) -> Result<Vec<WaitAnswer>, AwaitError> {
        let mut answers = vec![WaitAnswer::Deadline; waits.len()];
        let mut readers: Vec<_> = waits.iter().map(WaitReader::new).collect();
        let mut pending = self.pending(&mut readers);
        let time_is_up = async {
            match within {
                Some(within) => sleep_until(deadline(within)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(time_is_up);
        loop {
            tokio::select! {
                biased;
                next = pending.next() => match next {
                    Some((index, answer)) => answers[index] = answer?,
                    None => return Ok(answers),
                },
                () = &mut time_is_up => break,
            }
        }
        drop(pending);
        let is_unanswered = |(index, _): &(usize, _)| answers[*index] == WaitAnswer::Deadline;
        let unanswered = readers.iter_mut().enumerate().filter(is_unanswered).collect();
        let mut last_reads = self.last_reads(unanswered);
        while let Some((index, answer)) = last_reads.next().await {
            answers[index] = answer?;
        }
        Ok(answers)
    }

    /// What the log says of these when the time is up, read side by side.
    fn last_reads<'waits, 'wait: 'waits>(
        &'waits self,
        readers: Vec<(usize, &'waits mut WaitReader<'wait>)>,
    ) -> FuturesUnordered<impl Future<Output = (usize, Result<WaitAnswer, AwaitError>)>> {
        readers.into_iter().map(|(index, reader)| async move { (index, self.at_the_deadline(reader).await) }).collect()
    }

    /// All waits, each polled only when it was woken: many of them cost no more than they have to.
    fn pending<'waits>(
        &'waits self,
        readers: &'waits mut [WaitReader<'_>],
    ) -> FuturesUnordered<impl Future<Output = (usize, Result<WaitAnswer, AwaitError>)>> {
        readers
            .iter_mut()
            .enumerate()
            .map(|(index, reader)| async move { (index, self.answer(reader).await) })
            .collect()
    }
}
