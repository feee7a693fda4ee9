//! Progress on standard error: a bar for each task on a terminal that can redraw lines, else lines.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use loss_landscape::progress::{News, listen};

use crate::output::say;
use crate::together;

/// Between two lines about a task.
const INTERVAL: Duration = Duration::from_secs(10);

/// After which a line says that the process is still at work.
const SILENCE: Duration = Duration::from_secs(15);

/// Shows the crate's news from now on, and where there are none for long, that the process is still at work.
pub fn show() {
    let leads = together::leads();
    let screen = Screen::new();
    let shared = Arc::new(Mutex::new(screen));
    let heard = shared.clone();
    listen(move |news| match news {
        News::Warning(message) => lock(&heard).line(&format!("warning: {message}")),
        _ if !leads => {}
        News::Working { task, state, share } => lock(&heard).working(task, state, share),
        News::Ended { task } => lock(&heard).ended(task),
    });
    if leads {
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(500));
                lock(&shared).break_silence();
            }
        });
    }
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Screen {
    bars: MultiProgress,
    redraws: bool,
    tasks: HashMap<String, Task>,
    /// The task of the last news and its state.
    last: Option<(String, String)>,
    started: Instant,
    /// When something was shown last.
    shown: Instant,
}

struct Task {
    /// When a line was printed last, or the task began.
    printed: Instant,
    bar: Option<ProgressBar>,
}

impl Screen {
    fn new() -> Self {
        let bars = MultiProgress::new();
        Self {
            // They are hidden where TERM says that the terminal is a dumb one.
            redraws: std::io::stderr().is_terminal() && !bars.is_hidden(),
            bars,
            tasks: HashMap::new(),
            last: None,
            started: Instant::now(),
            shown: Instant::now(),
        }
    }

    fn line(&mut self, line: &str) {
        self.shown = Instant::now();
        self.bars.suspend(|| say(line));
    }

    fn working(&mut self, name: &str, state: &str, share: Option<f64>) {
        self.last = Some((name.to_owned(), state.to_owned()));
        let new = || Task {
            printed: Instant::now(),
            bar: self
                .redraws
                .then(|| self.bars.add(new_bar(share.is_some()))),
        };
        let task = self.tasks.entry(name.to_owned()).or_insert_with(new);
        if let Some(bar) = &task.bar {
            bar.set_prefix(name.to_owned());
            bar.set_message(state.to_owned());
            bar.set_position((1000.0 * share.unwrap_or(0.0)) as u64);
            bar.tick();
            self.shown = Instant::now();
        } else if task.printed.elapsed() >= INTERVAL {
            task.printed = Instant::now();
            self.line(&format!("{name}: {state}"));
        }
    }

    fn ended(&mut self, name: &str) {
        self.last.take_if(|(last, _)| last == name);
        // The interval of its lines goes on when the task is taken up again.
        if let Some(bar) = self.tasks.get_mut(name).and_then(|task| task.bar.take()) {
            bar.finish_and_clear();
            self.tasks.remove(name);
        }
    }

    /// A line if nothing has been shown for long: within one long product there are no news.
    fn break_silence(&mut self) {
        if self.shown.elapsed() < SILENCE {
            return;
        }
        let seconds = self.started.elapsed().as_secs();
        let last = self
            .last
            .as_ref()
            .map(|(name, state)| format!("{name}: {state}; "));
        let last = last.unwrap_or_default();
        self.line(&format!("{last}at work for {seconds} s"));
    }
}

fn new_bar(known: bool) -> ProgressBar {
    let bar = ProgressBar::new(1000);
    let template = match known {
        true => "{prefix} {bar:30} {msg}",
        false => "{prefix} {spinner} {msg} {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
