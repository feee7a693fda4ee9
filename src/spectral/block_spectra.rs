//! [`BlockSpectra`]: spectra of the diagonal blocks of a matrix, and how they differ.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::block_checkpoint::BlockCheckpoint;
use super::{Bracket, Density, DensitySettings, Estimate, Quadrature, Short};
use crate::error::{Result, counted};
use crate::operator::{Block, Blocks, LinearOperator};
use crate::progress::Progress;
use crate::vector::axpy;

/// Width of the Gaussian that smooths two densities for their distance, relative to the larger root mean square eigenvalue.
const WIDTH: f64 = 0.1;

/// Settings of [`BlockSpectra`]: stochastic Lanczos quadrature of every block and of the whole matrix.
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::BlockSettings;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 8, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let hessian = Objective::of(&model, &data, Loss::CrossEntropy)?.hessian();
/// let blocks = hessian.by_block("layers.*")?;
/// let spectra = BlockSettings::default().with_probes(20).run(&blocks)?;
/// println!("{spectra}");
/// assert_eq!(spectra.blocks[0].name, "layers.0");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BlockSettings {
    /// Number of random vectors, at least 2.
    pub probes: usize,
    /// Number of Lanczos steps per random vector, at least 2. Each is one product. Blocks with at most `probes` × `steps` rows
    /// take one product per row instead; see [`DensitySettings::run`].
    pub steps: usize,
    /// Seed of the random vectors. All blocks have the same seed.
    pub seed: u64,
    /// File in which the spectra of finished blocks are saved, and from which the work resumes.
    pub checkpoint: Option<PathBuf>,
}

impl Default for BlockSettings {
    /// 10 probes, 50 steps, seed 0, no checkpoint.
    fn default() -> Self {
        Self {
            probes: 10,
            steps: 50,
            seed: 0,
            checkpoint: None,
        }
    }
}

impl BlockSettings {
    /// Sets the number of random vectors, at least 2.
    #[must_use]
    pub fn with_probes(mut self, probes: usize) -> Self {
        self.probes = probes;
        self
    }

    /// Sets the number of Lanczos steps per random vector, at least 2.
    #[must_use]
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Sets the seed of the random vectors.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the file in which the spectra of finished blocks are saved. If it exists, the work resumes from it, and the result
    /// has the same bits as without interruption. A file of other work is an error.
    #[must_use]
    pub fn with_checkpoint(mut self, path: impl AsRef<Path>) -> Self {
        self.checkpoint = Some(path.as_ref().to_path_buf());
        self
    }

    /// Computes the spectra of all blocks and of the whole matrix.
    ///
    /// # Errors
    /// As [`DensitySettings::run`]; a checkpoint that cannot be written, or that belongs to other work.
    pub fn run<A: LinearOperator>(&self, blocks: &Blocks<A>) -> Result<BlockSpectra> {
        let settings = DensitySettings::default()
            .with_probes(self.probes)
            .with_steps(self.steps)
            .with_seed(self.seed);
        let operator = blocks.operator();
        let all = 0..operator.dim();
        let whole = ("whole matrix".to_owned(), vec![all]);
        let named = [blocks.ranges(), &[whole]].concat();
        let mut checkpoint = match &self.checkpoint {
            Some(path) => Some(BlockCheckpoint::open(path, self, operator, &named)?),
            None => None,
        };
        let mut spectra = match &checkpoint {
            Some(checkpoint) => checkpoint.spectra(&named)?,
            None => Vec::new(),
        };
        let mut progress = Progress::start("block spectra");
        for (i, (name, ranges)) in named.iter().enumerate().skip(spectra.len()) {
            progress.part_with(i, named.len(), || {
                format!("{name}, {} of {}", i + 1, named.len())
            });
            let block = Block::from_ranges(operator, ranges.clone())?;
            let (density, [smallest, largest]) = settings.run_with_extremes(&block)?;
            let spectrum = BlockSpectrum {
                name: name.clone(),
                largest,
                smallest,
                density,
            };
            if let Some(checkpoint) = &mut checkpoint {
                checkpoint.add(&spectrum)?;
            }
            spectra.push(spectrum);
        }
        let whole = spectra.swap_remove(named.len() - 1);
        Ok(BlockSpectra {
            blocks: spectra,
            whole,
        })
    }
}

