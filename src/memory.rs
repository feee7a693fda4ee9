//! Checks that enough memory is available.

use std::fs;

use crate::error::{Error, Result};

/// Returns an error if `bytes` exceed the available memory, instead of an abort later.
///
/// Available are the machine's free memory and swap, within the limits of the process (`ulimit -v`) and of its control
/// group. On systems without `/proc`, only sizes beyond the address space are rejected.
///
/// ```
/// use loss_landscape::memory;
///
/// assert!(memory::check(8e6, "a million numbers").is_ok());
/// let error = memory::check(8e18, "10¹⁸ numbers").unwrap_err();
/// assert!(error.to_string().starts_with("10¹⁸ numbers need 8000000 TB of memory"));
/// ```
///
/// # Errors
/// Not enough memory. The message begins with `what`.
pub fn check(bytes: f64, what: &str) -> Result<()> {
    check_or(bytes, what, |_| "reduce the size".into())
}

/// As [`check`], with advice that depends on the number of available bytes.
pub(crate) fn check_or(bytes: f64, what: &str, advice: impl FnOnce(f64) -> String) -> Result<()> {
    let available = available();
    match bytes <= available {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{what} need {} of memory, but {} are available: {}",
            size(bytes),
            size(available),
            advice(available)
        ))),
    }
}

/// Available memory in bytes; see [`check`].
///
/// ```
/// use loss_landscape::memory;
///
/// assert!(memory::available() > 1e6);
/// ```
pub fn available() -> f64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let machine = read("/proc/meminfo");
    let free = kibibytes(&machine, "MemAvailable:")
        .map(|free| free + kibibytes(&machine, "SwapFree:").unwrap_or(0.0));
    let limit = number_after(&read("/proc/self/limits"), "Max address space");
    let used = kibibytes(&read("/proc/self/status"), "VmSize:");
    let by_process = limit.zip(used).map(|(limit, used)| limit - used);
    let in_group = |name: &str| {
        read(&format!("/sys/fs/cgroup/memory.{name}"))
            .trim()
            .parse::<f64>()
            .ok()
    };
    let by_group = in_group("max")
        .zip(in_group("current"))
        .map(|(max, current)| max - current);
    let all = [free, by_process, by_group].into_iter().flatten();
    all.fold(isize::MAX as f64, f64::min).max(0.0)
}

/// Parses a line `{name} {number} kB`. Returns bytes.
fn kibibytes(text: &str, name: &str) -> Option<f64> {
    number_after(text, name).map(|number| 1024.0 * number)
}

fn number_after(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A number of bytes in kB, MB, GB or TB, which are powers of 1,000.
///
/// ```
/// use loss_landscape::memory;
///
/// assert_eq!(memory::size(1_234_000.0), "1.2 MB");
/// ```
pub fn size(bytes: f64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut scaled = bytes / 1e3;
    let mut unit = 0;
    while scaled >= 1e3 && unit + 1 < units.len() {
        scaled /= 1e3;
        unit += 1;
    }
    let decimals = if scaled < 100.0 { 1 } else { 0 };
    format!("{scaled:.decimals$} {}", units[unit])
}
