//! Progress of long work: whole lines on standard output, or what a program makes of it.
//!
//! A notebook's kernel forwards output line by line, so a bar that redraws itself would not show.

use std::io::Write;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// News of long work.
///
/// See [`listen`] for an example.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// How far a task has come.
    Working {
        /// Its name.
        task: &'a str,
        /// Where it stands, in words.
        state: &'a str,
        /// The share that is done, where that is known.
        share: Option<f64>,
    },
    /// A task has ended.
    Ended {
        /// Its name.
        task: &'a str,
    },
    /// Something that a reader should know.
    Warning(&'a str),
}

type Listener = Arc<dyn Fn(News) + Send + Sync>;

static LISTENER: RwLock<Option<Listener>> = RwLock::new(None);

/// Sends all news to `listener`, some ten times a second, instead of to standard output.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use loss_landscape::ndarray::Array2;
/// use loss_landscape::prelude::*;
/// use loss_landscape::progress::{News, listen};
///
/// let ended = Arc::new(Mutex::new(Vec::new()));
/// let heard = ended.clone();
/// listen(move |news| {
///     if let News::Ended { task } = news {
///         heard.lock().unwrap().push(task.to_owned());
///     }
/// });
/// Dense::of(&Dense::new(Array2::eye(3))?)?;
/// assert!(ended.lock().unwrap().contains(&"dense matrix".to_owned()));
/// # Ok::<(), Error>(())
/// ```
pub fn listen(listener: impl Fn(News) + Send + Sync + 'static) {
    *LISTENER.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(listener));
}

/// Whether there is a listener; it has then heard the news.
fn tell(news: News) -> bool {
    // The lock is free while the listener runs, which may itself do work that has news.
    let listener = LISTENER
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if let Some(listener) = &listener {
        listener(news);
    }
    listener.is_some()
}

pub(crate) fn warn(message: &str) {
    if !tell(News::Warning(message)) {
        print(&format!("warning: {message}"));
    }
}

/// A line on standard output. Work does not end because nobody reads it.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Says how far a task has come, on standard output at most every two seconds: short work prints nothing.
pub(crate) struct Progress {
    task: &'static str,
    started: Instant,
    printed: Instant,
    told: Instant,
}

impl Progress {
    pub(crate) fn start(task: &'static str) -> Self {
        let now = Instant::now();
        Self {
            task,
            started: now,
            printed: now,
            told: now,
        }
    }

    /// Says `state()` if it is time to.
    pub(crate) fn tick(&mut self, state: impl FnOnce() -> String) {
        self.say(None, state);
    }

    /// Says that `done` of `total` equal parts are done, and how long the rest will take.
    pub(crate) fn part(&mut self, done: usize, total: usize) {
        let (started, share) = (self.started, done as f64 / total as f64);
        self.say(Some(share), || {
            let left = started.elapsed().mul_f64((1.0 - share) / share.max(1e-9));
            format!("{done} of {total}, about {:.0} s left", left.as_secs_f64())
        });
    }

    /// Says at once that `what` begins, with `done` of `total` equal parts done, and how long the rest will take.
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
        self.say_now(Some(done as f64 / total as f64), || format!("{what}{left}"));
    }

    fn say(&mut self, share: Option<f64>, state: impl FnOnce() -> String) {
        if self.told.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.say_now(share, state);
    }

    fn say_now(&mut self, share: Option<f64>, state: impl FnOnce() -> String) {
        self.told = Instant::now();
        let state = state();
        let news = News::Working {
            task: self.task,
            state: &state,
            share,
        };
        if !tell(news) && self.printed.elapsed() >= Duration::from_secs(2) {
            self.printed = Instant::now();
            print(&format!("{}: {state}, {:.0} s", self.task, self.seconds()));
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        tell(News::Ended { task: self.task });
    }
}