impl<A: LinearOperator> Blocks<A> {
    /// The spectra of all blocks and of the whole matrix, by [`BlockSettings`] with its default settings.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 8, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let spectra = objective.hessian().by_block("layers.*")?.spectra()?;
    /// let dims: Vec<usize> = spectra.blocks.iter().map(|block| block.density.dim).collect();
    /// assert_eq!(dims, [8 * 2 + 8, 8 + 1]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`BlockSettings::run`].
    pub fn spectra(&self) -> Result<BlockSpectra> {
        BlockSettings::default().run(self)
    }
}

/// The spectrum of a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockSpectrum {
    /// Name of the block.
    pub name: String,
    /// Largest eigenvalue: that of all eigenvalues, with its rounding, if the density is [exact](Density::is_exact). Otherwise it
    /// is estimated by the largest node of all probes. No node is larger than the largest eigenvalue, up to
    /// rounding. The upper bound is the node plus its residual: some eigenvalue is that close to the node, but a larger one is
    /// missed if the steps are too few to find it. [`Lanczos`](super::Lanczos) searches for missed eigenvalues.
    pub largest: Bracket,
    /// Smallest eigenvalue, with bounds like those of the largest.
    pub smallest: Bracket,
    /// Spectral density.
    pub density: Density,
}

impl BlockSpectrum {
    /// Number of rows of the block.
    pub fn dim(&self) -> usize {
        self.density.dim
    }

    /// The trace of the block.
    pub fn trace(&self) -> Estimate {
        self.density.trace()
    }

    /// The squared Frobenius norm of the block.
    pub fn frobenius_squared(&self) -> Estimate {
        self.density.frobenius_squared()
    }

    /// The root mean square of the eigenvalues, ‖A‖_F/√n.
    pub fn root_mean_square(&self) -> Estimate {
        let square = self.density.moment(2);
        let value = square.value.sqrt();
        let standard_error = match value {
            0.0 => 0.0,
            value => 0.5 * square.standard_error / value,
        };
        Estimate {
            value,
            standard_error,
            ..square
        }
    }
}

/// Spectra of the diagonal blocks of a matrix, each from the same number of probes.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::operator::Blocks;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[3.0, 0.0, 2.0], [0.0, 1.0, 0.0], [2.0, 0.0, 3.0]])?;
/// let named = [("first".to_owned(), vec![0..2]), ("last".to_owned(), vec![2..3])];
/// let spectra = Blocks::new(a, named.to_vec())?.spectra()?;
/// let first = &spectra.blocks[0];
/// assert!((first.largest.value - 3.0).abs() < 1e-12 && (first.smallest.value - 1.0).abs() < 1e-12);
/// assert!((first.trace().value - 4.0).abs() < 1e-12);
/// assert!((spectra.whole.largest.value - 5.0).abs() < 1e-12);
/// // ‖A‖² = 27, of which 2² + 2² is outside the two blocks.
/// let share = spectra.outside_share().unwrap();
/// assert!((share.value - 8.0 / 27.0).abs() <= 4.0 * share.standard_error);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockSpectra {
    /// The blocks.
    pub blocks: Vec<BlockSpectrum>,
    /// The whole matrix.
    pub whole: BlockSpectrum,
}

