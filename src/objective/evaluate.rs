//! Evaluates an [`Objective`]: loss, accuracy, gradient and products with curvature matrices, at the model's current
//! point or at another θ.

use std::borrow::Cow;
use std::ops::Range;
use std::slice::from_mut;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::in_use::InUse;
use super::{Objective, autograd};
use crate::data::Targets;
use crate::engine::HandDerived;
use crate::error::{Error, Result, all_finite, check_finite};
use crate::losses::{Curvature, finite_loss};
use crate::parameters::Restore;
use crate::vector::{axpy, dot, embed, norm, restrict};

/// Loss and accuracy of a model on a dataset.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// // A classifier whose output is always 0.
/// let score = objective.score_at(&[0.0; 3])?;
/// assert!((score.loss - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(score.accuracy, Some(0.5));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// L(θ)
    pub loss: f64,
    /// Share of the samples whose largest output is at their label (for one output: whose sign is right); `None` for
    /// data without labels.
    pub accuracy: Option<f64>,
}

impl Objective {
    /// L(θ) at the model's current point.
    ///
    /// # Errors
    /// A loss that is not finite; errors of candle.
    pub fn loss(&self) -> Result<f64> {
        Ok(self.score()?.loss)
    }

    /// L at another θ. Afterwards, even after an error, the model's parameters have their previous bits.
    ///
    /// # Errors
    /// A θ of the wrong length or not finite; the errors of [`Objective::loss`].
    pub fn loss_at(&self, theta: &[f64]) -> Result<f64> {
        Ok(self.score_at(theta)?.loss)
    }

    /// Share of the samples whose largest output is at their label (for one output: whose sign
    /// is right).
    ///
    /// # Errors
    /// A dataset without labels; errors of candle.
    pub fn accuracy(&self) -> Result<f64> {
        self.score()?.accuracy.ok_or_else(|| {
            Error::invalid("accuracy needs labels, and this dataset has values to fit")
        })
    }

    /// Loss and accuracy at the model's current point.
    ///
    /// # Errors
    /// As [`Objective::loss`].
    pub fn score(&self) -> Result<Score> {
        self.score_of(None)
    }

    /// Loss and accuracy at another θ; the model is unchanged afterwards.
    ///
    /// # Errors
    /// As [`Objective::loss_at`].
    pub fn score_at(&self, theta: &[f64]) -> Result<Score> {
        self.score_of(Some(theta))
    }

    fn score_of(&self, theta: Option<&[f64]>) -> Result<Score> {
        let (mean, correct) = match self.in_batches(theta)? {
            Some((mean, correct, _)) => (mean, correct),
            None => self.over_parts(
                || (0.0, 0),
                |part| {
                    let by_hand =
                        |engine: &dyn HandDerived, point: &[f64]| engine.loss(point, &part.data);
                    part.by(theta, by_hand, Self::score_by_autograd)
                },
                add_score,
            )?,
        };
        let mut square = 0.0;
        if self.l2 > 0.0 {
            let theta = self.theta(theta)?;
            square = dot(&theta, &theta);
        }
        self.scored(mean, correct, square)
    }

    /// Loss and accuracy at another θ of a model whose forward pass depends on more than θ: `prepare` is called while
    /// the model is at θ, and its result is dropped after the evaluation.
    pub(crate) fn score_prepared<G>(
        &self,
        theta: &[f64],
        prepare: impl FnOnce() -> Result<G>,
    ) -> Result<Score> {
        if self.batch_statistics().is_some() {
            return Err(Error::invalid(
                "an objective with batch statistics uses no running statistics to estimate: omit them, or use the \
                 objective from before with_batch_statistics",
            ));
        }
        let (mean, correct) = self.moved(theta, |objective| {
            let _prepared = prepare()?;
            let statistics = objective.parameters.flat_statistics()?;
            let point = [theta, &statistics].concat();
            let score = |part: &Self| match &part.engine {
                Ok(engine) => engine.loss(&point, &part.data),
                Err(_) => part.score_by_autograd(),
            };
            objective.over_parts(|| (0.0, 0), score, add_score)
        })?;
        self.scored(mean, correct, dot(theta, theta))
    }

    /// Combines the mean loss, the number of correct predictions and ‖θ‖² of this rank's samples into a score.
    fn scored(&self, mean: f64, correct: usize, square: f64) -> Result<Score> {
        let score = self
            .all_scored(&[(mean, correct)], |_| square)?
            .swap_remove(0);
        finite_loss(score.loss)?;
        Ok(score)
    }

