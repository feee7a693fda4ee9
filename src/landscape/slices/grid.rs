//! [`Grid`]: where a plane is looked at.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::checkpoint::key;
use crate::error::{Error, Result};
use crate::files::with_ending;
use crate::objective::Objective;
use crate::parts::{Parts, files_of_parts};
use crate::ranks::Share;
use crate::vector::symmetric_grid;

/// The points α × β of a plane, the file in which unfinished work on them is kept, and who does what of it.
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
    /// `points` × `points` places with α and β from `-radius` to `radius`.
    ///
    /// # Errors
    /// A radius that is not positive and finite, fewer than 2 points, more than 10⁷ in all.
    pub fn square(radius: f64, points: usize) -> Result<Self> {
        check_size(points, points)?;
        let side = symmetric(radius, points)?;
        Self::new(side.clone(), side)
    }

    /// Any places along each of the two directions.
    ///
    /// # Errors
    /// Fewer than 2 places along a direction, more than 10⁷ in all, places that are not finite or not increasing.
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

    /// Keeps what has been found in the file at `path`, and starts from what it holds: the same
    /// call after a kill or an error goes on where the first one was. The file remains until it is
    /// removed, and is refused for any other work.
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
    /// assert_eq!(Plane::on_grid(&objective, &d1, &d2, &grid)?, first); // read, not computed
    /// assert!(Plane::on_grid(&objective, &d2, &d1, &grid).is_err()); // other work
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_checkpoint(mut self, path: impl AsRef<Path>) -> Self {
        self.checkpoint = Some(path.as_ref().to_path_buf());
        self
    }

    /// Does only a `share` of the work: what no other rank has taken, with the whole plane as the result on each of them; or a
    /// shard, with [`Error::Unfinished`] where the points of others are missing.
    ///
    /// Each share writes a file of its own beside that of [`with_checkpoint`](Self::with_checkpoint), without which a shard is of no use,
    /// and all are read. So a call without a share, after the shards', finds everything done.
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
    /// let plane = Plane::on_grid(&objective, &d1, &d2, &shard(2)?)?; // the last one finds the others'
    /// assert_eq!(plane, Plane::on_grid(&objective, &d1, &d2, &Grid::square(1.0, 5)?)?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A shard of a grid without a file.
    pub fn with_share(mut self, share: Share) -> Result<Self> {
        if self.checkpoint.is_none() && share.is_shard() {
            return Err(Error::invalid(
                "what a shard finds would be lost: give the grid a file with with_checkpoint first",
            ));
        }
        self.share = share;
        Ok(self)
    }

    /// Removes the files of [`with_checkpoint`](Self::with_checkpoint), this share's and others'.
    ///
    /// # Errors
    /// Files that cannot be removed.
    pub fn remove_checkpoint(&self) -> Result<()> {
        let Some(path) = &self.checkpoint else {
            return Ok(());
        };
        for ending in ["", EIGENVALUES] {
            for file in files_of_parts(&with_ending(path, ending))? {
                let removed = match std::fs::remove_file(&file) {
                    // Somebody else has.
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                    removed => removed,
                };
                removed.map_err(|e| {
                    Error::file(&file, format!("cannot be removed ({e})"), "Remove it")
                })?;
            }
        }
        Ok(())
    }

    /// The places along d₁.
    pub fn alphas(&self) -> &[f64] {
        &self.alphas
    }

    /// The places along d₂.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// Where work on these points, of the plane through `vectors` θ, d₁ and d₂, is kept, in files with `ending` at the end of
    /// their names.
    ///
    /// # Errors
    /// For work that is shared or resumed: an objective whose samples lie with several ranks, each of which may be at
    /// another point.
    pub(super) fn parts(
        &self,
        task: &str,
        ending: &str,
        objective: &Objective,
        [theta, d1, d2]: [&[f64]; 3],
    ) -> Result<Option<Parts>> {
        if self.checkpoint.is_some() || self.share.among().is_some() {
            objective.needs_all_samples("a grid that is shared or resumed")?;
        }
        let Some(path) = &self.checkpoint else {
            return Ok(None);
        };
        let (points, center) = (self.points(), objective.loss_at(theta)?);
        let size = [center, objective.samples() as f64];
        let task = format!("{task} in {}", objective.parameters().dtype().as_str());
        let key = key(&task, &[theta, d1, d2, points.as_flattened(), &size]);
        Ok(Some(Parts::new(&with_ending(path, ending), key)))
    }

    /// All places, β by β.
    pub(super) fn points(&self) -> Vec<[f64; 2]> {
        let rows = self.betas.iter();
        rows.flat_map(|beta| self.alphas.iter().map(|alpha| [*alpha, *beta]))
            .collect()
    }
}

/// At the end of the names of files for work on eigenvalues.
pub(super) const EIGENVALUES: &str = ".eigenvalues";

/// Evenly spaced numbers from `-radius` to `radius`.
pub(super) fn symmetric(radius: f64, points: usize) -> Result<Vec<f64>> {
    if !(radius > 0.0 && radius.is_finite()) {
        return Err(Error::invalid(format!(
            "a radius of {radius} spans nothing: give a finite number above 0"
        )));
    }
    check_count(points)?;
    Ok(symmetric_grid(radius, points))
}

pub(super) fn check_increasing(places: &[f64], name: &str) -> Result<()> {
    check_count(places.len())?;
    if let Some(bad) = places.iter().find(|p| !p.is_finite()) {
        return Err(Error::invalid(format!(
            "{name} = {bad} is nowhere: give finite numbers"
        )));
    }
    if let Some(pair) = places.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(Error::invalid(format!(
            "{name} goes from {} to {}: give increasing numbers",
            pair[0], pair[1]
        )));
    }
    Ok(())
}

/// Points of a line or a plane, at most.
const MOST: usize = 10_000_000;

fn check_size(alphas: usize, betas: usize) -> Result<()> {
    match alphas.checked_mul(betas) {
        Some(points) if points <= MOST => Ok(()),
        _ => Err(Error::invalid(format!(
            "{alphas} × {betas} points are too many: ask for at most {MOST}"
        ))),
    }
}

fn check_count(points: usize) -> Result<()> {
    if points > MOST {
        return Err(Error::invalid(format!(
            "{points} points are too many: ask for at most {MOST}"
        )));
    }
    if points < 2 {
        return Err(Error::invalid(format!(
            "{points} points make no line: ask for at least 2, an odd number to have the centre \
             among them"
        )));
    }
    Ok(())
}
