//! Progress of long computations: printed to stdout line by line, or sent to a listener.
//!
//! A notebook kernel forwards output line by line and could not show a progress bar that redraws itself.

use std::io::Write;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A progress message or a warning.
///
/// See [`listen`] for an example.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Progress of a task.
    Working {
        /// Name of the task.
        task: &'a str,
        /// Status message.
        status: &'a str,
        /// Fraction that is done, from 0 to 1, if known.
        fraction: Option<f64>,
    },
    /// A task has finished or failed.
    Finished {
        /// Name of the task.
        task: &'a str,
    },
    /// A warning.
    Warning(&'a str),
}

type Listener = Arc<dyn Fn(Event) + Send + Sync>;

static LISTENER: RwLock<Option<Listener>> = RwLock::new(None);

/// Sends progress and warnings to `listener` instead of printing them to stdout. Each task sends at most ten events a second.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use loss_landscape::ndarray::Array2;
/// use loss_landscape::prelude::*;
/// use loss_landscape::progress::{Event, listen};
///
/// let ended = Arc::new(Mutex::new(Vec::new()));
/// let heard = ended.clone();
/// listen(move |event| {
///     if let Event::Finished { task } = event {
///         heard.lock().unwrap().push(task.to_owned());
///     }
/// });
/// Dense::from_operator(&Dense::new(Array2::eye(3))?)?;
/// assert!(ended.lock().unwrap().contains(&"dense matrix".to_owned()));
/// # Ok::<(), Error>(())
/// ```
pub fn listen(listener: impl Fn(Event) + Send + Sync + 'static) {
    *LISTENER.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(listener));
}

/// Sends an event to the listener. Returns false if there is none.
fn send(event: Event) -> bool {
    // The lock is released first: the listener may itself do work that sends events.
    let listener = LISTENER
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if let Some(listener) = &listener {
        listener(event);
    }
    listener.is_some()
}

pub(crate) fn warn(message: &str) {
    if !send(Event::Warning(message)) {
        print(&format!("warning: {message}"));
    }
}

/// Prints a line to stdout. Ignores errors such as a closed pipe.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Progress of a task. Without a listener, prints a line at most every two seconds; short tasks print nothing.
pub(crate) struct Progress {
    task: &'static str,
    started: Instant,
    printed: Instant,
    sent: Instant,
}

impl Progress {
    pub(crate) fn start(task: &'static str) -> Self {
        let now = Instant::now();
        Self {
            task,
            started: now,
            printed: now,
            sent: now,
        }
    }

    /// Sends `status()` if the last event is old enough.
    pub(crate) fn tick(&mut self, status: impl FnOnce() -> String) {
        self.send(None, status);
    }

    /// Sends that `done` of `total` parts are done, with an estimate of the remaining time.
    pub(crate) fn part(&mut self, done: usize, total: usize) {
        let (started, fraction) = (self.started, done as f64 / total as f64);
        self.send(Some(fraction), || {
            let left = started
                .elapsed()
                .mul_f64((1.0 - fraction) / fraction.max(1e-9));
            format!("{done} of {total}, about {:.0} s left", left.as_secs_f64())
        });
    }

    /// Sends at once that `what` begins, with `done` of `total` parts done and an estimate of the remaining time.
    #[cfg(feature = "tables")] // used by sweeps
    pub(crate) fn begin(&mut self, what: &str, done: usize, total: usize) {
        let left = self
            .started
            .elapsed()
            .mul_f64((total - done) as f64 / done.max(1) as f64);
        let left = match done {
            0 => String::new(),
            _ => format!(", about {:.0} s left", left.as_secs_f64()),
        };
        self.send_now(Some(done as f64 / total as f64), || format!("{what}{left}"));
    }

    fn send(&mut self, fraction: Option<f64>, status: impl FnOnce() -> String) {
        if self.sent.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.send_now(fraction, status);
    }

    fn send_now(&mut self, fraction: Option<f64>, status: impl FnOnce() -> String) {
        self.sent = Instant::now();
        let status = status();
        let event = Event::Working {
            task: self.task,
            status: &status,
            fraction,
        };
        if !send(event) && self.printed.elapsed() >= Duration::from_secs(2) {
            self.printed = Instant::now();
            print(&format!("{}: {status}, {:.0} s", self.task, self.seconds()));
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        send(Event::Finished { task: self.task });
    }
}
