//! [`Sweep`]: trains a network at each of many L2 strengths and computes eigenpairs of the Hessian of each. Results are
//! files in a directory.
//!
//! | file | content |
//! | --- | --- |
//! | `Model-{ID}.csv` | one row: strength, losses, accuracies, epochs, convergence of the eigenpairs, SHA-256 of all files of the point |
//! | `gradients-{ID}-{L2}.csv` | ∇L: parameter, index within it (row-major), value |
//! | `Hessian-eigenvalues-{ID}-{L2}.csv` | rank, eigenvalue, residual ‖Hv − λv‖; largest magnitude first |
//! | `Hessian-eigenvectors-{ID}-{L2}.csv` | columns v1, v2, … in the order of the eigenvalues, one row per parameter, rounded to `f32` |
//! | `model_weights-{ID}-{L2}.safetensors` | the weights, written by [`Parameters::save`](crate::model::Parameters::save) |
//! | `manifest.json` | all settings that determine the results |
//!
//! ID is the index of the strength, from 0. L2 is the strength as the shortest decimal, or in scientific notation if that
//! has more than 20 characters. With [`parquet`](Sweep::parquet) the tables of gradients and eigenpairs are Parquet files:
//! an entry of an eigenvector takes 4 bytes instead of about 12. With [`pth`](Sweep::pth) the weights are
//! `model_weights-{ID}-{L2}.pth`, which PyTorch reads. No file contains a time: the same settings give the same bytes.
//!
//! The files of a point appear together, `Model-{ID}.csv` last: if it exists, the point is complete. An interrupted sweep
//! resumes with [`resume`](Sweep::resume) and gives the same bytes as an uninterrupted one. Points whose files are missing
//! or damaged are computed again.

mod checksum;
mod directory;
mod manifest;
mod point;
mod report;
mod table;

pub use report::{SweepPoint, SweepReport};

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::directory::Directory;
use self::manifest::manifest;
use self::point::{Point, shortest};
use crate::data::Dataset;
use crate::error::{Error, Result, counted};
use crate::model::Model;
use crate::objective::check_l2;
use crate::progress::Progress;
use crate::ranks::{Share, WorkQueue, agree_on_errors};
use crate::train::Trainer;

/// Maximum number of strengths.
const MAX_STRENGTHS: usize = 1_000_000;

/// candle traverses its graph recursively, and deep models have deep graphs.
const STACK_BYTES: usize = 256 << 20;

/// Settings of a sweep over L2 strengths: for each strength λ, trains a network on L = loss + λ‖θ‖² and computes the
/// eigenpairs of largest magnitude of ∇²L on the training data at the trained θ.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// # fn main() -> Result<(), Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("moons");
/// let data = two_moons(100, 0.1, 0, &Device::Cpu)?.to_dtype(DType::F32)?;
/// let trainer = Trainer::adam(0.01).with_batch_size(20).with_epochs(10).with_patience(5);
/// let sweep = Sweep::between(0.0, 0.02, 3)?.with_trainer(trainer).with_top(5);
/// let model = |seed| Mlp::new(&[2, 8, 1], Activation::Tanh, seed, &Device::Cpu);
/// let report = sweep.run(&dir, model, &data, &data)?;
/// println!("{}", report.table()?);
/// assert_eq!(report.computed, 3);
/// let again = sweep.with_resume(true).run(&dir, model, &data, &data)?;
/// assert_eq!((again.computed, again.points), (0, report.points)); // nothing to compute
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sweep {
    /// λ of each point, rounded to 12 significant digits.
    pub strengths: Vec<f64>,
    /// Training settings. The sweep sets L2 strength and seed.
    pub trainer: Trainer,
    /// Number of eigenpairs of largest magnitude.
    pub top: usize,
    /// Largest residual of a converged pair, relative to the largest |λ|.
    pub tolerance: f64,
    /// Seed of the weights, the shuffling and Lanczos, the same at each point.
    pub seed: u64,
    /// Number of points computed at the same time, each on a thread of its own. Does not change results.
    pub jobs: usize,
    /// Writes tables as Parquet instead of CSV.
    pub parquet: bool,
    /// Writes weights in PyTorch's format instead of safetensors.
    #[serde(default)]
    pub pth: bool,
    /// Resumes a sweep with the same settings in the directory.
    pub resume: bool,
    /// The points that this process computes. Not serialised. Ranks take the next free point; shard i of n takes every
    /// n-th.
    #[serde(skip)]
    pub share: Share,
}

impl Sweep {
    /// A sweep over these strengths. Defaults: Adam with learning rate 10⁻³, at most 100 epochs and a patience of 5; 30
    /// eigenpairs to a tolerance of 10⁻⁴; seed 0; one point at a time; CSV and safetensors; a new directory.
    pub fn new(strengths: impl Into<Vec<f64>>) -> Self {
        Self {
            strengths: strengths.into(),
            trainer: Trainer::adam(1e-3).with_epochs(100).with_patience(5),
            top: 30,
            tolerance: 1e-4,
            seed: 0,
            jobs: 1,
            parquet: false,
            pth: false,
            resume: false,
            share: Share::default(),
        }
    }

