//! What an interrupt does: the process ends where no file is half written, and says what is kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use loss_landscape::files::pause_writing;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::mpi_context;
use crate::output::print_error;

/// What is kept of the work, and how to go on with it.
static KEPT: Mutex<String> = Mutex::new(String::new());

/// What to say if the work is interrupted from now on.
pub fn on_interrupt(message: impl Into<String>) {
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = message.into();
}

/// How long an interrupt waits for a file that is being written: a pipe without a reader never ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends the process on an interrupt, a request to terminate and the terminal's end, with 128 and the signal's number as
/// its exit code. A second signal does not wait for files. Writing beyond the shell's limit on the size of files fails and
/// does not end the process.
pub fn listen() {
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    let known = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM"), (SIGHUP, "SIGHUP")];
    let ours = known.into_iter().filter(|(signal, _)| !is_ignored(*signal));
    let Ok(mut signals) = Signals::new(ours.map(|(signal, _)| signal)) else {
        return;
    };
    std::thread::spawn(move || {
        let mut is_ending = false;
        for signal in signals.forever() {
            if std::mem::replace(&mut is_ending, true) {
                std::process::exit(128 + signal);
            }
            std::thread::spawn(move || {
                std::thread::sleep(PATIENCE);
                std::process::exit(128 + signal);
            });
            std::thread::spawn(move || {
                let _held = pause_writing();
                if mpi_context::is_root() {
                    let name = known.iter().find(|(number, _)| *number == signal);
                    let name = name.map_or("a signal", |(_, name)| name);
                    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
                    let kept = if kept.is_empty() {
                        "nothing is kept"
                    } else {
                        &kept
                    };
                    print_error(format_args!("\ninterrupted by {name}: {kept}"));
                }
                std::process::exit(128 + signal);
            });
        }
    });
}

/// Whether the process that started this one has switched a signal off, as `nohup` does and a shell for what it starts in
/// the background.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