impl BlockSpectra {
    /// The share of ‖A‖²_F outside the blocks, 1 − Σ_b ‖A_bb‖²_F / ‖A‖²_F, from the same probes, with its jackknife standard
    /// error; `None` if Av is 0 for all probes v or all but one, as for a zero matrix. Rows that are in no block count as outside.
    /// Exact up to rounding if all densities are [exact](Density::is_exact).
    pub fn outside_share(&self) -> Option<Estimate> {
        let densities = self.blocks.iter().chain([&self.whole]);
        let probes = densities.map(|block| block.density.probes.len()).max();
        let probes = probes.unwrap_or(1);
        let squares = |spectrum: &BlockSpectrum| -> Vec<f64> {
            let (n, found) = (spectrum.dim() as f64, &spectrum.density.probes);
            let square = |probe: &Quadrature| n * probe.integrate(|x| x * x);
            // An exact density has the same value for every probe.
            found.iter().cycle().take(probes).map(square).collect()
        };
        let all = squares(&self.whole);
        let mut inside = vec![0.0; all.len()];
        for block in &self.blocks {
            axpy(1.0, &squares(block), &mut inside);
        }
        let (all_sum, inside_sum): (f64, f64) = (all.iter().sum(), inside.iter().sum());
        let count = all.len() as f64;
        let share = 1.0 - inside_sum / all_sum;
        let values = all.iter().zip(&inside).map(|(a, b)| {
            let without = 1.0 - (inside_sum - b) / (all_sum - a);
            count * share - (count - 1.0) * without
        });
        let rounding = 8.0 * self.whole.density.epsilon * (2.0 - share);
        let found = match probes {
            1 => (all_sum > 0.0).then(|| Estimate::exact(share)),
            _ => (all.iter().all(|a| all_sum > *a))
                .then(|| Estimate::from_samples(&values.collect::<Vec<f64>>())),
        };
        found.map(|estimate| Estimate {
            products: self.products(),
            ..estimate.with_error(rounding)
        })
    }

    /// States the share outside the blocks.
    pub(crate) fn outside_line(&self) -> Option<String> {
        let share = self.outside_share()?;
        Some(format!("share of ‖A‖²_F outside the blocks: {share}"))
    }

    /// The [Jensen–Shannon distances](Density::js_distance) of all pairs of blocks. The densities of a pair are smoothed with a
    /// Gaussian whose standard deviation is a tenth of the larger root mean square eigenvalue of the two, so that the distance
    /// does not depend on the unit of the loss. Two zero blocks have the distance 0.
    ///
    /// Eigenvalues that are closer than this width count as equal. If most eigenvalues of both blocks are that close to 0, the
    /// distance is small even if the largest differ by orders of magnitude: then compare the largest eigenvalues and the root
    /// mean squares.
    ///
    /// # Errors
    /// Blocks with different numbers of probes.
    pub fn js_distances(&self) -> Result<JsDistances> {
        let count = self.blocks.len();
        let size = |density: &Density| match density.is_zero() {
            true => 0.0,
            false => density.root_mean_square(),
        };
        let sizes = self.blocks.iter().map(|block| size(&block.density));
        let sizes: Vec<f64> = sizes.collect();
        let pairs: Vec<(usize, usize)> = (0..count)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .collect();
        let distances = pairs.par_iter().map(|&(i, j)| {
            let [a, b] = [i, j].map(|i| &self.blocks[i].density);
            match WIDTH * sizes[i].max(sizes[j]) {
                0.0 => Ok(Estimate::exact(0.0)),
                width => a.js_distance(b, width),
            }
        });
        let distances: Vec<Estimate> = distances.collect::<Result<_>>()?;
        let probes = self.blocks.iter().map(|block| match &block.density {
            density if density.is_exact() => 0,
            density => density.probes.len(),
        });
        let mut result = JsDistances {
            samples: probes.max().unwrap_or(0),
            products: self.products() - self.whole.density.products,
            names: self.blocks.iter().map(|block| block.name.clone()).collect(),
            values: vec![vec![0.0; count]; count],
            standard_errors: vec![vec![0.0; count]; count],
        };
        for (&(i, j), distance) in pairs.iter().zip(&distances) {
            for (i, j) in [(i, j), (j, i)] {
                result.values[i][j] = distance.value;
                result.standard_errors[i][j] = distance.standard_error;
            }
        }
        Ok(result)
    }

