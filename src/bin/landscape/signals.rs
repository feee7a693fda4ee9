//! Interrupts: the process ends when no file is half written, and prints what is saved.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use loss_landscape::files::pause_writing;
use loss_landscape::operator::External;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::mpi_context;
use crate::output::print_error;

/// What is saved, and how to resume.
static MESSAGE: Mutex<String> = Mutex::new(String::new());

/// Sets the message to print on an interrupt.
pub fn on_interrupt(message: impl Into<String>) {
    *MESSAGE.lock().unwrap_or_else(PoisonError::into_inner) = message.into();
}

/// How long an interrupt waits for a file that is being written. Writing to a pipe without a reader never ends.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the process on SIGINT, SIGTERM and SIGHUP with exit code 128 + signal. A second signal does not wait for files.
/// Ignores SIGXFSZ, so that writing beyond the file-size limit is an error and does not end the process.
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
                exit(signal);
            }
            std::thread::spawn(move || {
                std::thread::sleep(TIMEOUT);
                exit(signal);
            });
            std::thread::spawn(move || {
                let _paused = pause_writing();
                if mpi_context::is_root() {
                    let name = known.iter().find(|(number, _)| *number == signal);
                    let name = name.map_or("a signal", |(_, name)| name);
                    let saved = MESSAGE.lock().unwrap_or_else(PoisonError::into_inner);
                    let saved = if saved.is_empty() {
                        "nothing is saved"
                    } else {
                        &saved
                    };
                    print_error(format_args!("\ninterrupted by {name}: {saved}"));
                }
                exit(signal);
            });
        }
    });
}

fn exit(signal: i32) -> ! {
    External::kill_all();
    std::process::exit(128 + signal);
}

/// Whether the parent process ignores a signal, as `nohup` does, and shells for background jobs.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
