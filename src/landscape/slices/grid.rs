//! [`Grid`]: the points at which a plane is evaluated.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ndarray::Array2;

use crate::checkpoint::key;
use crate::error::{Error, Result, check_positive};
use crate::files::with_ending;
use crate::objective::Objective;
use crate::partial_results::{PartialResults, partial_files};
use crate::ranks::Share;
use crate::vector::symmetric_grid;

/// The points α × β of a plane, the checkpoint file for unfinished work, and how the work is split.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let grid = Grid::square(0.5, 3)?;
/// assert_eq!(grid.alphas(), [-0.5, 0.0, 0.5]);
/// let uneven = Grid::new(vec![0.0, 1.0, 10.0], vec![0.0, 1.0])?;
/// assert_eq!(uneven.betas(), [0.0, 1.0]);
/// assert!(Grid::new(vec![1.0, 0.0], vec![0.0, 1.0]).is_err()); // not increasing
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Grid {
    pub(super) alphas: Vec<f64>,
    pub(super) betas: Vec<f64>,
    #[serde(alias = "resume")]
    pub(super) checkpoint: Option<PathBuf>,
    #[serde(skip)]
    pub(super) share: Share,
}

impl Grid {
    /// Creates a grid of `points` × `points` values of α and β, evenly spaced from `-radius` to `radius`.
    ///
    /// # Errors
    /// `radius` is not positive and finite; `points` is below 2, or there are more than 10⁷ points in total.
    pub fn square(radius: f64, points: usize) -> Result<Self> {
        check_size(points, points)?;
        let side = symmetric(radius, points)?;
        Self::new(side.clone(), side)
    }

    /// Creates a grid from increasing values along each of the two directions.
    ///
    /// # Errors
    /// Fewer than 2 values along a direction; more than 10⁷ points in total; values that are not finite or not increasing.
    pub fn new(alphas: Vec<f64>, betas: Vec<f64>) -> Result<Self> {
        check_size(alphas.len(), betas.len())?;
        check_increasing(&alphas, "α")?;
        check_increasing(&betas, "β")?;
        Ok(Self {
            alphas,
            betas,
            checkpoint: None,
            share: Share::default(),
        })
    }

    /// Sets a checkpoint file for finished points. If the file exists, the computation resumes from it. The file remains until
    /// [`remove_checkpoint`](Self::remove_checkpoint); using it for other work is an error.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 0)?;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("plane");
    /// let grid = Grid::square(1.0, 3)?.with_checkpoint(&path);
    /// let first = Plane::on_grid(&objective, &d1, &d2, &grid)?;
    /// assert_eq!(Plane::on_grid(&objective, &d1, &d2, &grid)?, first); // read from the file
    /// assert!(Plane::on_grid(&objective, &d2, &d1, &grid).is_err()); // other work
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_checkpoint(mut self, path: impl AsRef<Path>) -> Self {
        self.checkpoint = Some(path.as_ref().to_path_buf());
        self
    }

    /// Sets which part of the work this process does. With ranks, each rank takes the next free points and all get the whole
    /// plane. A shard computes its points only and returns [`Error::Unfinished`] while points of other shards are missing.
    ///
    /// Each process writes its own file next to the [checkpoint](Self::with_checkpoint), which shards require, and reads the
    /// others'. A call without a share after all shards have finished reads everything from these files.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// use loss_landscape::ranks::Share;
    ///
    /// # let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// # let model =
    /// #     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// # let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// # let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 0)?;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("plane");
    /// let grid = Grid::square(1.0, 5)?.with_checkpoint(&path);
    /// let shard = |i| grid.clone().with_share(Share::shard(i, 2)?);
    /// let first = Plane::on_grid(&objective, &d1, &d2, &shard(1)?);
    /// assert!(matches!(first, Err(Error::Unfinished { done: 12, count: 25, .. })));
    /// let plane = Plane::on_grid(&objective, &d1, &d2, &shard(2)?)?; // the last shard completes the plane
    /// assert_eq!(plane, Plane::on_grid(&objective, &d1, &d2, &Grid::square(1.0, 5)?)?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A shard without a checkpoint file.
    pub fn with_share(mut self, share: Share) -> Result<Self> {
        if self.checkpoint.is_none() && share.is_shard() {
            return Err(Error::invalid(
                "the results of a shard would be lost: set a file with Grid::with_checkpoint first",
            ));
        }
        self.share = share;
        Ok(self)
    }

