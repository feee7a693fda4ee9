//! [`Show`]: rich display of values in notebooks.
//!
//! The kernel calls `evcxr_display` on a cell's last value. It merges everything printed between `EVCXR_BEGIN_CONTENT` and
//! `EVCXR_END_CONTENT` into one output with several MIME types, and each viewer shows the richest type it supports.

#[cfg(feature = "figures")]
mod figure;
#[cfg(feature = "tables")]
mod table;

use std::fmt::{Debug, Display};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use candle_core::Tensor;

use crate::data::{Dataset, Targets};
use crate::error::{Error, Result, counted};
use crate::landscape::{
    AverageSharpness, FlatnessReport, KeskarSharpness, RandomSharpness, SamStep, StableRate,
    StepChange, WorstCase,
};
use crate::model::{Activation, Mlp, Model};
use crate::objective::{DerivativeCheck, Objective, Score};
use crate::spectral::{Alignment, Bracket, Count, Estimate, Inertia};
use crate::train::Trajectory;

/// One value in several MIME types.
///
/// ```
/// use loss_landscape::notebook::Bundle;
/// use loss_landscape::prelude::*;
///
/// let bundle = Bundle::text("hello");
/// assert_eq!(bundle.get("text/plain"), Some("hello"));
/// assert_eq!(bundle.get("text/html"), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bundle {
    parts: Vec<(&'static str, String)>,
}

impl Bundle {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::default().with("text/plain", text)
    }

    fn with(mut self, mime: &'static str, content: impl Into<String>) -> Self {
        self.parts.push((mime, content.into()));
        self
    }

    /// The content of type `mime`.
    pub fn get(&self, mime: &str) -> Option<&str> {
        let part = self.parts.iter().find(|(m, _)| *m == mime);
        part.map(|(_, content)| content.as_str())
    }

    fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for (mime, content) in &self.parts {
            writeln!(
                out,
                "EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT"
            )?;
        }
        out.flush()
    }
}

/// Values that a notebook cell can display.
///
/// ```
/// use loss_landscape::notebook::Bundle;
/// use loss_landscape::prelude::*;
///
/// struct Celsius(f64);
///
/// impl Show for Celsius {
///     fn bundle(&self) -> Result<Bundle, Error> {
///         Ok(Bundle::text(format!("{} °C", self.0)))
///     }
/// }
///
/// assert_eq!(Celsius(21.5).bundle()?.get("text/plain"), Some("21.5 °C"));
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let shown = data.bundle()?;
/// assert_eq!(
///     shown.get("text/plain"),
///     Some("60 samples of shape [2] (F64) with labels")
/// );
/// # Ok::<(), Error>(())
/// ```
pub trait Show {
    /// Renders the value in all MIME types that it supports.
    ///
    /// # Errors
    /// The error, if the value is an `Err`; errors in polars.
    fn bundle(&self) -> Result<Bundle>;

    /// Displays the value in a cell. Prints an error to stderr, as `?` does.
    fn evcxr_display(&self) {
        let shown = self
            .bundle()
            .map_err(|e| e.to_string())
            .and_then(|bundle| bundle.print().map_err(|e| e.to_string()));
        if let Err(message) = shown {
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }
}

impl<T: Show, E: Display> Show for std::result::Result<T, E> {
    fn bundle(&self) -> Result<Bundle> {
        match self {
            Ok(value) => value.bundle(),
            Err(error) => Err(Error::invalid(error.to_string())),
        }
    }
}

#[cfg(any(feature = "figures", feature = "tables"))]
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Show for Dataset {
    fn bundle(&self) -> Result<Bundle> {
        let targets = match self.targets() {
            Targets::Labels(_) => "labels".to_owned(),
            Targets::Values(values) => {
                format!("{} each", counted(values.dims()[1], "target value"))
            }
        };
        Ok(Bundle::text(format!(
            "{} of shape {:?} ({:?}) with {targets}",
            counted(self.len(), "sample"),
            &self.inputs().dims()[1..],
            self.inputs().dtype()
        )))
    }
}

impl Show for Mlp {
    fn bundle(&self) -> Result<Bundle> {
        let widths: Vec<_> = self.widths().iter().map(usize::to_string).collect();
        Ok(Bundle::text(format!(
            "Mlp {} with {:?}, {} ({:?})",
            widths.join("-"),
            self.activation(),
            counted(self.parameters().len(), "parameter"),
            self.parameters().dtype()
        )))
    }
}

macro_rules! show_as_text {
    ($format:literal: $($type:ty),+) => {
        $(impl Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                Ok(Bundle::text(format!($format, self)))
            }
        })+
    };
}
show_as_text!("{}": String, &str, bool, char, f32, f64, i32, i64, u8, u32, u64, usize, Tensor,
    Inertia, DerivativeCheck, Estimate, Bracket, Count, Alignment, AverageSharpness,
    FlatnessReport, KeskarSharpness, RandomSharpness, SamStep, StableRate, StepChange, WorstCase);
show_as_text!("{:?}": Vec<f64>, Vec<f32>, Vec<i32>, Vec<u8>, Vec<u32>, Vec<u64>, Vec<usize>,
    Vec<bool>, Vec<String>, Vec<&str>, Duration, PathBuf, Activation, Objective, Score, Trajectory);

// The kernel's own fallback, without compiling the cell a second time.
macro_rules! show_for_debugging {
    ($([$($generics:tt)*] $type:ty),+) => {
        $(impl<$($generics)*> Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                Ok(Bundle::text(format!("{self:?}")))
            }
        })+
    };
}
show_for_debugging!(
    [T: Debug] Option<T>,
    [T: Debug, const N: usize] [T; N],
    [A: Debug, B: Debug] (A, B),
    [A: Debug, B: Debug, C: Debug] (A, B, C),
    [A: Debug, B: Debug, C: Debug, D: Debug] (A, B, C, D)
);

/// A cell that ends in a statement displays nothing.
impl Show for () {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::default())
    }
}