    /// A sweep over `count` evenly spaced strengths from `start` to `end`, both included. See [`Sweep::new`] for defaults.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// assert_eq!(
    ///     Sweep::between(0.0, 0.02, 5)?.strengths,
    ///     [0.0, 0.005, 0.01, 0.015, 0.02]
    /// );
    /// assert!(Sweep::between(0.02, 0.0, 5).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `start` and `end` are not finite or not in order; `count` is below 2 or above a million.
    pub fn between(start: f64, end: f64, count: usize) -> Result<Self> {
        let ends = start < end && start.is_finite() && end.is_finite();
        if !(ends && (2..=MAX_STRENGTHS).contains(&count)) {
            return Err(Error::invalid(format!(
                "cannot take {count} strengths from {start} to {end}: give finite start < end and 2 to {MAX_STRENGTHS} \
                 strengths"
            )));
        }
        let share = |i: usize| i as f64 / (count - 1) as f64;
        let strengths = (0..count).map(|i| start + share(i) * (end - start));
        Ok(Self::new(strengths.map(decimal).collect::<Vec<_>>()))
    }

    /// λ of each point.
    #[must_use]
    pub fn with_strengths(mut self, strengths: impl Into<Vec<f64>>) -> Self {
        self.strengths = strengths.into();
        self
    }

    /// Training settings. The sweep sets L2 strength and seed.
    #[must_use]
    pub fn with_trainer(mut self, trainer: Trainer) -> Self {
        self.trainer = trainer;
        self
    }

    /// Number of eigenpairs of largest magnitude.
    #[must_use]
    pub fn with_top(mut self, top: usize) -> Self {
        self.top = top;
        self
    }