    /// The same for several points, with ‖θ‖² of each. Losses may be not finite.
    fn all_scored(
        &self,
        found: &[(f64, usize)],
        square: impl Fn(usize) -> f64,
    ) -> Result<Vec<Score>> {
        let labels = self.num_labels();
        let means = found
            .iter()
            .map(|(mean, correct)| [*mean, *correct as f64 / labels]);
        let mut means: Vec<[f64; 2]> = means.collect();
        self.over_ranks(means.as_flattened_mut())?;
        let score = |(i, [mean, correct]): (usize, [f64; 2])| {
            let accuracy = match self.data.targets() {
                Targets::Labels(_) => Some(correct),
                Targets::Values(_) => None,
            };
            Score {
                loss: mean + self.l2 * square(i),
                accuracy,
            }
        };
        Ok(means.into_iter().enumerate().map(score).collect())
    }

    /// Loss and accuracy at θ + αd₁ + βd₂ for each point (α, β), where `vectors` is θ, d₁ and d₂, which is empty for points on
    /// a line. With hand-derived rules the model does not move; otherwise it is restored afterwards.
    ///
    /// # Errors
    /// A loss that is not finite.
    pub(crate) fn scores_on_plane(
        &self,
        vectors: [&[f64]; 3],
        points: &[[f64; 2]],
    ) -> Result<Vec<Score>> {
        let scores = self.measure_on_plane(vectors, points)?;
        scores
            .iter()
            .try_for_each(|score| finite_loss(score.loss).map(drop))?;
        Ok(scores)
    }

    /// The same, but loss and accuracy are NaN where the loss is not finite.
    pub(crate) fn scores_or_nan(
        &self,
        vectors: [&[f64]; 3],
        points: &[[f64; 2]],
    ) -> Result<Vec<Score>> {
        let mut scores = self.measure_on_plane(vectors, points)?;
        for score in scores.iter_mut().filter(|score| !score.loss.is_finite()) {
            score.loss = f64::NAN;
            score.accuracy = score.accuracy.map(|_| f64::NAN);
        }
        Ok(scores)
    }

    fn measure_on_plane(&self, vectors: [&[f64]; 3], points: &[[f64; 2]]) -> Result<Vec<Score>> {
        let [theta, d1, d2] = vectors;
        let by_hand = match &self.engine {
            Ok(engine) if self.is_hand_derived() => {
                let point = self.point(Some(theta))?;
                self.over_parts(
                    || Some(vec![(0.0, 0); points.len()]),
                    |part| engine.on_plane(&point, [d1, d2], &part.data, points, part.memory),
                    |total, share, found| {
                        let Some(found) = found else {
                            *total = None;
                            return;
                        };
                        for (total, score) in total.iter_mut().flatten().zip(found) {
                            add_score(total, share, score);
                        }
                    },
                )?
            }
            _ => None,
        };
        let Some(found) = by_hand else {
            let scores = points.iter().map(|[alpha, beta]| {
                let mut moved = theta.to_vec();
                axpy(*alpha, d1, &mut moved);
                axpy(*beta, d2, &mut moved);
                match self.score_at(&moved) {
                    Err(Error::NotFinite(_)) => Ok(Score {
                        loss: f64::NAN,
                        accuracy: None,
                    }),
                    score => score,
                }
            });
            return scores.collect();
        };
        if self.l2 == 0.0 {
            return self.all_scored(&found, |_| 0.0);
        }
        let d2 = match d2 {
            [] => Cow::Owned(vec![0.0; d1.len()]),
            d2 => Cow::Borrowed(d2),
        };
        let [tt, t1, t2] = [theta, d1, &d2].map(|v| dot(theta, v));
        let [d11, d12, d22] = [dot(d1, d1), dot(d1, &d2), dot(&d2, &d2)];
        let square = |[a, b]: [f64; 2]| {
            tt + 2.0 * (a * t1 + b * t2 + a * b * d12) + a * a * d11 + b * b * d22
        };
        self.all_scored(&found, |i| square(points[i]))
    }

    /// ∇L(θ) at the model's current point.
    ///
    /// # Errors
    /// A gradient that is not finite; a parameter without a gradient; errors of candle.
    pub fn gradient(&self) -> Result<Vec<f64>> {
        Ok(self.gradient_of(None)?.1)
    }

