//! Progress in a cell of the notebooks' kernel, which shows each task as one line that it updates in place.

use std::io::Write;
use std::sync::OnceLock;

use serde::Serialize;

/// The kernel sets this variable for the process that runs cells.
const VARIABLE: &str = "LOSS_LANDSCAPE_KERNEL";

/// Progress of a task.
#[derive(Serialize)]
pub(super) struct Message<'a> {
    /// Identifies the task within the process.
    pub(super) id: u64,
    pub(super) task: &'a str,
    pub(super) status: &'a str,
    /// Fraction that is done, from 0 to 1.
    pub(super) fraction: Option<f64>,
    /// Estimate of the remaining time.
    pub(super) left_seconds: Option<f64>,
    /// Whether this is the task's last message.
    pub(super) done: bool,
}

impl Message<'_> {
    /// Prints the message to stdout with a single write. Ignores errors such as a closed pipe.
    pub(super) fn print(&self) {
        if let Ok(json) = serde_json::to_string(self) {
            let block = format!(
                "EVCXR_BEGIN_CONTENT application/vnd.loss-landscape.progress+json\n{json}\nEVCXR_END_CONTENT\n"
            );
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(block.as_bytes());
            let _ = out.flush();
        }
    }
}

/// Whether this process runs the cells of the notebooks' kernel.
pub(crate) fn is_running_cells() -> bool {
    static IS_RUNNING_CELLS: OnceLock<bool> = OnceLock::new();
    *IS_RUNNING_CELLS.get_or_init(|| std::env::var_os(VARIABLE).is_some())
}
