//! Progress on stderr: a bar for each task on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use loss_landscape::progress::{Event, listen};

use crate::mpi_context;
use crate::output::print_error;

/// Interval between two lines about a task.
const INTERVAL: Duration = Duration::from_secs(10);

/// Time without output after which a line says that the process is still running.
const SILENCE: Duration = Duration::from_secs(15);

/// Prints progress and warnings to stderr, and from time to time that the process is still running.
pub fn show() {
    let is_root = mpi_context::is_root();
    let shared = Arc::new(Mutex::new(Screen::new()));
    let screen = shared.clone();
    listen(move |event| match event {
        Event::Warning(message) => lock(&screen).line(&format!("warning: {message}")),
        Event::Working {
            task,
            status,
            fraction,
        } if is_root => lock(&screen).working(task, status, fraction),
        Event::Finished { task } if is_root => lock(&screen).finished(task),
        _ => {}
    });
    if is_root {
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
    /// The task of the last event and its status.
    last: Option<(String, String)>,
    started: Instant,
    /// Time of the last output.
    last_output: Instant,
}

struct Task {
    /// Time of the last line, or of the start.
    printed: Instant,
    bar: Option<ProgressBar>,
}

impl Screen {
    fn new() -> Self {
        let bars = MultiProgress::new();
        Self {
            // Hidden on a terminal with TERM=dumb.
            redraws: std::io::stderr().is_terminal() && !bars.is_hidden(),
            bars,
            tasks: HashMap::new(),
            last: None,
            started: Instant::now(),
            last_output: Instant::now(),
        }
    }

    fn line(&mut self, line: &str) {
        self.last_output = Instant::now();
        self.bars.suspend(|| print_error(line));
    }

    fn working(&mut self, name: &str, status: &str, fraction: Option<f64>) {
        self.last = Some((name.to_owned(), status.to_owned()));
        let new = || Task {
            printed: Instant::now(),
            bar: self
                .redraws
                .then(|| self.bars.add(new_bar(fraction.is_some()))),
        };
        let task = self.tasks.entry(name.to_owned()).or_insert_with(new);
        if let Some(bar) = &task.bar {
            bar.set_prefix(name.to_owned());
            bar.set_message(status.to_owned());
            bar.set_position((1000.0 * fraction.unwrap_or(0.0)) as u64);
            bar.tick();
            self.last_output = Instant::now();
        } else if task.printed.elapsed() >= INTERVAL {
            task.printed = Instant::now();
            self.line(&format!("{name}: {status}"));
        }
    }

    fn finished(&mut self, name: &str) {
        self.last.take_if(|(last, _)| last == name);
        // Entries without a bar stay: a task that starts again keeps its interval between lines.
        if let Some(bar) = self.tasks.get_mut(name).and_then(|task| task.bar.take()) {
            bar.finish_and_clear();
            self.tasks.remove(name);
        }
    }

    /// Prints a line after a long time without output, such as during one long product.
    fn break_silence(&mut self) {
        if self.last_output.elapsed() < SILENCE {
            return;
        }
        let seconds = self.started.elapsed().as_secs();
        let last = self
            .last
            .as_ref()
            .map(|(name, status)| format!("{name}: {status}; "));
        let last = last.unwrap_or_default();
        self.line(&format!("{last}running for {seconds} s"));
    }
}

fn new_bar(has_fraction: bool) -> ProgressBar {
    let bar = ProgressBar::new(1000);
    let template = match has_fraction {
        true => "{prefix} {bar:30} {msg}",
        false => "{prefix} {spinner} {msg} {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
