//! [`Report`]: all that an analysis found, with the words for it.

use polars::prelude::{Column, DataFrame};
use serde::{Deserialize, Serialize};

use super::HessianMetrics;
use super::row::{self, Row};
use crate::error::{Error, Result};
use crate::landscape::{RandomSharpness, Sharpness};
use crate::objective::{Objective, Score};
use crate::spectral::{Bracket, Estimate, Short};
use crate::verdict::SHARPNESS;

/// Which training samples curvature is measured on.
///
/// ```
/// use loss_landscape::analysis::Subsample;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?.samples(20, 7)?;
/// let report = analyzer.without_hessian().full_analysis()?;
/// assert_eq!(
///     report.subsample,
///     Subsample::Balanced {
///         samples: 20,
///         seed: 7
///     }
/// );
/// assert_eq!(report.train_samples, 60); // the training loss is of all
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subsample {
    /// All.
    All,
    /// [`Dataset::balanced`](crate::data::Dataset::balanced) ones.
    Balanced {
        /// How many.
        samples: usize,
        /// Of the draw.
        seed: u64,
    },
    /// [`Dataset::random`](crate::data::Dataset::random) ones.
    Random {
        /// How many.
        samples: usize,
        /// Of the draw.
        seed: u64,
    },
}

/// How much the loss rises within a ball.
///
/// See [`Report`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharpnessMetrics {
    /// By random search.
    pub random: RandomSharpness,
    /// The worst case: the largest rise that gradient ascent found.
    pub worst: f64,
    /// The rise that the ascent came to from each of its starts.
    pub by_start: Vec<f64>,
    /// Whether every start came to rest.
    pub converged: bool,
    /// The worst case by the quadratic model, or a bound of it; see [`WorstCase`](crate::landscape::WorstCase).
    pub quadratic: f64,
}

/// The geometry of a model's loss where the model stands: the data's loss, without an L2 term of its training.
///
/// Its `Display` is a table of quantities, their values and uncertainties, and the words that are usual for them: a
/// condition number is excellent below 100, good up to 1,000 and challenging above; the surroundings are flat where the
/// loss rises by less than 0.1, moderate up to 1, sharp above; up to 5 negative eigenvalues are near a minimum, more are
/// likely a saddle point. Where the uncertainty reaches into another band, or the number has no meaning, the words say so.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² at its minimum: within 0.05 the loss rises by at most 0.05² · 4.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 0.0])?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse)?;
/// let report = analyzer.eigenvalues(1).full_analysis()?;
/// assert!((report.sharpness.worst - 0.01).abs() < 1e-6);
/// assert!(report.sharpness.random.maximum <= report.sharpness.worst);
/// assert_eq!((report.parameters, report.gradient_norm), (2, 0.0));
/// assert!(report.to_string().contains("condition number"));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Length of θ.
    pub parameters: usize,
    /// Samples that the training loss is of.
    pub train_samples: usize,
    /// Samples that the test loss is of.
    pub test_samples: usize,
    /// Which of them gradient, curvature and sharpness are of.
    pub subsample: Subsample,
    /// Of all random vectors.
    pub seed: u64,
    /// Whether derivatives came by hand-derived rules rather than by candle's automatic differentiation.
    pub hand_derived: bool,
    /// On the training data.
    pub train: Score,
    /// On the test data.
    pub test: Score,
    /// Test loss − training loss.
    pub generalization_gap: f64,
    /// ‖∇L(θ)‖ on the samples that curvature is measured on.
    pub gradient_norm: f64,
    /// Eigenvalues, trace and what follows of them; none if they were left out.
    pub hessian: Option<HessianMetrics>,
    /// ε-sharpness.
    pub sharpness: SharpnessMetrics,
    /// The same in proportion to the weights, within ten times the radius as is usual (Kwon et al., "ASAM", 2021): it
    /// does not see rescalings of the layers.
    pub adaptive: SharpnessMetrics,
    /// The mean distance in random directions at which the loss has risen by 0.1; none where it does not.
    pub flatness: Option<Estimate>,
}

impl SharpnessMetrics {
    pub(super) fn of(objective: &Objective, settings: &Sharpness) -> Result<Self> {
        let worst = settings.worst_case(objective)?;
        Ok(Self {
            random: settings.random(objective)?,
            worst: worst.rise,
            by_start: worst.by_start,
            converged: worst.converged,
            quadratic: worst.quadratic,
        })
    }

    fn rows(&self, name: &str, aside: &str) -> [Row; 2] {
        let rounding = self.random.rounding;
        let row = |how: &str, found: f64, high: f64| {
            let bracket = Bracket {
                value: found,
                low: found - rounding,
                high: high + rounding,
            };
            let words = match found <= rounding {
                true => "not meaningful: no more than the loss's rounding".into(),
                false => SHARPNESS.verdict(&bracket) + aside,
            };
            Row::between(&format!("{name}, {how}"), Some(bracket)).verdict(words)
        };
        let least = self.by_start.iter().copied().fold(self.worst, f64::min);
        let mut most = 2.0 * self.worst - least;
        if !self.converged {
            most = most.max(self.quadratic);
        }
        [
            row("random search", self.random.maximum, self.random.maximum),
            row("worst case", self.worst, most),
        ]
    }
}

impl Report {
    /// Quantity, value, uncertainty and verdict, a row each. The uncertainty of an eigenvalue is its residual, of an estimate
    /// its standard error, of the test accuracy that of so many samples, of the worst case how far its starts are apart.
    ///
    /// # Errors
    /// polars'.
    pub fn table(&self) -> Result<DataFrame> {
        row::table(&self.rows())
    }

