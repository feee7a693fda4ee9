//! The L2 study: [`Sweep`] trains a network at each of many L2 strengths and decomposes the Hessian of what it was
//! trained by; a directory keeps the results.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `Model-{ID}.csv` | one row: strength, losses, accuracies, epochs, how the decomposition ended; a SHA-256 of all files |
//! | `gradients-{ID}-{L2}.csv` | ∇L: parameter, index within it (row-major), value |
//! | `Hessian-eigenvalues-{ID}-{L2}.csv` | rank, eigenvalue, residual ‖Hv − λv‖; largest magnitude first |
//! | `Hessian-eigenvectors-{ID}-{L2}.csv` | columns v1, v2, … in that order, a row for each entry of θ, rounded to `f32` |
//! | `model_weights-{ID}-{L2}.safetensors` | the weights, as of [`Parameters::save`](crate::model::Parameters::save) |
//! | `manifest.json` | everything that the results depend on |
//!
//! ID is the strength's place in the list, counted from 0, and L2 the strength as the shortest decimal, or as in 1e-30
//! where that has more than 20 characters. With
//! [`parquet`](Sweep::parquet) the tables of gradients and eigenpairs are `.parquet`: an eigenvector takes some 12 bytes
//! an entry in a CSV file, and 4 there. No file holds a time: the same settings give the same bytes.
//!
//! A point's files appear all or none, and `Model-{ID}.csv` last: where it is, the point is whole. A sweep that was
//! killed goes on with [`resume`](Sweep::resume), and ends with the bytes of one that was not. So does one of which files
//! are lost or damaged: their points are computed again.

mod directory;
mod manifest;
mod point;
mod report;
mod seal;
mod table;

pub use report::{SweepPoint, SweepReport};

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rayon::prelude::*;

use self::directory::Directory;
use self::manifest::manifest;
use self::point::{Point, shortest};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::objective::check_l2;
use crate::progress::Progress;
use crate::ranks::{Share, Turns, all_well};
use crate::train::Trainer;

/// Strengths of a study.
const MOST: usize = 1_000_000;

/// candle walks a graph recursively, and a deep model makes a deep graph.
const STACK_BYTES: usize = 256 << 20;

/// The settings of an L2 study: for each strength λ a network is trained by L = loss + λ‖θ‖², then the eigenpairs of
/// largest magnitude of ∇²L on the training data are computed where the training has ended.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// # fn main() -> Result<(), Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("moons");
/// let data = two_moons(100, 0.1, 0, &Device::Cpu)?.to_dtype(DType::F32)?;
/// let sweep = Sweep {
///     trainer: Trainer::adam(0.01).with_batch_size(20).with_epochs(10).with_patience(5),
///     top: 5,
///     ..Sweep::between(0.0, 0.02, 3)?
/// };
/// let model = |seed| Mlp::new(&[2, 8, 1], Activation::Tanh, seed, &Device::Cpu);
/// let report = sweep.run(&dir, model, &data, &data)?;
/// println!("{}", report.table()?);
/// assert_eq!(report.computed, 3);
/// let again = Sweep { resume: true, ..sweep }.run(&dir, model, &data, &data)?;
/// assert_eq!((again.computed, again.points), (0, report.points)); // all was there
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// λ of each point, rounded to 12 significant digits.
    pub strengths: Vec<f64>,
    /// How each network is trained. λ and the seed are those of this study.
    pub trainer: Trainer,
    /// How many eigenpairs of largest magnitude.
    pub top: usize,
    /// Largest residual, in units of the largest |λ|, at which a pair counts as found.
    pub tolerance: f64,
    /// Seed of the weights, the order of the samples and the search for eigenpairs: the same at each point, so that
    /// points differ by their strength alone.
    pub seed: u64,
    /// Points at a time, each on a thread of its own. The results are the same, to the bit.
    pub jobs: usize,
    /// Tables as Parquet instead of CSV.
    pub parquet: bool,
    /// Goes on with a study of the same settings that lies in the directory.
    pub resume: bool,
    /// Which of the points are computed here. Ranks take one after another; a shard takes every so-many-th.
    pub share: Share,
}

impl Sweep {
    /// A study at these strengths: Adam with a learning rate of 10⁻³ for 100 epochs at most and with a patience of 5, 30
    /// eigenpairs to a tolerance of 10⁻⁴, seed 0, one point at a time, CSV, in a new directory.
    pub fn of(strengths: impl Into<Vec<f64>>) -> Self {
        Self {
            strengths: strengths.into(),
            trainer: Trainer::adam(1e-3).with_epochs(100).with_patience(5),
            top: 30,
            tolerance: 1e-4,
            seed: 0,
            jobs: 1,
            parquet: false,
            resume: false,
            share: Share::default(),
        }
    }

    /// As [`Sweep::of`], at `count` evenly spaced strengths, both ends among them.
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
    /// Ends that are not finite or not in order; fewer than 2 strengths or more than a million.
    pub fn between(start: f64, end: f64, count: usize) -> Result<Self> {
        let ends = start < end && start.is_finite() && end.is_finite();
        if !(ends && (2..=MOST).contains(&count)) {
            return Err(Error::invalid(format!(
                "{count} strengths from {start} to {end} make no study: give two finite ends in order and from 2 to \
                 {MOST} strengths"
            )));
        }
        let share = |i: usize| i as f64 / (count - 1) as f64;
        let strengths = (0..count).map(|i| start + share(i) * (end - start));
        Ok(Self::of(strengths.map(decimal).collect::<Vec<_>>()))
    }

