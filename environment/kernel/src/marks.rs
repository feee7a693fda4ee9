//! Lines that separate cells from each other and values from text, in what the running process prints.

/// evcxr writes these lines between the output of a cell.
pub const PANIC: &str = "EVCXR_PANIC_NOTIFICATION";
pub const ERROR: &str = "EVCXR_ERROR_OCCURRED";
pub const COMPLETE: &str = "EVCXR_EXECUTION_COMPLETE";
pub const TYPE_CHANGED: &str = "EVCXR_VARIABLE_CHANGED_TYPE:";
pub const BEGIN_CONTENT: &str = "EVCXR_BEGIN_CONTENT ";
pub const END_CONTENT: &str = "EVCXR_END_CONTENT";

/// The crate writes this line if a cell's value is an error.
pub const SHOWN_ERROR: &str = "EVCXR_SHOWN_ERROR";

/// Starts every line of evcxr.
pub const PREFIX: &[u8] = b"EVCXR_";

/// The line that the running process writes before and after each cell, on both streams. It starts with a secret, so
/// that a cell cannot write it by accident.
pub fn border(secret: u64, event: char) -> String {
    format!("\0{secret:016x}{event}\n")
}

/// Length of a border.
pub const BORDER: usize = 19;
