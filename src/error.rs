//! [`Error`]: messages say what is wrong, name the offending value and say what to do.

use std::io;
use std::path::{Path, PathBuf};

use candle_core as candle;
use rayon::prelude::*;

/// The error type of this crate. Its `Display` is self-contained: notebooks show nothing else.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let error = two_moons(1, 0.1, 0, &Device::Cpu).unwrap_err();
/// assert!(matches!(error, Error::Invalid(_)));
/// assert_eq!(
///     error.to_string(),
///     "two moons need at least 2 samples, found 1"
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid argument.
    #[error("{0}")]
    Invalid(String),

    /// A file that is missing, damaged, unreadable or not writable.
    #[error("{}: {problem}. {advice}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        advice: String,
        /// The error of the operating system that `problem` quotes, if there is one.
        source: Option<io::Error>,
    },

    /// This shard is finished, but other shards are not.
    #[error(
        "{task}: {done} of {} done; run the other shards, or run without a shard to compute the rest",
        counted(*.count, "item")
    )]
    Unfinished {
        /// Name of the task.
        task: &'static str,
        /// Number of items that are done.
        done: usize,
        /// Number of all items.
        count: usize,
    },

    /// Other ranks failed. Their own errors give the reason.
    #[error("{failed} of {ranks} ranks failed: see their error messages")]
    OtherRanks {
        /// Number of ranks that failed.
        failed: usize,
        /// Number of ranks.
        ranks: usize,
    },

    /// A process that computes products failed: see [`External`](crate::operator::External).
    #[error("`{command}` {problem}{}", quoted(last_lines))]
    External {
        /// Command line of the process.
        command: String,
        /// What happened, and what to do.
        problem: String,
        /// The last lines that the process wrote to standard error.
        last_lines: String,
    },

    /// A parameter on which the loss does not depend.
    #[error("parameter `{parameter}` gets no gradient: {cause}")]
    NoGradient {
        /// Name of the parameter.
        parameter: String,
        /// Why, and what to do.
        cause: String,
    },

    /// A parameter whose gradient does not depend on any parameter although the loss is curved.
    #[error("parameter `{parameter}` has no second derivative: {cause}")]
    NoSecondDerivative {
        /// Name of the parameter.
        parameter: String,
        /// Why, and what to do.
        cause: String,
    },

    /// An operation that candle cannot differentiate, or not twice.
    #[error(
        "candle cannot differentiate the operation `{op}` {}: write the model with operations \
         that it differentiates twice (matmul, conv2d, exp, log, tanh, relu, sums, …)",
        if *.order == 1 { "at all" } else { "a second time" }
    )]
    NotDifferentiable {
        /// Name of the operation in candle.
        op: String,
        /// Order of the derivative that failed: 1 or 2.
        order: u8,
    },

    /// A NaN or an infinity.
    #[error("{0}")]
    NotFinite(String),

    /// The work was asked to stop: see [`progress::interrupt`](crate::progress::interrupt).
    #[error("interrupted")]
    Interrupted,

    /// A panic in a model's forward pass or in one of candle's derivative rules.
    #[error("the model panicked: {0}")]
    Panicked(String),

    /// An error in candle: a `candle_core::Error`. It is boxed as a trait object so that a notebook cell with a `?` does
    /// not compile the code that drops candle's error type.
    #[error("{0}")]
    Candle(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// An error in polars: a `PolarsError`.
    #[error("{0}")]
    Polars(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A result with this crate's [`Error`].
///
/// ```
/// use loss_landscape::prelude::*;
///
/// fn parameters(widths: &[usize]) -> loss_landscape::Result<usize> {
///     Ok(Mlp::new(widths, Activation::Tanh, 0, &Device::Cpu)?
///         .parameters()
///         .len())
/// }
/// assert!(matches!(parameters(&[2, 3, 1]), Ok(13)));
/// assert!(matches!(parameters(&[2]), Err(Error::Invalid(_))));
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A count and its noun: "1 sample", "2 samples", "0 entries", "2 batches".
pub(crate) fn counted(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) if noun.ends_with("ch") => format!("{count} {noun}es"),
        (_, None) => format!("{count} {noun}s"),
    }
}

/// The last lines of a process that failed, to append to a message.
fn quoted(last_lines: &str) -> String {
    match last_lines.is_empty() {
        true => ". It wrote nothing to standard error".into(),
        false => format!(". Its last lines on standard error:\n{last_lines}"),
    }
}

impl Error {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn file(
        path: &Path,
        problem: impl std::fmt::Display,
        advice: impl Into<String>,
    ) -> Self {
        Self::File {
            path: path.to_path_buf(),
            problem: problem.to_string(),
            advice: advice.into(),
            source: None,
        }
    }

    /// Adds the path of the file whose content is invalid.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Invalid(message) => Self::Invalid(format!("{}: {message}", path.display())),
            Self::NotFinite(message) => Self::NotFinite(format!("{}: {message}", path.display())),
            error => error,
        }
    }

    /// Adds the cause of an error of a file.
    pub(crate) fn caused_by(mut self, cause: io::Error) -> Self {
        if let Self::File { source, .. } = &mut self {
            *source = Some(cause);
        }
        self
    }
}

/// Drops the backtrace that candle appends to its messages if `RUST_BACKTRACE` is set, as it is in the kernel.
impl From<candle::Error> for Error {
    fn from(error: candle::Error) -> Self {
        match error {
            candle::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            candle::Error::Wrapped(inner) if inner.to_string() == Self::Interrupted.to_string() => {
                Self::Interrupted
            }
            other => Self::Candle(Box::new(other)),
        }
    }
}

/// For forward passes and losses, which return candle's error: an interrupt in them stays one.
impl From<Error> for candle::Error {
    fn from(error: Error) -> Self {
        Self::wrap(error)
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// Whether all values are finite. Threads share long vectors.
pub(crate) fn all_finite(values: &[f64]) -> bool {
    let pieces = values.par_chunks(1 << 17);
    pieces.all(|piece| piece.iter().fold(true, |all, v| all & v.is_finite()))
}

/// Returns an error that names the value if it is not a finite number above 0.
pub(crate) fn check_positive(value: f64, what: &str) -> Result<()> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{what} is {value}: give a finite number above 0"
        ))),
    }
}

/// Returns an error that names the first entry that is not finite.
pub(crate) fn check_finite(values: &[f64], what: &str) -> Result<()> {
    if all_finite(values) {
        return Ok(());
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::NotFinite(format!(
            "{what} is not finite: entry {at} of {} is {}",
            values.len(),
            values[at]
        ))),
    }
}
