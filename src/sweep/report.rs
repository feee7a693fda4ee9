//! [`SweepReport`]: the results of a sweep, read from its directory.

use std::path::Path;

use polars::df;
use polars::prelude::{DataFrame, DataType};
use serde::{Deserialize, Serialize};

use super::directory::{manifest_file, model_file};
use super::{manifest, point, table};
use crate::error::{Error, Result};
use crate::files::read;

/// Results at one strength.
///
/// See [`SweepReport`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweepPoint {
    /// Index of the strength, from 0.
    pub id: usize,
    /// λ
    pub l2: f64,
    /// L(θ) on the training data, including λ‖θ‖², at the end of the training.
    pub train_loss: f64,
    /// λ‖θ‖²
    pub penalty: f64,
    /// The loss on the test data, without λ‖θ‖².
    pub test_loss: f64,
    /// Training accuracy, if the data has labels.
    pub train_accuracy: Option<f64>,
    /// Test accuracy, if the data has labels.
    pub test_accuracy: Option<f64>,
    /// Number of epochs.
    pub epochs: u32,
    /// With patience: the epoch whose weights these are.
    pub best_epoch: Option<u32>,
    /// ‖∇L(θ)‖
    pub gradient_norm: f64,
    /// Whether all residuals are below the tolerance.
    pub converged: bool,
    /// Number of matrix–vector products.
    pub products: usize,
    /// Eigenvalues of ∇²L(θ), largest magnitude first.
    pub eigenvalues: Vec<f64>,
    /// Residuals ‖Hv − λv‖.
    pub residuals: Vec<f64>,
}

/// The complete points of a sweep, in the order of the strengths.
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::sweep::SweepReport;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("moons");
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model =
///     |seed| Mlp::new(&[2, 3, 1], Activation::Tanh, seed, &Device::Cpu)?.to_dtype(DType::F64);
/// let trainer = Trainer::adam(0.01).with_batch_size(20).with_epochs(3);
/// let sweep = Sweep::new([0.0, 0.1]).with_trainer(trainer).with_top(2);
/// let report = sweep.run(&dir, model, &data, &data)?;
/// let square = report.points[1].penalty / report.points[1].l2; // ‖θ‖²
/// assert!(square > 0.0 && report.points[0].penalty == 0.0);
/// assert_eq!(report.points[1].eigenvalues.len(), 2);
/// assert_eq!(SweepReport::read(&dir)?.points, report.points);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweepReport {
    /// The complete points.
    pub points: Vec<SweepPoint>,
    /// Number of points computed by this call.
    pub computed: usize,
}

impl SweepReport {
    /// Reads the complete points from the directory of a sweep, finished or not.
    ///
    /// # Errors
    /// The directory does not contain a sweep; files are missing or damaged.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = manifest_file(dir);
        let text = read(&path, "Give the directory of a sweep")?;
        let manifest = manifest::parse(&path, &String::from_utf8_lossy(&text))?;
        let tables = manifest["tables"].as_str().unwrap_or("csv");
        let count = manifest["strengths"].as_array().map_or(0, Vec::len);
        let ids = (0..count).filter(|id| model_file(dir, *id).exists());
        Ok(Self {
            points: ids
                .map(|id| SweepPoint::read(dir, id, tables))
                .collect::<Result<_>>()?,
            computed: 0,
        })
    }

    /// One row per point, with the eigenvalue of largest magnitude and its residual.
    ///
    /// # Errors
    /// Errors in polars.
    pub fn table(&self) -> Result<DataFrame> {
        let column = |f: fn(&SweepPoint) -> f64| self.points.iter().map(f).collect::<Vec<_>>();
        let share =
            |f: fn(&SweepPoint) -> Option<f64>| self.points.iter().map(f).collect::<Vec<_>>();
        let count = |f: fn(&SweepPoint) -> u64| self.points.iter().map(f).collect::<Vec<_>>();
        let first = |values: &[f64]| values.first().copied();
        Ok(df!(
            "id" => count(|p| p.id as u64),
            "l2" => column(|p| p.l2),
            "train_loss" => column(|p| p.train_loss),
            "penalty" => column(|p| p.penalty),
            "test_loss" => column(|p| p.test_loss),
            "train_accuracy" => share(|p| p.train_accuracy),
            "test_accuracy" => share(|p| p.test_accuracy),
            "epochs" => count(|p| p.epochs.into()),
            "best_epoch" => self.points.iter().map(|p| p.best_epoch).collect::<Vec<_>>(),
            "gradient_norm" => column(|p| p.gradient_norm),
            "eigenvalue" => self.points.iter().map(|p| first(&p.eigenvalues)).collect::<Vec<_>>(),
            "residual" => self.points.iter().map(|p| first(&p.residuals)).collect::<Vec<_>>(),
            "converged" => self.points.iter().map(|p| p.converged).collect::<Vec<_>>(),
            "products" => count(|p| p.products as u64),
        )?)
    }
}

impl SweepPoint {
    fn read(dir: &Path, id: usize, tables: &str) -> Result<Self> {
        let path = model_file(dir, id);
        let row = table::read(&path)?;
        let damaged = |problem: String| {
            Error::file(
                &path,
                problem,
                "Resume the sweep to compute the point again",
            )
        };
        let share = |name: &str| -> Result<Option<f64>> {
            let values = numbers(&row, name)?;
            values
                .first()
                .copied()
                .ok_or_else(|| damaged("has no row".into()))
        };
        let number = |name: &str| {
            share(name)?.ok_or_else(|| damaged(format!("has no value in column `{name}`")))
        };
        let l2 = number("l2")?;
        let eigen = table::read(&dir.join(point::file(point::EIGENVALUES, id, l2, tables)))?;
        let column = |name: &str| -> Result<Vec<f64>> {
            let values = numbers(&eigen, name)?.into_iter().collect::<Option<_>>();
            values.ok_or_else(|| damaged(format!("belongs to a table with a missing {name}")))
        };
        Ok(Self {
            id,
            l2,
            train_loss: number("train_loss")?,
            penalty: number("penalty")?,
            test_loss: number("test_loss")?,
            train_accuracy: share("train_accuracy")?,
            test_accuracy: share("test_accuracy")?,
            epochs: number("epochs")? as u32,
            best_epoch: share("best_epoch")?.map(|epoch| epoch as u32),
            gradient_norm: number("gradient_norm")?,
            converged: number("converged")? != 0.0,
            products: number("products")? as usize,
            eigenvalues: column("eigenvalue")?,
            residuals: column("residual")?,
        })
    }
}

/// A column as numbers, booleans as 1 or 0.
fn numbers(table: &DataFrame, name: &str) -> Result<Vec<Option<f64>>> {
    let column = table.column(name)?.cast(&DataType::Float64)?;
    Ok(column.f64()?.iter().collect())
}
