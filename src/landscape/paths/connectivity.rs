//! [`Connectivity`]: several paths between two models, compared.

use serde::{Deserialize, Serialize};

use super::path_profile::check_points;
use super::{Curve, PathProfile, PathShape, PathTrainer};
use crate::error::{Result, counted};
use crate::landscape::align::{find_units, match_activations, match_weights};
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
    /// Reasons why hidden units are not matched. If there are no paths after matching, no units are.
    #[serde(default)]
    pub unmatched: Vec<String>,
}

impl Connectivity {
    /// The reasons why hidden units are not matched, a line each.
    pub fn notes(&self) -> Vec<String> {
        let is_matched = |(name, _): &(String, PathProfile)| name.contains("matching");
        let what = match self.paths.iter().any(is_matched) {
            true => "some hidden units are not matched",
            false => "hidden units are not matched",
        };
        let reasons = self.unmatched.iter();
        reasons.map(|reason| format!("{what}: {reason}")).collect()
    }

    /// Profiles the straight line from `a` to `b`, the lines to `b` with its [hidden units](crate::landscape::align::hidden_units)
    /// matched by weights (seed 0) and by activations on the objective's data, and a path trained by each of `trainers`. Each
    /// profile has a grid of `points`. Running statistics of batch normalisation are estimated at each point of a path.
    ///
    /// For a model that does not list its layers, or whose layers have no units that can be permuted, there is the straight line
    /// without matching, and the reason in `unmatched`.
    ///
    /// `a` and `b` need the architecture of the objective's model, and may be that model.
    ///
    /// # Errors
    /// Models of different architectures; as [`Curve::profile`], [`match_weights`], [`match_activations`] and
    /// [`PathTrainer::connect`].
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
        let mut straight = vec![("linear", end.clone())];
        let unmatched = match find_units(a, objective.data()) {
            Ok(found) => {
                if !found.groups.is_empty() || found.reasons.is_empty() {
                    let by_weights = match_weights(a.parameters(), &found.groups, &start, &end, 0)?;
                    let by_activations = match_activations(a, b, objective.data())?;
                    straight.extend([
                        ("linear after weight matching", by_weights.apply(&end)?),
                        (
                            "linear after activation matching",
                            by_activations.apply(&end)?,
                        ),
                    ]);
                }
                found.reasons
            }
            Err(reason) => vec![reason],
        };
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
        Ok(Self { paths, unmatched })
    }
}