    /// Number of matrix–vector products.
    pub fn products(&self) -> usize {
        let blocks = self.blocks.iter().chain([&self.whole]);
        blocks.map(|block| block.density.products).sum()
    }
}

/// One line per block and one for the whole matrix.
impl std::fmt::Display for BlockSpectra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = || self.blocks.iter().chain([&self.whole]);
        let width = all()
            .map(|block| block.name.chars().count())
            .max()
            .unwrap_or(0);
        writeln!(
            f,
            "{:width$} {:>8} {:>24} {:>24} {:>24} {:>24}",
            "block", "dim", "largest", "smallest", "trace", "‖·‖²_F"
        )?;
        let cell = |value: f64, error: f64| format!("{:.4} ± {:.1}", Short(value), Short(error));
        for block in all() {
            let bracket = |bracket: Bracket| cell(bracket.value, bracket.error());
            let estimate = |estimate: Estimate| cell(estimate.value, estimate.standard_error);
            writeln!(
                f,
                "{:width$} {:>8} {:>24} {:>24} {:>24} {:>24}",
                block.name,
                block.dim(),
                bracket(block.largest),
                bracket(block.smallest),
                estimate(block.trace()),
                estimate(block.frobenius_squared()),
            )?;
        }
        match self.outside_line() {
            Some(line) => write!(f, "{line}"),
            None => write!(f, "{}", counted(self.products(), "product")),
        }
    }
}

/// Jensen–Shannon distances between the densities of blocks.
///
/// ```
/// use loss_landscape::ndarray::{Array1, Array2};
/// use loss_landscape::operator::Blocks;
/// use loss_landscape::prelude::*;
///
/// // The first two blocks have the eigenvalues 1, …, 20, the third 101, …, 120.
/// let entry = |i: usize| (i % 20 + 1 + if i < 40 { 0 } else { 100 }) as f64;
/// let a = Dense::new(Array2::from_diag(&Array1::from_shape_fn(60, entry)))?;
/// let named = ["a", "b", "c"].iter().enumerate();
/// let named = named.map(|(i, name)| ((*name).to_owned(), vec![20 * i..20 * (i + 1)]));
/// let distances = Blocks::new(a, named.collect())?.spectra()?.js_distances()?;
/// assert!(distances.values[0][1] < 1e-6 && distances.values[0][2] > 0.8);
/// assert!((distances.mean().unwrap().value - 2.0 / 3.0).abs() < 0.1);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JsDistances {
    /// Names of the blocks.
    pub names: Vec<String>,
    /// Distance of each pair of blocks, from 0 to 1. Symmetric, 0 on the diagonal.
    pub values: Vec<Vec<f64>>,
    /// Standard error of each distance.
    pub standard_errors: Vec<Vec<f64>>,
    /// Number of probes per block; 0 if all densities are [exact](Density::is_exact).
    pub samples: usize,
    /// Number of matrix–vector products.
    pub products: usize,
}

impl JsDistances {
    /// The mean over all pairs of blocks, which Zhang et al. call JS⁰ at initialisation; `None` for a single block. Its standard
    /// error is the mean of those of the pairs, an upper bound that is reached if all errors are fully correlated.
    pub fn mean(&self) -> Option<Estimate> {
        let count = self.names.len();
        let pairs = (count * count.saturating_sub(1)) as f64;
        let mean = |values: &[Vec<f64>]| values.iter().flatten().sum::<f64>() / pairs;
        (count > 1).then(|| Estimate {
            value: mean(&self.values),
            standard_error: mean(&self.standard_errors),
            samples: self.samples,
            products: self.products,
            converged: true,
        })
    }
}

impl std::fmt::Display for JsDistances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mean() {
            Some(mean) => write!(
                f,
                "mean Jensen–Shannon distance of {}: {:.3} ± {:.1} (standard error)",
                counted(self.names.len(), "block"),
                Short(mean.value),
                Short(mean.standard_error)
            ),
            None => write!(f, "one block: no Jensen–Shannon distances"),
        }
    }
}
