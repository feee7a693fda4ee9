//! `landscape spectrum`

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::Ignored;
use crate::figure_args::FigureArgs;
use crate::limits::{at_least, positive};
use crate::matrix_args::MatrixArgs;
use crate::output::{
    Report, number, prepare_dir, scientific, write_arrays, write_table, write_text, write_vectors,
};
use crate::path_args::path;

#[derive(Args)]
pub struct Spectrum {
    /// Number of eigenvalues [default: 30, or all if fewer]
    #[arg(long, value_name = "K")]
    top: Option<usize>,
    /// Which eigenvalues
    #[arg(long, value_enum, default_value = "lm")]
    which: WhichName,
    #[command(flatten)]
    pub matrix: MatrixArgs,
    /// Largest residual, relative to the largest |λ|
    #[arg(long, default_value_t = 1e-4, allow_negative_numbers = true)]
    tolerance: f64,
    /// Block size of Lanczos; finds eigenvalues of multiplicity up to N
    #[arg(long, value_name = "N", default_value_t = 1)]
    block: usize,
    /// Largest number of basis vectors in memory, 8 bytes per parameter each; at least K plus two blocks [default: all up to 1,024 parameters; beyond, 4K + 40, or as many as fit into 2 GiB, but at least 2K]
    #[arg(long, value_name = "N")]
    max_basis: Option<usize>,
    /// Fit a power law to the positive eigenvalues without the N largest, the outliers; at least 51 without them
    #[arg(long, value_name = "N")]
    power_law: Option<usize>,
    /// Seed of the start vectors and of the power law's interval
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for spectrum.csv, .parquet, .npz and .json, eigenvectors.safetensors (v0, v1, …) and a figure
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub figures: FigureArgs,
}

/// All files that the command writes to --out, without figures.
const FILES: [&str; 5] = [
    "spectrum.csv",
    "spectrum.parquet",
    "spectrum.npz",
    "spectrum.json",
    "eigenvectors.safetensors",
];

#[derive(Clone, Copy, ValueEnum)]
enum WhichName {
    /// Largest magnitude
    Lm,
    /// Largest
    La,
    /// Smallest
    Sa,
    /// Half from each end of the spectrum
    Both,
}

impl Spectrum {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.matrix.ignored();
        ignored.extend(self.figures.ignored(self.out.is_some(), "it needs --out"));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "top", self.top.unwrap_or(1))?;
        positive("tolerance", self.tolerance)?;
        at_least(1, "block", self.block)?;
        at_least(1, "max-basis", self.max_basis.unwrap_or(1))?;
        if let Some(outliers) = self.power_law {
            let least = outliers.saturating_add(PowerLawSettings::MIN_VALUES);
            at_least(least, "top with --power-law", self.top.unwrap_or(0))?;
        }
        self.matrix.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        if let Some(dir) = &self.out {
            prepare_dir(dir, &FILES, &self.figures.file_names(&["spectrum"])?)?;
        }
        let matrix = self.matrix.build()?;
        let lanczos = Lanczos::default()
            .with_which(match self.which {
                WhichName::Lm => Which::LargestMagnitude,
                WhichName::La => Which::Largest,
                WhichName::Sa => Which::Smallest,
                WhichName::Both => Which::BothEnds,
            })
            .with_tolerance(self.tolerance)
            .with_block_size(self.block)
            .with_max_basis(self.max_basis)
            .with_seed(self.seed);
        let started = Instant::now();
        let top = self.top.unwrap_or(matrix.operator.dim().min(30));
        let mut spectrum = lanczos.run(&matrix.operator, top)?;
        let seconds = started.elapsed().as_secs_f64();
        match self.which {
            WhichName::Lm => spectrum = spectrum.by_magnitude(),
            WhichName::Sa => spectrum.pairs.reverse(),
            WhichName::La | WhichName::Both => {}
        }

        let power_law = self.power_law.map(|num_outliers| {
            let settings = PowerLawSettings::default().with_num_outliers(num_outliers);
            spectrum.power_law(&settings.with_seed(self.seed))
        });
        let mut json = json!({
            "eigenvalues": spectrum.values(),
            "residuals": spectrum.residuals(),
            "products": spectrum.products,
            "seconds": seconds,
            "converged": spectrum.converged,
        });
        let mut text = String::from("   eigenvalue    ± residual\n");
        for pair in &spectrum.pairs {
            text += &format!(
                "{:>13} {:>13}\n",
                number(pair.value, 6),
                scientific(pair.residual, 1)
            );
        }
        text += &format!("{} products, {seconds:.2} s\n", spectrum.products);
        if !spectrum.converged {
            text +=
                "not converged: a residual is above the tolerance, or eigenvalues may be missing\n";
        }
        // The eigenvalues are not lost if there is no fit.
        match power_law {
            Some(Ok(fit)) => {
                text += &format!("{fit}\n");
                json["power_law"] = json!(fit);
            }
            Some(Err(error)) => text += &format!("no power law: {error}\n"),
            None => {}
        }
        let mut report = matrix.report(text, json);
        if let Some(dir) = &self.out {
            write_table(dir, "spectrum", &mut spectrum.table()?)?;
            write_arrays(&dir.join("spectrum.npz"), spectrum.arrays()?)?;
            write_text(&dir.join("spectrum.json"), &report.json.to_string())?;
            let pairs = spectrum.pairs.iter().enumerate();
            let vectors = pairs.map(|(i, pair)| (format!("v{i}"), &pair.vector[..]));
            write_vectors(&dir.join("eigenvectors.safetensors"), vectors)?;
            let figures = [("spectrum", figure::spectrum(&spectrum))];
            self.figures.write_all(dir, &figures, &mut report.text)?;
        }
        Ok(report)
    }
}
