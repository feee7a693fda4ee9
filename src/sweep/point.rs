//! [`Point`]: the computation at one strength.

use std::fs;
use std::path::Path;

use polars::df;
use polars::prelude::{Column, CsvWriter, DataFrame, SerWriter};

use super::checksum::with_checksum;
use super::directory::{Directory, model_file};
use super::{Sweep, SweepPoint, SweepReport};
use crate::data::Dataset;
use crate::error::Result;
use crate::files::{WRITABLE, write_atomically};
use crate::model::{Model, Parameters};
use crate::objective::{Loss, Objective};
use crate::spectral::{Lanczos, Spectrum, Which};
use crate::tables;
use crate::vector::{dot, norm};

/// Memory for cached forward passes of all concurrent points, in bytes.
const MEMORY: usize = 4 << 30;

pub(super) struct Point<'a> {
    pub(super) sweep: &'a Sweep,
    pub(super) id: usize,
    pub(super) l2: f64,
}

/// Maximum length of a strength written as a decimal.
const MAX_DIGITS: usize = 20;

/// A strength as the shortest decimal, or in scientific notation if that is long.
pub(super) fn shortest(l2: f64) -> String {
    let decimal = l2.to_string();
    match decimal.len() <= MAX_DIGITS {
        true => decimal,
        false => format!("{l2:e}"),
    }
}

/// Extensions of a point's files.
pub(super) struct Endings {
    pub(super) tables: &'static str,
    pub(super) weights: &'static str,
}

impl Sweep {
    pub(super) fn endings(&self) -> Endings {
        Endings {
            tables: if self.parquet { "parquet" } else { "csv" },
            weights: if self.pth { "pth" } else { "safetensors" },
        }
    }
}

/// Name of a point's file.
pub(super) fn file(what: &str, id: usize, l2: f64, ending: &str) -> String {
    format!("{what}-{id}-{}.{ending}", shortest(l2))
}

/// What the table of eigenvalues is called.
pub(super) const EIGENVALUES: &str = "Hessian-eigenvalues";

/// Names of a point's files, except its row.
pub(super) fn files(id: usize, l2: f64, endings: &Endings) -> [String; 4] {
    [
        ("model_weights", endings.weights),
        ("gradients", endings.tables),
        (EIGENVALUES, endings.tables),
        ("Hessian-eigenvectors", endings.tables),
    ]
    .map(|(what, ending)| file(what, id, l2, ending))
}

impl Point<'_> {
    /// Trains the model, computes the eigenpairs and writes the results to the directory.
    pub(super) fn write<M>(
        &self,
        directory: &Directory,
        model: &M,
        train: &Dataset,
        test: &Dataset,
    ) -> Result<()>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        let (sweep, parameters) = (self.sweep, model.parameters());
        let trainer = sweep.trainer.clone().with_l2(self.l2).with_seed(sweep.seed);
        let history = trainer.fit(model, train, test)?;

        let objective = Objective::of(model, train, Loss::default_for(train.targets()))?;
        let objective = objective.with_l2(self.l2)?.with_memory(MEMORY / sweep.jobs);
        let gradient = objective.gradient()?;
        let lanczos = Lanczos::default()
            .with_which(Which::LargestMagnitude)
            .with_tolerance(sweep.tolerance)
            .with_seed(sweep.seed);
        let spectrum = lanczos.run(&objective.hessian(), sweep.top)?;
        let spectrum = spectrum.by_magnitude();

        let (learned, watched) = (
            objective.score()?,
            objective.with_data(test)?.with_l2(0.0)?.score()?,
        );
        let theta = parameters.to_flat()?;
        let found = SweepPoint {
            id: self.id,
            l2: self.l2,
            train_loss: learned.loss,
            penalty: self.l2 * dot(&theta, &theta),
            test_loss: watched.loss,
            train_accuracy: learned.accuracy,
            test_accuracy: watched.accuracy,
            epochs: history.epochs.len() as u32,
            best_epoch: history.best,
            gradient_norm: norm(&gradient),
            converged: spectrum.converged,
            products: spectrum.products,
            eigenvalues: spectrum.values(),
            residuals: spectrum.residuals(),
        };
        directory.commit(self.id, |dir| {
            let names = files(self.id, self.l2, &sweep.endings());
            let [weights, gradients, values, vectors] = names.each_ref().map(|name| dir.join(name));
            parameters.save(weights)?;
            tables::write(&gradients, &mut gradient_table(parameters, &gradient)?)?;
            tables::write(&values, &mut spectrum.table()?)?;
            tables::write(&vectors, &mut vector_table(&spectrum)?)?;
            self.write_row(dir, found, &names)
        })
    }

    fn write_row(&self, dir: &Path, found: SweepPoint, names: &[String]) -> Result<()> {
        let row = SweepReport {
            points: vec![found],
            computed: 1,
        };
        let mut text = Vec::new();
        CsvWriter::new(&mut text).finish(&mut row.table()?)?;
        let text = String::from_utf8_lossy(&text);
        write_atomically(&model_file(dir, self.id), WRITABLE, |part| {
            fs::write(part, with_checksum(&text, dir, names)?)
        })
    }
}

/// One row per parameter.
fn gradient_table(parameters: &Parameters, gradient: &[f64]) -> Result<DataFrame> {
    let blocks = parameters.blocks();
    let names = blocks
        .iter()
        .flat_map(|(name, range)| vec![name.as_str(); range.len()]);
    let indices = blocks.iter().flat_map(|(_, range)| 0..range.len() as u64);
    Ok(df!(
        "parameter" => names.collect::<Vec<_>>(),
        "index" => indices.collect::<Vec<_>>(),
        "value" => gradient,
    )?)
}

/// One column per eigenvector.
fn vector_table(spectrum: &Spectrum) -> Result<DataFrame> {
    let columns = spectrum.pairs.iter().enumerate().map(|(i, pair)| {
        let rounded: Vec<f32> = pair.vector.iter().map(|v| *v as f32).collect();
        Column::new(format!("v{}", i + 1).into(), rounded)
    });
    Ok(DataFrame::new(spectrum.dim, columns.collect())?)
}