    /// Reports side by side, for further work: a row for each, and columns of quantities and, as `± …`, of their
    /// uncertainties.
    ///
    /// # Errors
    /// No reports; polars'.
    pub fn compare<S: AsRef<str>>(reports: &[(S, Report)]) -> Result<DataFrame> {
        check_some(reports)?;
        let rows: Vec<Vec<Row>> = reports.iter().map(|(_, report)| report.rows()).collect();
        let column = |quantity: &str, f: fn(&Row) -> Option<f64>| -> Vec<Option<f64>> {
            let of = |rows: &Vec<Row>| rows.iter().find(|r| r.quantity == quantity).and_then(f);
            rows.iter().map(of).collect()
        };
        let names: Vec<&str> = reports.iter().map(|(name, _)| name.as_ref()).collect();
        let sizes: Vec<u64> = reports.iter().map(|r| r.1.parameters as u64).collect();
        let mut columns = vec![
            Column::new("model".into(), names),
            Column::new("parameters".into(), sizes),
        ];
        for quantity in quantities(&rows) {
            columns.push(Column::new(quantity.into(), column(quantity, |r| r.value)));
            let errors = column(quantity, |r| r.uncertainty);
            if errors.iter().any(Option::is_some) {
                columns.push(Column::new(format!("± {quantity}").into(), errors));
            }
        }
        Ok(DataFrame::new(reports.len(), columns)?)
    }

    /// Reports side by side, for reading: a row for each quantity and a column for each report, with value, uncertainty and
    /// verdict.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?.without_hessian();
    /// let report = analyzer.full_analysis()?;
    /// let table = Report::verdicts(&[("first", report.clone()), ("again", report.clone())])?;
    /// assert_eq!(table.width(), 1 + 2); // the quantities' names, then a column for each report
    /// assert_eq!(table.height(), report.table()?.height());
    /// assert!(Report::verdicts(&[("twice", report.clone()), ("twice", report)]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// No reports; a name that comes twice; polars'.
    pub fn verdicts<S: AsRef<str>>(reports: &[(S, Report)]) -> Result<DataFrame> {
        check_some(reports)?;
        let rows: Vec<Vec<Row>> = reports.iter().map(|(_, report)| report.rows()).collect();
        let quantities = quantities(&rows);
        let column = |name: &str, cells: Vec<String>| Column::new(name.into(), cells);
        let names = quantities.iter().map(|quantity| (*quantity).to_owned());
        let mut columns = vec![column("quantity", names.collect())];
        for ((name, _), rows) in reports.iter().zip(&rows) {
            let of = |quantity: &&str| rows.iter().find(|row| row.quantity == *quantity);
            let cells = quantities
                .iter()
                .map(|q| of(q).map(Row::text).unwrap_or_default());
            columns.push(column(name.as_ref(), cells.collect()));
        }
        Ok(DataFrame::new(quantities.len(), columns)?)
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::new("training loss", self.train.loss),
            Row::new("test loss", self.test.loss),
            Row::new("generalization gap", self.generalization_gap),
        ];
        if let (Some(train), Some(test)) = (self.train.accuracy, self.test.accuracy) {
            let error = (test * (1.0 - test) / self.test_samples as f64).sqrt();
            rows.push(Row::new("training accuracy", train));
            rows.push(Row::new("test accuracy", test).give_or_take(error));
        }
        rows.push(Row::new("gradient norm", self.gradient_norm));
        rows.extend(self.hessian.iter().flat_map(HessianMetrics::rows));
        let aside = ", but changes where layers are rescaled";
        rows.extend(self.sharpness.rows("sharpness", aside));
        rows.extend(self.adaptive.rows("adaptive sharpness", ""));
        let flatness = Row::estimate("flatness", self.flatness);
        rows.push(match self.flatness {
            Some(_) => flatness,
            None => flatness.verdict("the loss does not rise by 0.1 in random directions"),
        });
        rows
    }
}

fn check_some<S>(reports: &[(S, Report)]) -> Result<()> {
    match reports {
        [] => Err(Error::invalid(
            "there are no reports to compare: give at least one",
        )),
        _ => Ok(()),
    }
}

/// Of all reports, each once.
fn quantities(rows: &[Vec<Row>]) -> Vec<&str> {
    let mut quantities: Vec<&str> = Vec::new();
    for row in rows.iter().flatten() {
        if !quantities.contains(&row.quantity.as_str()) {
            quantities.push(&row.quantity);
        }
    }
    quantities
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on = match self.subsample {
            Subsample::All => "all of them".to_owned(),
            Subsample::Balanced { samples, seed } => format!("{samples}, balanced, seed {seed}"),
            Subsample::Random { samples, seed } => format!("{samples}, random, seed {seed}"),
        };
        let how = match self.hand_derived {
            true => "hand-derived rules",
            false => "candle's automatic differentiation",
        };
        writeln!(
            f,
            "{} parameters, {} training and {} test samples; curvature on {on}, by {how}\n\
             sharpness within {}, adaptive sharpness within {}, flatness up to a rise of {}\n",
            self.parameters,
            self.train_samples,
            self.test_samples,
            self.sharpness.random.radius,
            self.adaptive.random.radius,
            super::RISE
        )?;
        writeln!(f, "{:<34}{:>12}  {:>9}", "", "value", "±")?;
        for row in self.rows() {
            let value = row.value.map_or("—".into(), |x| format!("{:.5}", Short(x)));
            let error = row.uncertainty.map(|x| format!("{:.2}", Short(x)));
            let line = format!(
                "{:<34}{value:>12}  {:>9}  {}",
                row.quantity,
                error.unwrap_or_default(),
                row.verdict
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