    /// Removes the files of [`with_checkpoint`](Self::with_checkpoint), including those of other processes.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove_checkpoint(&self) -> Result<()> {
        let Some(path) = &self.checkpoint else {
            return Ok(());
        };
        for ending in ["", EIGENVALUES] {
            for file in partial_files(&with_ending(path, ending))? {
                let removed = match std::fs::remove_file(&file) {
                    // Another process has removed it.
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                    removed => removed,
                };
                removed.map_err(|e| {
                    Error::file(&file, format!("cannot be removed ({e})"), "Remove it").caused_by(e)
                })?;
            }
        }
        Ok(())
    }

    /// Values of α, along d₁.
    pub fn alphas(&self) -> &[f64] {
        &self.alphas
    }

    /// Values of β, along d₂.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// Returns the checkpoint for work on these points of the plane through `vectors` θ, d₁ and d₂, in files whose names end in
    /// `ending`.
    ///
    /// # Errors
    /// The work is shared or resumed, and the objective's samples are split across ranks, each of which may be at another point.
    pub(super) fn parts(
        &self,
        task: &str,
        ending: &str,
        objective: &Objective,
        [theta, d1, d2]: [&[f64]; 3],
    ) -> Result<Option<PartialResults>> {
        if self.checkpoint.is_some() || self.share.as_ranks().is_some() {
            objective.needs_one_rank("a grid that is shared or resumed")?;
        }
        let Some(path) = &self.checkpoint else {
            return Ok(None);
        };
        let (points, center) = (self.points(), objective.loss_at(theta)?);
        let size = [center, objective.samples() as f64];
        let task = format!("{task} in {}", objective.parameters().dtype().as_str());
        let key = key(&task, &[theta, d1, d2, points.as_flattened(), &size]);
        Ok(Some(PartialResults::new(&with_ending(path, ending), key)))
    }

    /// Returns the values of the points, in the order of [`points`](Self::points), with one row per β and one column per α.
    pub(super) fn to_array(&self, value: impl Fn(usize) -> f64) -> Array2<f64> {
        let columns = self.alphas.len();
        Array2::from_shape_fn((self.betas.len(), columns), |(i, j)| value(i * columns + j))
    }

    /// Returns all points (α, β), row by row in β.
    pub(super) fn points(&self) -> Vec<[f64; 2]> {
        let rows = self.betas.iter();
        rows.flat_map(|beta| self.alphas.iter().map(|alpha| [*alpha, *beta]))
            .collect()
    }
}

/// Ending of the names of checkpoint files for eigenvalues.
pub(super) const EIGENVALUES: &str = ".eigenvalues";

/// Returns evenly spaced numbers from `-radius` to `radius`.
pub(super) fn symmetric(radius: f64, points: usize) -> Result<Vec<f64>> {
    check_positive(radius, "the radius")?;
    check_count(points)?;
    Ok(symmetric_grid(radius, points))
}

pub(super) fn check_increasing(values: &[f64], name: &str) -> Result<()> {
    check_count(values.len())?;
    if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
        return Err(Error::invalid(format!("{name} = {bad} is not finite")));
    }
    if let Some(pair) = values.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(Error::invalid(format!(
            "values of {name} must increase, found {} before {}",
            pair[0], pair[1]
        )));
    }
    Ok(())
}

/// Maximum number of points of a line or plane.
const MAX_POINTS: usize = 10_000_000;

fn check_size(alphas: usize, betas: usize) -> Result<()> {
    match alphas.checked_mul(betas) {
        Some(points) if points <= MAX_POINTS => Ok(()),
        _ => Err(Error::invalid(format!(
            "{alphas} × {betas} points are too many: use at most {MAX_POINTS}"
        ))),
    }
}

fn check_count(points: usize) -> Result<()> {
    if points > MAX_POINTS {
        return Err(Error::invalid(format!(
            "{points} points are too many: use at most {MAX_POINTS}"
        )));
    }
    if points < 2 {
        return Err(Error::invalid(format!(
            "at least 2 points are needed, found {points}; with an odd number the centre is \
             one of them"
        )));
    }
    Ok(())
}
