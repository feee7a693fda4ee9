//! Functions that the notebooks' kernel calls around each cell. They are not part of the public API.
//!
//! The process that runs cells finds them by name in this crate's dynamic library.
#![allow(unsafe_code)] // for names without mangling; the functions themselves are safe

use std::io::{Write, stderr, stdout};

use crate::progress;

/// Withdraws an interrupt that was meant for an earlier cell.
#[unsafe(no_mangle)]
pub extern "C" fn loss_landscape_begin_cell() {
    progress::resume();
}

/// Writes out what is buffered, so that a line without an end appears with its cell.
#[unsafe(no_mangle)]
pub extern "C" fn loss_landscape_end_cell() {
    // A closed pipe is no error here.
    let _ = stdout().flush();
    let _ = stderr().flush();
}

/// Asks the work of the cell to stop. Can be called in a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn loss_landscape_interrupt() {
    progress::interrupt();
}
