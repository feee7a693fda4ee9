//! [`Connectivity`]: several paths between two models, compared.

use serde::{Deserialize, Serialize};

use super::path_profile::check_points;
use super::{Curve, PathProfile, PathShape, PathTrainer};
use crate::error::{Result, counted};
use crate::landscape::align::{hidden_units, match_activations, match_weights};
use crate::model::Model;
use crate::objective::Objective;

/// Loss profiles of several paths between two models.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model =
///     |seed| Mlp::new(&[2, 3, 1], Activation::Tanh, seed, &Device::Cpu)?.to_dtype(DType::F64);
/// let (a, b) = (model(0)?, model(1)?);
/// let objective = Objective::of(&a, &data, Loss::CrossEntropy)?;
/// let trainer = PathTrainer::default().with_epochs(2);
/// let connectivity = Connectivity::between(&objective, &a, &b, &[trainer], 5)?;
/// assert_eq!(connectivity.paths.len(), 4); // linear, matched in two ways, trained
/// for (_, profile) in &connectivity.paths {
///     assert_eq!(profile.losses[0], objective.loss()?);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Connectivity {
    /// Name and profile of each path.
    pub paths: Vec<(String, PathProfile)>,
}

impl Connectivity {
    /// Profiles the straight line from `a` to `b`, the lines to `b` with its hidden units matched by weights (seed 0) and by
    /// activations on the objective's data, and a path trained by each of `trainers`. Each profile has a grid of `points`.
    ///
    /// `a` and `b` need the architecture of the objective's model, and may be that model.
    ///
    /// # Errors
    /// As [`Curve::profile`], [`match_weights`], [`match_activations`] and [`PathTrainer::connect`].
    pub fn between<M: Model>(
        objective: &Objective,
        a: &M,
        b: &M,
        trainers: &[PathTrainer],
        points: usize,
    ) -> Result<Self> {
        check_points(points)?;
        trainers.iter().try_for_each(PathTrainer::check)?;
        objective.needs_all_samples("matching activations")?;
        let [start, end] = [a, b].map(|model| model.parameters().to_flat());
        let (start, end) = (start?, end?);
        let by_weights = match_weights(a.parameters(), &hidden_units(a)?, &start, &end, 0)?;
        let by_activations = match_activations(a, b, objective.data())?;
        let straight = [
            ("linear", end.clone()),
            ("linear after weight matching", by_weights.apply(&end)?),
            (
                "linear after activation matching",
                by_activations.apply(&end)?,
            ),
        ];
        let mut paths = Vec::with_capacity(straight.len() + trainers.len());
        for (name, end) in straight {
            let profile = Curve::linear(&start, &end)?.profile(objective, points)?;
            paths.push((name.to_owned(), profile));
        }
        for trainer in trainers {
            let name = match trainer.shape {
                PathShape::Bezier => "trained Bézier".to_owned(),
                PathShape::Chain(bends) => format!("trained chain, {}", counted(bends, "bend")),
            };
            let curve = trainer.connect(objective, &start, &end)?;
            paths.push((name, curve.profile(objective, points)?));
        }
        Ok(Self { paths })
    }
}