    /// L and ∇L at another θ; the model is unchanged afterwards.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let set = teacher_student(20, &[2, 3, 1], 0.0, 0, &Device::Cpu)?;
    /// let student =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&student, &set.data, Loss::Mse)?;
    /// let (loss, gradient) = objective.gradient_at(&set.teacher)?; // a global minimum
    /// assert!(loss < 1e-20 && gradient.iter().all(|g| g.abs() < 1e-12));
    /// assert!(objective.gradient_norm()? > 1e-3); // the student is elsewhere
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Objective::loss_at`] and [`Objective::gradient`].
    pub fn gradient_at(&self, theta: &[f64]) -> Result<(f64, Vec<f64>)> {
        let (loss, gradient) = self.gradient_of(Some(theta))?;
        Ok((finite_loss(loss)?, gradient))
    }

    /// ‖∇L(θ)‖, the slope in the steepest direction.
    ///
    /// # Errors
    /// As [`Objective::gradient`].
    pub fn gradient_norm(&self) -> Result<f64> {
        Ok(norm(&self.gradient()?))
    }

    fn gradient_of(&self, theta: Option<&[f64]>) -> Result<(f64, Vec<f64>)> {
        let (mut loss, mut gradient) = match self.in_batches(theta)? {
            Some((loss, _, gradient)) => (loss, gradient),
            None => self.over_parts(
                || (0.0, vec![0.0; self.dim()]),
                |part| {
                    let by_hand = |engine: &dyn HandDerived, point: &[f64]| {
                        engine.gradient(point, &part.data)
                    };
                    part.by(theta, by_hand, Self::gradient_by_autograd)
                },
                |total, share, (mean, gradient)| {
                    total.0 += share * mean;
                    axpy(share, &gradient, &mut total.1);
                },
            )?,
        };
        self.over_ranks(from_mut(&mut loss))?;
        self.over_ranks(&mut gradient)?;
        if self.l2 > 0.0 {
            let theta = self.theta(theta)?;
            loss += self.l2 * dot(&theta, &theta);
            axpy(2.0 * self.l2, &theta, &mut gradient);
        }
        self.check_finite(&gradient, "gradient")?;
        Ok((loss, gradient))
    }

    /// The exact Hessian-vector product Hv, H = ∇²L(θ), at the model's current point: the gradient of ⟨∇L, v⟩ by a
    /// second backward pass (Pearlmutter, 1994).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let [u, v] = [1, 2].map(|seed| direction::gaussian(model.parameters(), seed));
    /// let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    /// let difference = dot(&u, &objective.hvp(&v)?) - dot(&v, &objective.hvp(&u)?);
    /// assert!(difference.abs() < 1e-12); // H is symmetric
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A `v` of the wrong length or not finite; a product that is not finite; errors of candle.
    pub fn hvp(&self, v: &[f64]) -> Result<Vec<f64>> {
        let mut products = self.products(None, &[v], Curvature::Hessian)?;
        Ok(products.swap_remove(0))
    }

    /// Products of several vectors with a curvature matrix of the mean loss, at θ or at the model's current point.
    /// λ‖θ‖² adds 2λ to the Hessian and the Gauss-Newton matrix, but not to the Fisher matrix or the samples'
    /// gradients.
    pub(crate) fn products(
        &self,
        theta: Option<&[f64]>,
        vectors: &[impl AsRef<[f64]>],
        curvature: Curvature,
    ) -> Result<Vec<Vec<f64>>> {
        self.block_products(theta, vectors, curvature, None)
    }

    /// The same products, or with `block` those of the diagonal block of these ranges of θ, with vectors of its size. With
    /// hand-derived rules they cost only as much as the block.
    pub(crate) fn block_products(
        &self,
        theta: Option<&[f64]>,
        vectors: &[impl AsRef<[f64]>],
        curvature: Curvature,
        block: Option<&[Range<usize>]>,
    ) -> Result<Vec<Vec<f64>>> {
        let vectors: Vec<&[f64]> = vectors.iter().map(AsRef::as_ref).collect();
        let vectors = &vectors[..];
        for v in vectors {
            match block {
                None => self.parameters.check_vector(v, "vector")?,
                Some(_) => check_finite(v, "vector")?,
            }
        }
        if vectors.is_empty() {
            return Ok(Vec::new());
        }
        if curvature == Curvature::Gradients {
            self.needs_independent_samples("the matrix of the samples' gradients")?;
        }
        let mut products = self.over_parts(
            || vectors.iter().map(|v| vec![0.0; v.len()]).collect(),
            |part| {
                let by_hand = |engine: &dyn HandDerived, point: &[f64]| {
                    engine.products(point, &part.data, vectors, curvature, block, part.memory)
                };
                let by_autograd = |part: &Self| match block {
                    None => part.products_by_autograd(vectors, curvature),
                    Some(ranges) => {
                        let n = part.dim();
                        let embedded = vectors.iter().map(|v| embed(v, ranges, n, |x| x));
                        let embedded: Vec<_> = embedded.collect();
                        let embedded: Vec<&[f64]> = embedded.iter().map(Vec::as_slice).collect();
                        let products = part.products_by_autograd(&embedded, curvature)?;
                        Ok(products.iter().map(|p| restrict(p, ranges)).collect())
                    }
                };
                part.by(theta, by_hand, by_autograd)
            },
            |total: &mut Vec<Vec<f64>>, share, products| {
                for (total, product) in total.iter_mut().zip(&products) {
                    axpy(share, product, total);
                }
            },
        )?;
        for (product, v) in products.iter_mut().zip(vectors) {
            self.over_ranks(product)?;
            let adds_l2 = matches!(curvature, Curvature::Hessian | Curvature::GaussNewton);
            if adds_l2 && self.l2 > 0.0 {
                axpy(2.0 * self.l2, v, product);
            }
            if !all_finite(product) {
                let whole = match block {
                    None => product.clone(),
                    Some(ranges) => embed(product, ranges, self.dim(), |x| x),
                };
                self.check_finite(&whole, curvature.name())?;
            }
        }
        Ok(products)
    }

    /// Evaluates `by_hand` if there are hand-derived rules and `by_autograd` otherwise, at θ or at the current point.
    pub(super) fn by<T>(
        &self,
        theta: Option<&[f64]>,
        by_hand: impl FnOnce(&dyn HandDerived, &[f64]) -> Result<T>,
        by_autograd: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        match (&self.engine, theta) {
            (Ok(engine), _) if self.is_hand_derived() => {
                let mut point = self.points.lend();
                self.read_point(theta, &mut point)?;
                by_hand(engine.as_ref(), &point)
            }
            (_, None) => self.in_place(by_autograd),
            (_, Some(theta)) => self.moved(theta, by_autograd),
        }
    }

    /// Calls `f` with the model at its current point. Its running statistics are unchanged afterwards.
    pub(super) fn in_place<T>(&self, f: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        if self.batch_statistics().is_none() {
            let _in_use = InUse::read(&self.parameters)?;
            return f(self);
        }
        // A pass in training mode changes the running statistics.
        self.exclusively(|objective| {
            let statistics = objective.parameters.statistics();
            let _restore = Restore::new(statistics.map(|(_, var)| var))?;
            f(objective)
        })
    }

    /// Calls `f` with the model at θ. `f` must not move it.
    fn moved<T>(&self, theta: &[f64], f: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let moved = self.parameters.unflatten(theta)?;
        self.exclusively(|objective| {
            let parameters = &objective.parameters;
            let all = parameters.iter().chain(parameters.statistics());
            let _restore = Restore::new(all.map(|(_, var)| var))?;
            parameters.set_tensors(&moved)?;
            f(objective)
        })
    }

    /// Calls `f` while nothing else uses the model.
    pub(super) fn exclusively<T>(&self, f: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let _moved = InUse::moved(&self.parameters)?;
        f(self)
    }

    /// The given θ, checked, or the model's.
    fn theta<'a>(&self, given: Option<&'a [f64]>) -> Result<Cow<'a, [f64]>> {
        match given {
            Some(theta) => {
                self.parameters.check_vector(theta, "point")?;
                Ok(Cow::Borrowed(theta))
            }
            None => {
                let _in_use = InUse::read(&self.parameters)?;
                Ok(Cow::Owned(self.parameters.to_flat()?))
            }
        }
    }

    /// θ as above, followed by the current running statistics.
    pub(crate) fn point(&self, theta: Option<&[f64]>) -> Result<Vec<f64>> {
        let mut point = Vec::new();
        self.read_point(theta, &mut point)?;
        Ok(point)
    }

    fn read_point(&self, theta: Option<&[f64]>, point: &mut Vec<f64>) -> Result<()> {
        point.clear();
        let _in_use = InUse::read(&self.parameters)?;
        match theta {
            Some(theta) => {
                self.parameters.check_vector(theta, "point")?;
                point.extend_from_slice(theta);
            }
            None => self.parameters.append_theta(point)?,
        }
        self.parameters.append_statistics(point)
    }

    fn score_by_autograd(&self) -> Result<(f64, usize)> {
        let mut total = (0.0, 0);
        self.over_batches(
            |batch| {
                let outputs = self.outputs(batch)?;
                let losses = self.loss.per_sample(&outputs, batch.targets())?;
                Ok((sum(&losses)?, self.loss.count_correct(&outputs, batch)?))
            },
            |(sum, correct)| total = (total.0 + sum, total.1 + correct),
        )?;
        Ok((total.0 / self.data.len() as f64, total.1))
    }

    fn gradient_by_autograd(&self) -> Result<(f64, Vec<f64>)> {
        let mut total = (0.0, vec![0.0; self.dim()]);
        self.over_batches(
            |batch| {
                let losses = self
                    .loss
                    .per_sample(&self.outputs(batch)?, batch.targets())?;
                let share = (losses.sum_all()? / self.data.len() as f64)?;
                Ok((sum(&losses)?, autograd::gradient(&self.parameters, &share)?))
            },
            |(value, part)| {
                total.0 += value;
                axpy(1.0, &part, &mut total.1);
            },
        )?;
        total.0 /= self.data.len() as f64;
        Ok(total)
    }

    fn products_by_autograd(
        &self,
        vectors: &[&[f64]],
        curvature: Curvature,
    ) -> Result<Vec<Vec<f64>>> {
        if curvature == Curvature::Fisher && self.loss.known().is_none() {
            return Err(Error::invalid(
                "the Fisher matrix needs the loss's distribution, which is unknown for a custom loss: use \
                 GaussNewton, GradientCovariance, or a built-in Loss",
            ));
        }
        let directions = vectors.iter().map(|v| self.parameters.unflatten(v));
        let directions = directions.collect::<Result<Vec<_>>>()?;
        let mut products = vec![vec![0.0; self.dim()]; vectors.len()];
        let share = 1.0 / self.data.len() as f64;
        self.over_batches(
            |batch| {
                let outputs = self.outputs(batch)?;
                let loss = |z: &Tensor| self.partial_loss(z, batch);
                let parameters = &self.parameters;
                match curvature {
                    Curvature::Hessian => autograd::hvps(parameters, &loss(&outputs)?, &directions),
                    Curvature::GaussNewton | Curvature::Fisher => {
                        let bend = |z: &Tensor, rz: &Tensor| autograd::output_hvp(loss, z, rz);
                        autograd::jacobian_sandwiches(parameters, &outputs, &directions, bend)
                    }
                    Curvature::OwnClass | Curvature::OtherClasses => {
                        let bend =
                            |z: &Tensor, rz: &Tensor| self.class_product(curvature, [z, rz], batch);
                        autograd::jacobian_sandwiches(parameters, &outputs, &directions, bend)
                    }
                    Curvature::Gradients => {
                        let bend = |z: &Tensor, rz: &Tensor| {
                            let dz = autograd::output_gradient(loss, z)?;
                            let along = (&dz * rz)?.flatten_from(1)?.sum_keepdim(1)?;
                            let along = (along / share)?;
                            let mut shape = vec![1; dz.rank()];
                            shape[0] = dz.dim(0)?;
                            let along = along.reshape(shape)?;
                            Ok(dz.broadcast_mul(&along)?)
                        };
                        autograd::jacobian_sandwiches(parameters, &outputs, &directions, bend)
                    }
                }
            },
            |parts| {
                for (product, part) in products.iter_mut().zip(&parts) {
                    axpy(1.0, part, product);
                }
            },
        )?;
        Ok(products)
    }
}

/// Adds the mean loss of a share of the samples and their number of correct predictions.
fn add_score(total: &mut (f64, usize), share: f64, (mean, correct): (f64, usize)) {
    total.0 += share * mean;
    total.1 += correct;
}

/// The sum in `f64`, whatever the tensor's dtype.
pub(super) fn sum(losses: &Tensor) -> Result<f64> {
    let losses = losses.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    Ok(losses.iter().sum())
}
