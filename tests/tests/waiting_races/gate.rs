//! A gate that opens once.

use loom::sync::{Condvar, Mutex};

pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::new(false), opened: Condvar::new() }
    }

    pub(crate) fn open(&self) {
        *self.open.lock().expect("no panic under it") = true;
        self.opened.notify_one();
    }

    pub(crate) fn wait(&self) {
        let mut open = self.open.lock().expect("no panic under it");
        while !*open {
            open = self.opened.wait(open).expect("no panic under it");
        }
    }
}