    /// Computes the points that `dir` does not hold yet, with networks that `model` makes from a seed, and reads all of
    /// them back.
    ///
    /// # Errors
    /// Settings that make no sense. A directory that cannot be made or written to, that holds a study already, with
    /// `resume` one of other settings, or in which another study is at work. A training that diverges: the message names
    /// the strength, and the other points are computed all the same. A decomposition that fails. Points that are finished
    /// stay in any case.
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
        let (directory, todo) = sweep.take_up(dir.as_ref(), &manifest)?;
        let turns = Turns::new(&self.share, todo.len());
        let progress = Mutex::new(Progress::start("sweep"));
        let at_once = self.jobs * self.share.among().map_or(1, |ranks| ranks.size());

        let diverged = Mutex::new(Vec::new());

        let compute = |turn: usize| {
            let id = todo[turn];
            let l2 = sweep.strengths[id];
            let what = format!("point {} of {count}, L2 {}", id + 1, shortest(l2));
            let mut news = progress.lock().unwrap_or_else(PoisonError::into_inner);
            news.begin(&what, (turn + 1).saturating_sub(at_once), todo.len());
            drop(news);
            let point = Point {
                sweep: &sweep,
                id,
                l2,
            };
            let found = model(self.seed).and_then(|m| point.write(&directory, &m, train, test));
            match found.map_err(|error| at(&what, error)) {
                Err(Error::NotFinite(problem)) => {
                    let mut diverged = diverged.lock().unwrap_or_else(PoisonError::into_inner);
                    diverged.push((id, problem));
                    Ok(())
                }
                found => found,
            }
        };
        let computed = each(&turns, self.jobs.min(todo.len()), compute);
        let diverged = diverged
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        all_well(self.share.among(), computed.and_then(|()| none(diverged)))?;
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
            let problem = format!("shows {there} of {count} points though all are written");
            let cure = "Wait until the file system has settled, and resume it";
            return Err(Error::file(dir.as_ref(), problem, cure));
        }
        let mut report = SweepReport::read(dir)?;
        report.computed = todo.len();
        Ok(report)
    }

    /// The directory, and the points that are to be computed, here or on other ranks.
    fn take_up(&self, dir: &Path, manifest: &str) -> Result<(Directory, Vec<usize>)> {
        let count = self.strengths.len();
        let Some(ranks) = self.share.among() else {
            let directory = Directory::open(dir, manifest, self)?;
            let open = |id: &usize| self.share.owns(*id) && !directory.is_whole(self, *id);
            let todo = (0..count).into_par_iter().filter(open).collect();
            return Ok((directory, todo));
        };
        // One rank looks, so that all see the same, and brings up what another study has left.
        let opened = match ranks.rank() {
            0 => Directory::open(dir, manifest, self),
            _ => Ok(Directory::beside_another(dir)),
        };
        let directory = all_well(Some(ranks), opened)?;
        let open = |id| ranks.rank() == 0 && !directory.is_whole(self, id);
        let todo = (0..count).into_par_iter();
        let mut todo: Vec<f64> = todo.map(|id| f64::from(u8::from(open(id)))).collect();
        ranks.sum(&mut todo)?;
        let todo = (0..count).filter(|id| todo[*id] > 0.0).collect();
        Ok((directory, todo))
    }

    /// The same with decimal strengths, if the settings make sense.
    fn checked(&self) -> Result<Self> {
        let strengths: Vec<f64> = self.strengths.iter().copied().map(decimal).collect();
        if strengths.is_empty() {
            return Err(Error::invalid("a study needs at least one L2 strength"));
        }
        strengths.iter().try_for_each(|s| check_l2(*s))?;
        let mut sorted = strengths.clone();
        sorted.sort_by(f64::total_cmp);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(format!(
                "the L2 strength {} comes twice: give each once",
                pair[0]
            )));
        }
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return Err(Error::invalid(format!(
                "a tolerance of {} cannot be reached: give a finite number above 0",
                self.tolerance
            )));
        }
        if self.jobs == 0 {
            return Err(Error::invalid(
                "0 points at a time would never end: give at least 1 job",
            ));
        }
        self.trainer.check()?;
        Ok(Self {
            strengths,
            ..self.clone()
        })
    }
}

/// To 12 significant digits: 0.0002 for what lies beside it by the rounding of a sum.
fn decimal(strength: f64) -> f64 {
    // What was printed parses. The sum makes 0 of −0.
    format!("{strength:.11e}")
        .parse::<f64>()
        .unwrap_or(strength)
        + 0.0
}

/// `work` on whatever is next here, `jobs` at a time, until one fails.
fn each(turns: &Turns, jobs: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let some = || -> Result<()> {
        while let Some(turn) = turns.next()? {
            work(turn).inspect_err(|_| turns.stop())?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = (0..jobs).map(|_| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            let started = thread.spawn_scoped(scope, some);
            started.map_err(|e| Error::invalid(format!("a thread cannot be started: {e}")))
        });
        let threads: Vec<_> = threads.collect::<Result<_>>()?;
        let results = threads.into_iter().map(|thread| thread.join());
        let results: Vec<_> = results
            .map(|r| r.unwrap_or_else(|p| resume_unwind(p)))
            .collect();
        results.into_iter().collect()
    })
}

/// No trainings that have diverged, or an error that names them.
fn none(mut diverged: Vec<(usize, String)>) -> Result<()> {
    // Several jobs finish in any order.
    diverged.sort();
    let problems: Vec<_> = diverged.into_iter().map(|(_, problem)| problem).collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::NotFinite(format!(
            "{}. The other points are written",
            problems.join("; ")
        ))),
    }
}

/// Which point failed.
fn at(point: &str, error: Error) -> Error {
    match error {
        Error::Invalid(message) => Error::Invalid(format!("{point}: {message}")),
        Error::NotFinite(message) => Error::NotFinite(format!("{point}: {message}")),
        Error::Panicked(message) => Error::Panicked(format!("{point}: {message}")),
        other => other,
    }
}
