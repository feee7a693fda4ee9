//! Progress of long work, as whole lines on standard output.
//!
//! A notebook's kernel forwards output line by line, so a bar that redraws itself would not show.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(2);

/// Prints how far a task has come, at most every two seconds: short work prints nothing.
pub(crate) struct Progress {
    task: &'static str,
    started: Instant,
    printed: Instant,
}

impl Progress {
    pub(crate) fn start(task: &'static str) -> Self {
        let now = Instant::now();
        Self {
            task,
            started: now,
            printed: now,
        }
    }

    /// Says `state()` if a line is due.
    pub(crate) fn tick(&mut self, state: impl FnOnce() -> String) {
        if self.printed.elapsed() >= INTERVAL {
            self.printed = Instant::now();
            let seconds = self.started.elapsed().as_secs_f64();
            println!("{}: {}, {seconds:.0} s", self.task, state());
        }
    }

    /// Says that `done` of `total` equal parts are done, and how long the rest will take.
    pub(crate) fn part(&mut self, done: usize, total: usize) {
        let started = self.started;
        self.tick(|| {
            let left = started
                .elapsed()
                .mul_f64((total - done) as f64 / done.max(1) as f64);
            format!("{done} of {total}, about {:.0} s left", left.as_secs_f64())
        });
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
