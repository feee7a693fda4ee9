//! What can go wrong, in words that say what was wrong, with which value, and what to do.

use std::path::{Path, PathBuf};

use candle_core as candle;

/// The error of every call of this crate. Its `Display` is all that a reader of a notebook sees.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let error = two_moons(1, 0.1, 0, &Device::Cpu).unwrap_err();
/// assert!(matches!(error, Error::Invalid(_)));
/// assert_eq!(
///     error.to_string(),
///     "two moons of 1 samples cannot be drawn: ask for at least 2"
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument that has no meaning here.
    #[error("{0}")]
    Invalid(String),

    /// A file that is missing, damaged or unreadable.
    #[error("{}: {problem}. {cure}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        problem: String,
        /// What to do about it.
        cure: String,
    },

    /// Work of which a share is done, and of which others have not done theirs yet.
    #[error(
        "{task}: {done} of {count} are done; the rest is for other shards, or for a call without one"
    )]
    Unfinished {
        /// Its name.
        task: &'static str,
        /// How many of its items are done.
        done: usize,
        /// How many there are.
        count: usize,
    },

    /// An error on other ranks, which have the reason.
    #[error("{failed} of {ranks} ranks failed: their messages say why")]
    Elsewhere {
        /// How many failed.
        failed: usize,
        /// How many there are.
        ranks: usize,
    },

    /// A parameter that the loss does not reach.
    #[error("parameter `{parameter}` gets no gradient: {cause}")]
    NoGradient {
        /// Its name.
        parameter: String,
        /// Why, and what to do.
        cause: String,
    },

    /// A parameter whose gradient does not depend on any parameter, though the loss is curved.
    #[error("parameter `{parameter}` has no second derivative: {cause}")]
    NoSecondDerivative {
        /// Its name.
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
        /// candle's name of the operation.
        op: String,
        /// Which derivative failed, 1 or 2.
        order: u8,
    },

    /// A NaN or an infinity.
    #[error("{0}")]
    NotFinite(String),

    /// A panic in a model's forward pass, or in a derivative rule of candle's.
    #[error("the model panicked: {0}")]
    Panicked(String),

    /// An error of candle's, a `candle_core::Error` behind the pointer: with its type in sight every cell with a `?`
    /// would compile anew how all that it can hold is dropped.
    #[error("candle: {0}")]
    Candle(Box<dyn std::error::Error + Send + Sync>),

    /// An error of polars', a `PolarsError` behind the pointer.
    #[error("polars: {0}")]
    Polars(Box<dyn std::error::Error + Send + Sync>),
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
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn file(
        path: &Path,
        problem: impl std::fmt::Display,
        cure: impl Into<String>,
    ) -> Self {
        Self::File {
            path: path.to_path_buf(),
            problem: problem.to_string(),
            cure: cure.into(),
        }
    }
}

/// Without the backtraces that candle appends to its messages when `RUST_BACKTRACE` is set, as
/// it is in the kernel.
impl From<candle::Error> for Error {
    fn from(error: candle::Error) -> Self {
        match error {
            candle::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            other => Self::Candle(Box::new(other)),
        }
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// The first entry that is not finite, as an error that says where it stands.
pub(crate) fn check_finite(values: &[f64], what: &str) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::NotFinite(format!(
            "{what} is not finite: entry {at} of {} is {}",
            values.len(),
            values[at]
        ))),
    }
}