    /// Largest residual of a converged pair, relative to the largest |λ|.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Seed of the weights, the shuffling and Lanczos.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Number of points computed at the same time.
    #[must_use]
    pub fn with_jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
        self
    }

    /// Writes tables as Parquet instead of CSV.
    #[must_use]
    pub fn with_parquet(mut self, parquet: bool) -> Self {
        self.parquet = parquet;
        self
    }

    /// Writes weights in PyTorch's format, for `torch.load(path, weights_only=True)`, instead of safetensors.
    #[must_use]
    pub fn with_pth(mut self, pth: bool) -> Self {
        self.pth = pth;
        self
    }

    /// Resumes a sweep with the same settings in the directory.
    #[must_use]
    pub fn with_resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// The points that this process computes.
    #[must_use]
    pub fn with_share(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// Computes the points that are missing in `dir` and returns all points. `model` builds a network from a seed.
    ///
    /// # Errors
    /// Invalid settings; a directory that cannot be created or written to, that already contains a sweep (with `resume`: a
    /// sweep with other settings), or that another sweep is using; a training that diverges (the message names the strength;
    /// all other points are still computed); errors of the eigenvalue computation. Finished points are kept.
    pub fn run<M>(
        &self,
        dir: impl AsRef<Path>,
        model: impl Fn(u64) -> Result<M> + Sync,
        train: &Dataset,
        test: &Dataset,
    ) -> Result<SweepReport>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        let sweep = self.checked()?;
        let manifest = manifest(&sweep, &model(self.seed)?, [train, test])?;
        let count = sweep.strengths.len();
        let (directory, todo) = sweep.open_directory(dir.as_ref(), &manifest)?;
        let queue = WorkQueue::new(&self.share, todo.len());
        let progress = Mutex::new(Progress::start("sweep"));
        let concurrent = self.jobs * self.share.as_ranks().map_or(1, |ranks| ranks.size());

        let diverged = Mutex::new(Vec::new());

        let compute = |turn: usize| {
            let id = todo[turn];
            let l2 = sweep.strengths[id];
            let what = format!("point {} of {count}, L2 {}", id + 1, shortest(l2));
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.begin(&what, (turn + 1).saturating_sub(concurrent), todo.len());
            drop(progress);
            let point = Point {
                sweep: &sweep,
                id,
                l2,
            };
            let found = model(self.seed).and_then(|m| point.write(&directory, &m, train, test));
            match found.map_err(|error| with_point(&what, error)) {
                Err(Error::NotFinite(problem)) => {
                    let mut diverged = diverged.lock().unwrap_or_else(PoisonError::into_inner);
                    diverged.push((id, problem));
                    Ok(())
                }
                found => found,
            }
        };
        let computed = run_queue(&queue, self.jobs.min(todo.len()), compute);
        let diverged = diverged
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        agree_on_errors(
            self.share.as_ranks(),
            computed.and_then(|()| check_diverged(diverged)),
        )?;
        let there = (0..count).filter(|id| directory.holds(*id)).count();
        drop(directory);
        if there < count && self.share.is_shard() {
            return Err(Error::Unfinished {
                task: "sweep",
                done: there,
                count,
            });
        }
        if there < count {
            let count = counted(count, "point");
            let problem = format!("lists only {there} of {count} although all were written");
            let advice = "Wait for the network file system, then resume the sweep";
            return Err(Error::file(dir.as_ref(), problem, advice));
        }
        let mut report = SweepReport::read(dir)?;
        report.computed = todo.len();
        Ok(report)
    }

    /// Opens the directory. Returns it with the indices of the points to compute, here or on other ranks.
    fn open_directory(&self, dir: &Path, manifest: &str) -> Result<(Directory, Vec<usize>)> {
        let count = self.strengths.len();
        let Some(ranks) = self.share.as_ranks() else {
            let directory = Directory::open(dir, manifest, self)?;
            let open = |id: &usize| self.share.owns(*id) && !directory.is_whole(self, *id);
            let todo = (0..count).into_par_iter().filter(open).collect();
            return Ok((directory, todo));
        };
        // Only the root looks, so that all ranks see the same, and completes what an interrupted sweep left.
        let opened = match ranks.rank() {
            0 => Directory::open(dir, manifest, self),
            _ => Ok(Directory::unlocked(dir)),
        };
        let directory = agree_on_errors(Some(ranks), opened)?;
        let open = |id| ranks.rank() == 0 && !directory.is_whole(self, id);
        let todo = (0..count).into_par_iter();
        let mut todo: Vec<f64> = todo.map(|id| f64::from(u8::from(open(id)))).collect();
        ranks.sum(&mut todo)?;
        let todo = (0..count).filter(|id| todo[*id] > 0.0).collect();
        Ok((directory, todo))
    }

    /// Checks the settings, as [`Sweep::run`] does before any work.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// assert!(Sweep::new([0.0, 0.01]).check().is_ok());
    /// assert!(Sweep::new([-0.01]).check().is_err());
    /// ```
    ///
    /// # Errors
    /// No strengths, an invalid or repeated one; a setting out of its range.
    pub fn check(&self) -> Result<()> {
        self.checked().map(drop)
    }

    /// Validates the settings and rounds the strengths.
    fn checked(&self) -> Result<Self> {
        let strengths: Vec<f64> = self.strengths.iter().copied().map(decimal).collect();
        if strengths.is_empty() {
            return Err(Error::invalid("a sweep needs at least one L2 strength"));
        }
        strengths.iter().try_for_each(|s| check_l2(*s))?;
        let mut sorted = strengths.clone();
        sorted.sort_by(f64::total_cmp);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(format!(
                "the L2 strength {} is given twice: remove one",
                pair[0]
            )));
        }
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return Err(Error::invalid(format!(
                "tolerance must be finite and above 0, found {}",
                self.tolerance
            )));
        }
        if self.jobs == 0 {
            return Err(Error::invalid("jobs must be at least 1, found 0"));
        }
        self.trainer.check()?;
        Ok(Self {
            strengths,
            ..self.clone()
        })
    }
}

/// Rounds to 12 significant digits, which removes rounding errors of decimals.
fn decimal(strength: f64) -> f64 {
    // A printed number parses. The sum turns −0 into 0.
    format!("{strength:.11e}")
        .parse::<f64>()
        .unwrap_or(strength)
        + 0.0
}

/// Runs `work` on the items of the queue, `jobs` at a time, until one fails.
fn run_queue(
    queue: &WorkQueue,
    jobs: usize,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let some = || -> Result<()> {
        while let Some(turn) = queue.next()? {
            work(turn).inspect_err(|_| queue.stop())?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = (0..jobs).map(|_| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            let started = thread.spawn_scoped(scope, some);
            started.map_err(|e| Error::invalid(format!("cannot start a thread: {e}")))
        });
        let threads: Vec<_> = threads.collect::<Result<_>>()?;
        let results = threads.into_iter().map(|thread| thread.join());
        let results: Vec<_> = results
            .map(|r| r.unwrap_or_else(|p| resume_unwind(p)))
            .collect();
        results.into_iter().collect()
    })
}

/// Returns an error that names the trainings that diverged, if any.
fn check_diverged(mut diverged: Vec<(usize, String)>) -> Result<()> {
    // Several jobs finish in any order.
    diverged.sort();
    let problems: Vec<_> = diverged.into_iter().map(|(_, problem)| problem).collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::NotFinite(format!(
            "{}. The other points are finished",
            problems.join("; ")
        ))),
    }
}

/// Adds the point to the error message.
fn with_point(point: &str, error: Error) -> Error {
    match error {
        Error::Invalid(message) => Error::Invalid(format!("{point}: {message}")),
        Error::NotFinite(message) => Error::NotFinite(format!("{point}: {message}")),
        Error::Panicked(message) => Error::Panicked(format!("{point}: {message}")),
        other => other,
    }
}
