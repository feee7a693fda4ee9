//! [`interrupt`], [`check`] and [`resume`]: stopping work that is running.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Asks all running work of this process to stop. Work that starts later stops too, until [`resume`] is called.
///
/// It may be called on any thread and in a signal handler: it only sets an atomic flag.
///
/// See [`check`] for an example.
pub fn interrupt() {
    IS_INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Withdraws the request of [`interrupt`]. The notebooks' kernel calls it before each cell.
///
/// See [`check`] for an example.
pub fn resume() {
    IS_INTERRUPTED.store(false, Ordering::Relaxed);
}

/// Returns an error if the work was asked to stop. It reads one atomic flag, so it can be called in every iteration of a loop.
///
/// In a cell, `progress::check()?` in a loop lets the stop button end the loop. It can also be called in a model's forward pass.
///
/// ```standalone_crate
/// use loss_landscape::prelude::*;
///
/// fn count_to(n: usize) -> Result<usize, Error> {
///     let mut count = 0;
///     while count < n {
///         progress::check()?;
///         count += 1;
///     }
///     Ok(count)
/// }
///
/// assert_eq!(count_to(10)?, 10);
/// progress::interrupt();
/// assert!(matches!(count_to(10), Err(Error::Interrupted)));
/// progress::resume();
/// assert_eq!(count_to(10)?, 10);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Interrupted`] after a call of [`interrupt`].
#[inline]
pub fn check() -> Result<()> {
    match IS_INTERRUPTED.load(Ordering::Relaxed) {
        false => Ok(()),
        true => Err(Error::Interrupted),
    }
}

/// How often a waiting thread looks at what it waits for.
const INTERVAL: Duration = Duration::from_millis(50);

/// Calls `f`, which cannot be stopped, on a thread of its own. After an interrupt the call returns at once; the thread runs to
/// the end of `f` and drops the result.
///
/// # Errors
/// [`Error::Interrupted`]; no thread can be started.
pub(crate) fn abandon_on_interrupt<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    call_watched(f, check)
}

/// Calls `f`, which cannot be stopped, on a thread of its own, and `watch` every 50 ms. Returns the first error of `watch` at
/// once; the thread then runs to the end of `f` and drops the result.
///
/// # Errors
/// Those of `watch`; no thread can be started.
pub(crate) fn call_watched<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
    mut watch: impl FnMut() -> Result<()>,
) -> Result<T> {
    watch()?;
    let (sender, receiver) = channel();
    let thread = thread::Builder::new().spawn(move || {
        // Nothing receives the result after an error of `watch`.
        let _ = sender.send(f());
    });
    let thread = thread.map_err(|e| Error::invalid(format!("cannot start a thread: {e}")))?;
    loop {
        match receiver.recv_timeout(INTERVAL) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => watch()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // The thread ended without a result, so it panicked.
    match thread.join() {
        Err(panic) => resume_unwind(panic),
        Ok(()) => Err(Error::invalid("a thread ended without a result")),
    }
}
