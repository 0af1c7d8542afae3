//! The wish of people and supervisors that `proctor run` end.
//!
//! It owns which signals express it, and that to repeat one means "at once". It does not know what is ended.

use std::{fs, io};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// A signal that asks for the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InterruptSignal {
    /// Ctrl-C.
    Interrupt,
    /// A supervisor's word.
    Terminate,
    /// The terminal is gone.
    HangUp,
}

impl InterruptSignal {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
        }
    }

    /// The exit code of who ended because of it.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::HangUp => 129,
        }
    }
}

/// How urgent the end is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Urgency {
    None,
    Asked(InterruptSignal),
    AtOnce(InterruptSignal),
}

/// Hears of interrupts. Clones hear of the same ones, past ones included.
#[derive(Clone, Debug)]
pub(crate) struct Interrupts(watch::Receiver<Urgency>);

impl Interrupts {
    /// Takes the signals over, for the rest of this process's life.
    ///
    /// # Errors
    /// When the system does not let us handle them.
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(Urgency::None);
        for (kind, meaning) in [
            (SignalKind::interrupt(), InterruptSignal::Interrupt),
            (SignalKind::terminate(), InterruptSignal::Terminate),
            (SignalKind::hangup(), InterruptSignal::HangUp),
        ] {
            if kind == SignalKind::hangup() && is_hang_up_ignored() {
                continue;
            }
            let mut signals = signal(kind)?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    sender.send_modify(|urgency| {
                        *urgency = match *urgency {
                            Urgency::None => Urgency::Asked(meaning),
                            // The first one gives the exit its code.
                            Urgency::Asked(first) | Urgency::AtOnce(first) => Urgency::AtOnce(first),
                        }
                    });
                }
            });
        }
        Ok(Self(receiver))
    }

    /// Hears nothing: for who ends nothing.
    pub(crate) fn none() -> Self {
        Self(watch::channel(Urgency::None).1)
    }

    /// The first signal, if one came.
    pub(crate) fn asked(&self) -> Option<InterruptSignal> {
        match *self.0.borrow() {
            Urgency::None => None,
            Urgency::Asked(first) | Urgency::AtOnce(first) => Some(first),
        }
    }

    /// Waits for the first signal. To drop the future loses nothing.
    pub(crate) async fn first(&self) -> InterruptSignal {
        let mut receiver = self.0.clone();
        loop {
            if let Some(signal) = self.asked() {
                return signal;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for the second signal. To drop the future loses nothing.
    pub(crate) async fn second(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|urgency| matches!(urgency, Urgency::AtOnce(_))).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether whoever started us, `nohup` for one, wants us to outlive the terminal.
fn is_hang_up_ignored() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hang_up(&status))
}

fn ignores_hang_up(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit stands for signal 1, which is the hang-up.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hang_up_is_read_from_the_mask() {
        assert!(ignores_hang_up("Name:\tproctor\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hang_up("Name:\tproctor\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hang_up("Name:\tproctor\n"));
    }
}
