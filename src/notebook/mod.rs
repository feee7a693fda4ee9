//! [`Show`]: rich display of values in notebooks.
//!
//! The kernel calls `evcxr_display` on a cell's last value. It merges everything printed between `EVCXR_BEGIN_CONTENT` and
//! `EVCXR_END_CONTENT` into one output with several MIME types, and each viewer shows the richest type it supports.
//!
//! Floats have at most ten significant digits, in lists six. Lists of more than ten values show three at each end, their length, and
//! a summary: the norm of floats, the extremes of integers. Settings and results are tables of at most forty rows.

mod arrays;
#[doc(hidden)]
pub mod cell;
mod data;
#[cfg(feature = "tables")]
mod data_frame;
mod fields;
#[cfg(feature = "figures")]
mod figure;
mod lists;
mod models;
mod numbers;
mod operators;
mod results;
mod table;

use std::io::{self, Write};

use crate::error::Result;
use crate::progress;

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
/// let list = vec![Celsius(21.5), Celsius(-3.0)];
/// assert_eq!(list.bundle()?.get("text/plain"), Some("[21.5 °C, -3 °C]"));
/// let gradient = vec![0.5; 118_282];
/// let shown = "[0.5, 0.5, 0.5, …, 0.5, 0.5, 0.5] (118282 values, norm 171.961)";
/// assert_eq!(gradient.bundle()?.get("text/plain"), Some(shown));
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

    /// Renders the value on one line, as part of a list or tuple.
    ///
    /// # Errors
    /// As [`Self::bundle`].
    fn inline(&self) -> Result<String> {
        let bundle = self.bundle()?;
        let text = bundle.get("text/plain").unwrap_or_default();
        Ok(match text.split_once('\n') {
            Some((first, _)) => format!("{first} …"),
            None => text.to_owned(),
        })
    }

    /// Renders several values as one, such as a vector's.
    ///
    /// # Errors
    /// As [`Self::bundle`].
    fn bundle_list(items: &[Self]) -> Result<Bundle>
    where
        Self: Sized,
    {
        Ok(Bundle::text(lists::list(items, ['[', ']'])?))
    }

    /// Displays the value in a cell. An error ends the cell, as `?` does.
    fn evcxr_display(&self) {
        display(self.bundle());
    }
}

/// Outside of the trait, so that cells need not compile it.
fn display(bundle: Result<Bundle>) {
    // Figures often follow values.
    #[cfg(feature = "figures")]
    figure::start_in_background();
    let shown = bundle
        .map_err(|e| e.to_string())
        .and_then(|bundle| bundle.print().map_err(|e| e.to_string()));
    if let Err(message) = shown {
        let _ = writeln!(std::io::stderr(), "{message}");
        if progress::is_running_cells() {
            progress::print("EVCXR_SHOWN_ERROR");
        }
    }
}

/// The plain text of a value, for tests.
#[cfg(test)]
fn plain_text(value: impl Show) -> String {
    let bundle = value.bundle().unwrap();
    bundle.get("text/plain").unwrap().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::landscape::Curve;
    use crate::prelude::*;

    fn text(bundle: Result<Bundle>) -> String {
        bundle.unwrap().get("text/plain").unwrap().to_owned()
    }

    /// Expressions as they end cells, with the types that the compiler infers.
    #[test]
    fn expressions_at_the_end_of_cells() {
        let values = vec![0.25, 0.5];
        let (borrowed, end) = (&values, &values[1..]);
        let (value, missing): (_, Option<&f64>) = (0.1 + 0.2, values.get(2));
        assert_eq!(text((value).bundle()), "0.3");
        assert_eq!(text((missing).bundle()), "None");
        assert_eq!(text((values.get(1)).bundle()), "Some(0.5)");
        assert_eq!(text((values).bundle()), "[0.25, 0.5]");
        assert_eq!(text((borrowed).bundle()), "[0.25, 0.5]");
        assert_eq!(text((end).bundle()), "[0.5]");
        assert_eq!(text((values[1..]).bundle()), "[0.5]");
        assert_eq!(text((values[1]).bundle()), "0.5");
        assert_eq!(
            text((1, 2.0, "a", 'b', true).bundle()),
            r#"(1, 2.0, "a", 'b', true)"#
        );
        assert_eq!(text(([1, 2]).bundle()), "[1, 2]");
        assert_eq!(
            text((values.len(), [[0.5; 2]; 2]).bundle()),
            "(2, [[0.5, 0.5], [0.5, 0.5]])"
        );
        assert_eq!(text(("a").bundle()), "a");
        assert_eq!(text((format!("{}", 1)).bundle()), "1");
        assert_eq!(text((Box::new(0.5)).bundle()), "0.5");
        assert_eq!(text((0..3).bundle()), "0..3");
        assert_eq!(text((DType::F32).bundle()), "F32");
        assert_eq!(text((Device::Cpu).bundle()), "CPU");
        assert_eq!(
            text((std::time::Duration::from_micros(1_234_567)).bundle()),
            "1.235s"
        );
        assert_eq!(().bundle().unwrap(), Bundle::default());
    }

    #[test]
    fn objectives_operators_and_results() {
        let data = two_moons(60, 0.1, 0, &Device::Cpu).unwrap();
        let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu).unwrap();
        let model = model.to_dtype(DType::F64).unwrap();
        let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        let shown = text(objective.bundle());
        assert!(
            shown.starts_with("Objective         value\nparameters        13\n"),
            "{shown}"
        );
        let hessian = objective.hessian();
        assert_eq!(text(hessian.bundle()), "Hessian, 13 × 13 (F64)");
        let dense = hessian.dense().unwrap();
        assert!(text(dense.bundle()).starts_with("Array of shape [13, 13] (f64)\n[["));
        let pair = &dense.eigen().unwrap().pairs[0];
        let shown = text(pair.bundle());
        assert!(shown.starts_with("eigenvalue ") && shown.ends_with(" (13 values, norm 1.0)"));
        let score = objective.score().unwrap();
        assert!(text(score.bundle()).starts_with("loss 0."));
        let density = DensitySettings::default().with_probes(2).with_steps(3);
        let density = density.run(&hessian).unwrap();
        assert!(
            text(density.bundle())
                .starts_with("spectral density of a matrix of size 13 from 2 probes and ")
        );
        let curve = Curve::linear(&[0.0, 0.0], &[3.0, 4.0]).unwrap();
        assert_eq!(
            text(curve.bundle()),
            "curve with 2 control points in 2 parameters, length 5.0"
        );
        let units = crate::landscape::align::hidden_units(&model, &data).unwrap();
        assert_eq!(
            text(units.bundle()),
            "[layers.0.weight (axis 0), layers.0.bias (axis 0), layers.1.weight (axis 1)]"
        );
        assert!(text(units[0].bundle()).starts_with("parameter        axis  block  range\n"));
        let lines = |shown: String| shown.lines().count();
        assert!(
            lines(text(
                Analyzer::new(&model, &data, &data, Loss::CrossEntropy)
                    .unwrap()
                    .bundle()
            )) < 25
        );
        assert_eq!(
            text((0.5, data).bundle()),
            "(0.5, 60 samples of shape [2] (F64) with labels)"
        );
    }
}
