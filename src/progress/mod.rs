//! Progress of long computations, and how to stop them.
//!
//! # Progress
//!
//! Progress goes to stdout: at most one line every two seconds, and none for short tasks. In a cell of the notebooks' kernel each
//! task is one line that is updated in place, with the remaining time where it is known. [`listen`] sends progress to a function
//! instead.
//!
//! # Interrupts
//!
//! [`interrupt`] asks running work to stop. All long computations of this crate then return [`Error::Interrupted`] within a
//! second: training, eigenvalues, densities, traces, diagonals, lines, planes and their eigenvalues, paths, sharpness, learning
//! coefficients, matchings, embeddings, sweeps and reports. They check the request between the tiles or batches of samples of each
//! loss, gradient and product. Loops of your own can stop too: call [`check`] in them. The notebooks' stop button calls
//! [`interrupt`].
//!
//! An interrupt is like any other error:
//!
//! - A result is complete, or the call returns an error.
//! - A model that was evaluated at another θ gets its parameters back, and locks are released. A model in training keeps the
//!   parameters after its last finished step.
//! - Checkpoints, products and the points of a sweep that are finished stay on disk, and the work resumes from them.
//!
//! Limits:
//!
//! - An operation of candle is finished first, such as a product of two matrices. So is candle's backward pass through a batch, if
//!   the model has no convolutions of this crate: smaller batches end sooner.
//! - A product of a [`LinearOperator`](crate::operator::LinearOperator) of your own is finished first, unless it calls [`check`].
//! - The eigendecomposition of a dense matrix and the assignment of hidden units return at once, but their threads run to the end
//!   in the background.

mod interrupt;
mod kernel;

pub(crate) use interrupt::abandon_on_interrupt;
#[cfg(feature = "datasets")] // used by downloads
pub(crate) use interrupt::call_watched;
pub use interrupt::{check, interrupt, resume};

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use self::kernel::Message;
pub(crate) use self::kernel::is_running_cells;
#[cfg(doc)]
use crate::error::Error;

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

/// Progress of a task. Without a listener, prints a line at most every two seconds; short tasks print nothing. In a cell of the
/// notebooks' kernel, sends at most four messages a second, and none in the first half second.
pub(crate) struct Progress {
    task: &'static str,
    id: u64,
    started: Instant,
    /// Time of the last line or message, or of the start.
    printed: Instant,
    sent: Instant,
    /// The last status that was sent to the kernel.
    in_kernel: Option<String>,
    fraction: Option<f64>,
}

impl Progress {
    pub(crate) fn start(task: &'static str) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let now = Instant::now();
        Self {
            task,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            started: now,
            printed: now,
            sent: now,
            in_kernel: None,
            fraction: None,
        }
    }

    /// Sends `status()` if the last event is old enough.
    pub(crate) fn tick(&mut self, status: impl FnOnce() -> String) {
        self.send(None, status);
    }

    /// Sends that `done` of `total` parts are done, with an estimate of the remaining time.
    pub(crate) fn part(&mut self, done: usize, total: usize) {
        self.part_with(done, total, || format!("{done} of {total}"));
    }

    /// As [`part`](Self::part), with another status.
    pub(crate) fn part_with(&mut self, done: usize, total: usize, status: impl FnOnce() -> String) {
        self.send(Some(done as f64 / total as f64), status);
    }

    /// Sends at once that `what` begins, with `done` of `total` parts done and an estimate of the remaining time.
    #[cfg(feature = "tables")] // used by sweeps
    pub(crate) fn begin(&mut self, what: &str, done: usize, total: usize) {
        self.fraction = Some(done as f64 / total as f64);
        self.send_now(what.to_owned());
    }

    fn send(&mut self, fraction: Option<f64>, status: impl FnOnce() -> String) {
        self.fraction = fraction;
        if self.sent.elapsed() >= Duration::from_millis(100) {
            self.send_now(status());
        }
    }

    fn send_now(&mut self, status: String) {
        self.sent = Instant::now();
        let left = self.left_seconds();
        let with_left = left.map(|left| format!("{status}, about {left:.0} s left"));
        let full = with_left.as_ref().unwrap_or(&status);
        let event = Event::Working {
            task: self.task,
            status: full,
            fraction: self.fraction,
        };
        if send(event) {
            return;
        }
        let interval = match (is_running_cells(), &self.in_kernel) {
            (false, _) => Duration::from_secs(2),
            (true, None) => Duration::from_millis(500),
            (true, Some(_)) => Duration::from_millis(250),
        };
        if self.printed.elapsed() < interval {
            return;
        }
        self.printed = Instant::now();
        if is_running_cells() {
            self.message(&status, left, false).print();
            self.in_kernel = Some(status);
        } else {
            print(&format!("{}: {full}, {:.0} s", self.task, self.seconds()));
        }
    }

    /// Estimate of the remaining time from the fraction that is done.
    fn left_seconds(&self) -> Option<f64> {
        let fraction = self.fraction.filter(|fraction| *fraction > 0.0)?;
        Some(self.seconds() * (1.0 - fraction) / fraction)
    }

    fn message<'a>(&self, status: &'a str, left_seconds: Option<f64>, done: bool) -> Message<'a> {
        Message {
            id: self.id,
            task: self.task,
            status,
            fraction: self.fraction,
            left_seconds,
            done,
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        send(Event::Finished { task: self.task });
        if let Some(status) = &self.in_kernel {
            self.message(status, self.left_seconds(), true).print();
        }
    }
}
