//! `landscape blocks`

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{self, Value, json};
use loss_landscape::spectral::{BlockSettings, BlockSpectra, BlockSpectrum};

use crate::figure_args::FigureArgs;
use crate::limits::at_least;
use crate::network_args::{OperatorName, PointArgs};
use crate::output::{Report, prepare_dir, write_table, write_text};
use crate::path_args::path;
use crate::{Ignored, mpi_context, signals};

#[derive(Args)]
pub struct Blocks {
    #[command(flatten)]
    pub point: PointArgs,
    /// Curvature matrix to analyse
    #[arg(long, value_enum, default_value = "hessian")]
    operator: OperatorName,
    /// Pattern of parameter names, such as `blocks.*.attention.*`: one block per different prefix that matches; `**` selects one block per parameter
    #[arg(long, value_name = "GLOB", default_value = "**")]
    pattern: String,
    /// Split the blocks by attention head
    #[arg(long)]
    heads: bool,
    /// Number of random vectors
    #[arg(long, default_value_t = 10)]
    probes: usize,
    /// Lanczos steps per random vector
    #[arg(long, default_value_t = 50)]
    steps: usize,
    /// Seed of the random vectors
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Checkpoint file for the spectra of finished blocks; resumes from it if it exists
    #[arg(long, value_name = "FILE", value_parser = path())]
    resume: Option<PathBuf>,
    /// Directory for blocks.json, tables and figures
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub figures: FigureArgs,
}

/// Files that `--out` writes, without figures.
const FILES: [&str; 5] = [
    "blocks.json",
    "blocks.csv",
    "blocks.parquet",
    "distances.csv",
    "distances.parquet",
];

impl Blocks {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.point.ignored();
        ignored.extend(self.figures.ignored(self.out.is_some(), "it needs --out"));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(2, "probes", self.probes)?;
        at_least(2, "steps", self.steps)?;
        if self.resume.is_some() && mpi_context::ranks().is_some() {
            return Err(Error::Invalid(
                "--resume works with a single process: run `landscape blocks` without mpirun"
                    .into(),
            ));
        }
        self.point.setting.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        if let Some(dir) = &self.out {
            let figures = ["blocks", "densities", "distances"];
            prepare_dir(dir, &FILES, &self.figures.file_names(&figures)?)?;
        }
        let objective = self.point.distributed()?;
        signals::on_interrupt(match &self.resume {
            Some(file) => format!(
                "the spectra of finished blocks are saved in {}: run the same command to resume",
                file.display()
            ),
            None => "nothing is saved; use --resume FILE to save finished blocks".to_owned(),
        });
        let started = Instant::now();
        let pattern = &self.pattern;
        let spectra = match (self.operator, self.heads) {
            (OperatorName::Hessian, false) => self.spectra(objective.hessian().by_block(pattern)),
            (OperatorName::Hessian, true) => self.spectra(objective.hessian().by_head(pattern)),
            (OperatorName::Ggn, false) => self.spectra(objective.gauss_newton().by_block(pattern)),
            (OperatorName::Ggn, true) => self.spectra(objective.gauss_newton().by_head(pattern)),
            (OperatorName::Fisher, false) => self.spectra(objective.fisher().by_block(pattern)),
            (OperatorName::Fisher, true) => self.spectra(objective.fisher().by_head(pattern)),
        }?;
        let seconds = started.elapsed().as_secs_f64();
        let (distances, share) = (spectra.js_distances()?, spectra.outside_share());
        let products = spectra.products();
        let mut report = Report::new(
            &objective,
            format!("{spectra}\n{distances}\n{products} products, {seconds:.2} s\n"),
            json!({
                "blocks": spectra.blocks.iter().map(summary).collect::<Vec<_>>(),
                "whole": summary(&spectra.whole),
                "js_distances": distances,
                "mean_js_distance": distances.mean(),
                "outside_share": share,
                "products": products,
                "seconds": seconds,
            }),
        );
        if let Some(dir) = &self.out {
            let mut json = report.json.clone();
            json["spectra"] = serde_json::to_value(&spectra)
                .map_err(|e| Error::Invalid(format!("spectra cannot be written: {e}")))?;
            write_text(&dir.join("blocks.json"), &json.to_string())?;
            write_table(dir, "blocks", &mut spectra.table()?)?;
            write_table(dir, "distances", &mut distances.table()?)?;
            let figures = [
                ("blocks", figure::block_spectra(&spectra)),
                ("densities", figure::block_densities(&spectra)?),
                ("distances", figure::js_distances(&distances)),
            ];
            self.figures.write_all(dir, &figures, &mut report.text)?;
        }
        Ok(report)
    }

    /// The spectra of the blocks of a matrix.
    fn spectra<A: LinearOperator>(
        &self,
        blocks: Result<loss_landscape::operator::Blocks<A>, Error>,
    ) -> Result<BlockSpectra, Error> {
        let mut settings = BlockSettings::default()
            .with_probes(self.probes)
            .with_steps(self.steps)
            .with_seed(self.seed);
        settings.checkpoint.clone_from(&self.resume);
        settings.run(&blocks?)
    }
}

/// The numbers of a block, without its quadratures.
fn summary(block: &BlockSpectrum) -> Value {
    json!({
        "name": block.name,
        "dim": block.dim(),
        "largest": block.largest,
        "smallest": block.smallest,
        "root_mean_square": block.root_mean_square(),
        "trace": block.trace(),
        "frobenius_squared": block.frobenius_squared(),
    })
}
