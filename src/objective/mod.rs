//! [`Objective`]: a loss as a function of θ, with its gradient and Hessian-vector products at the
//! point where the model stands.
//!
//! Two ways lead to a derivative, and agree. Any candle model goes through [`autograd`](self): double
//! backward over the dataset in batches. Models that are layers in a row, on the CPU, go through
//! hand-derived rules (`feedforward`), several times faster. Which way it is, the objective chooses.

mod autograd;
mod check;
mod feedforward;
mod loss;

pub use check::DerivativeCheck;
pub(crate) use feedforward::Curvature;
pub use loss::Loss;

use self::feedforward::Engine;
use std::sync::Arc;
use std::sync::{PoisonError, RwLock};

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};

use crate::data::{Dataset, Targets};
use crate::error::{Error, Result, check_finite};
use crate::model::{LayerKind, Model, Parameters};
use crate::vector::{axpy, dot, norm};

type Forward = dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync;

/// Samples that go through the model together, unless [`Objective::with_batch_size`] says
/// otherwise.
const BATCH_SIZE: usize = 512;

/// Held for writing while a model's parameters are moved away and back, for reading while they
/// are used.
static PARAMETERS_IN_PLACE: RwLock<()> = RwLock::new(());

/// The loss L(θ) of a model on a dataset, a mean over its samples plus, if asked for,
/// λ‖θ‖²:
///
/// L(θ) = (1/n) Σᵢ ℓ(f(xᵢ; θ), yᵢ) + λ‖θ‖²
///
/// It is evaluated where the model stands: after more training, the same objective speaks of the
/// new θ. All vectors are `f64`, on the host, in the order of [`Parameters`].
///
/// Sums over batches are made in a fixed order, so the same point gives the same bits on a CPU.
#[derive(Clone)]
pub struct Objective {
    forward: Arc<Forward>,
    parameters: Parameters,
    data: Dataset,
    loss: Loss,
    l2: f64,
    batch_size: usize,
    check: DerivativeCheck,
    engine: Option<Arc<dyn Engine>>,
}

impl Objective {
    /// The loss of `model` on `data`.
    ///
    /// # Errors
    /// As [`Objective::from_fn`].
    pub fn of<M>(model: &M, data: &Dataset, loss: Loss) -> Result<Self>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        let model = model.clone();
        let (parameters, layers) = (model.parameters().clone(), model.layers());
        let forward = move |x: &Tensor| model.forward(x);
        Self::new(parameters, data, loss, Arc::new(forward), layers.as_deref())
    }

    /// The loss of your own candle model: `forward` maps inputs of shape `(n, …)` to outputs of
    /// shape `(n, outputs)` with the variables of `parameters`, a `&VarMap` or [`Parameters`].
    ///
    /// The derivatives are checked on a few samples before any is handed out; see
    /// [`Objective::derivative_check`].
    ///
    /// # Errors
    /// Outputs that do not fit the loss or the targets; a loss that is not finite, or that differs
    /// between two calls; a parameter that gets no gradient or no second derivative; an operation
    /// that candle cannot differentiate twice; a gradient that central differences contradict.
    pub fn from_fn<P, F>(parameters: P, data: &Dataset, loss: Loss, forward: F) -> Result<Self>
    where
        P: TryInto<Parameters>,
        Error: From<P::Error>,
        F: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
    {
        Self::new(parameters.try_into()?, data, loss, Arc::new(forward), None)
    }

    fn new(
        parameters: Parameters,
        data: &Dataset,
        loss: Loss,
        forward: Arc<Forward>,
        layers: Option<&[LayerKind]>,
    ) -> Result<Self> {
        let mut objective = Self {
            forward,
            parameters,
            data: data.clone(),
            loss,
            l2: 0.0,
            batch_size: BATCH_SIZE,
            check: DerivativeCheck::default(),
            engine: None,
        };
        objective.check_data()?;
        objective.engine = layers
            .and_then(|layers| feedforward::engine(layers, &objective.parameters, data, loss));
        objective.check = check::check(&objective, layers)?;
        Ok(objective)
    }

    /// The same objective by automatic differentiation alone, to compare the two ways.
    pub fn by_autograd(mut self) -> Self {
        self.engine = None;
        self
    }

    /// Whether derivatives come by hand-derived rules rather than by automatic differentiation.
    pub fn is_hand_derived(&self) -> bool {
        self.engine.is_some()
    }

    /// Adds λ‖θ‖² to the loss, 2λθ to the gradient and 2λ to the Hessian's diagonal.
    ///
    /// # Errors
    /// A strength that is negative or not finite.
    pub fn with_l2(mut self, strength: f64) -> Result<Self> {
        if !(strength >= 0.0 && strength.is_finite()) {
            return Err(Error::invalid(format!(
                "an L2 strength of {strength} makes no sense: give a finite number ≥ 0"
            )));
        }
        self.l2 = strength;
        Ok(self)
    }

    /// Sends `size` samples through the model together: more is faster, less takes less memory.
    /// The result is the same but for rounding.
    ///
    /// # Errors
    /// `size` is 0.
    pub fn with_batch_size(mut self, size: usize) -> Result<Self> {
        if size == 0 {
            return Err(Error::invalid("a batch needs at least one sample"));
        }
        self.batch_size = size;
        Ok(self)
    }

    /// Number of parameters, the length of θ.
    pub fn dim(&self) -> usize {
        self.parameters.len()
    }

    /// The model's parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The data.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// How well gradient and Hessian-vector product agreed with central differences when this
    /// objective was made.
    pub fn derivative_check(&self) -> &DerivativeCheck {
        &self.check
    }

    /// L(θ) where the model stands.
    ///
    /// # Errors
    /// A loss that is not finite; candle's.
    pub fn loss(&self) -> Result<f64> {
        let _in_place = PARAMETERS_IN_PLACE
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        self.loss_in_place()
    }

    /// L at another θ. The model is there only during the call: afterwards, error or not, its
    /// parameters have the bits they had before.
    ///
    /// # Errors
    /// A θ of the wrong length or not finite; as [`Objective::loss`].
    pub fn loss_at(&self, theta: &[f64]) -> Result<f64> {
        self.at(theta, Self::loss_in_place)
    }

    /// L(θ + αd₁ + βd₂) for each of some points α, β, with `vectors` θ, d₁ and d₂ in θ-space. The model does not move
    /// where hand-derived rules give the losses, and is back afterwards where not.
    pub(crate) fn losses_on_plane(
        &self,
        vectors: [&[f64]; 3],
        points: &[[f64; 2]],
    ) -> Result<Vec<f64>> {
        let [theta, d1, d2] = vectors;
        let by_hand = match &self.engine {
            Some(engine) => engine.on_plane(vectors, &self.data, points)?,
            None => None,
        };
        let Some(losses) = by_hand else {
            let losses = points.iter().map(|[alpha, beta]| {
                let mut moved = theta.to_vec();
                axpy(*alpha, d1, &mut moved);
                axpy(*beta, d2, &mut moved);
                self.loss_at(&moved)
            });
            return losses.collect();
        };
        let [tt, t1, t2] = [theta, d1, d2].map(|v| dot(theta, v));
        let [d11, d12, d22] = [dot(d1, d1), dot(d1, d2), dot(d2, d2)];
        let square = |[a, b]: [f64; 2]| {
            tt + 2.0 * (a * t1 + b * t2 + a * b * d12) + a * a * d11 + b * b * d22
        };
        let losses = losses.iter().zip(points);
        losses
            .map(|(loss, point)| check_loss(loss + self.l2 * square(*point)))
            .collect()
    }

    /// Share of the samples whose largest output is at their label (for one output: whose sign
    /// is right).
    ///
    /// # Errors
    /// A dataset without labels; candle's.
    pub fn accuracy(&self) -> Result<f64> {
        let Targets::Labels(_) = self.data.targets() else {
            return Err(Error::invalid(
                "accuracy needs labels, and this dataset has values to fit",
            ));
        };
        let _in_place = PARAMETERS_IN_PLACE
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &self.engine {
            let (_, right) = engine.loss(&self.parameters, &self.data)?;
            return Ok(right as f64 / self.data.len() as f64);
        }
        let mut right = 0;
        self.over_batches(
            |batch| {
                let predicted = loss::predict(&self.outputs(batch)?)?.to_vec1::<u32>()?;
                let labels = batch.labels()?;
                Ok(predicted
                    .iter()
                    .zip(&labels)
                    .filter(|(p, l)| p == l)
                    .count())
            },
            |count| right += count,
        )?;
        Ok(right as f64 / self.data.len() as f64)
    }

    /// ∇L(θ) where the model stands.
    ///
    /// # Errors
    /// A gradient that is not finite; a parameter without one; candle's.
    pub fn gradient(&self) -> Result<Vec<f64>> {
        let _in_place = PARAMETERS_IN_PLACE
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        self.gradient_in_place()
    }

    /// The mean loss on some of the samples and its gradient, both without the L2 term, for a step of
    /// training.
    pub(crate) fn on_batch(&self, batch: &Dataset) -> Result<(f64, GradStore)> {
        let _in_place = PARAMETERS_IN_PLACE
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(engine) = &self.engine else {
            let loss = self.loss.mean(&self.outputs(batch)?, batch.targets())?;
            let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            return Ok((value, loss.backward()?));
        };
        let (value, gradient) = engine.gradient(&self.parameters, batch)?;
        Ok((value, autograd::store(&self.parameters, &gradient)?))
    }

    /// ‖∇L(θ)‖, the slope in the steepest direction.
    ///
    /// # Errors
    /// As [`Objective::gradient`].
    pub fn gradient_norm(&self) -> Result<f64> {
        Ok(norm(&self.gradient()?))
    }

    /// The exact Hessian-vector product Hv, H = ∇²L(θ), where the model stands: the gradient of
    /// ⟨∇L, v⟩ by a second backward pass (Pearlmutter, 1994).
    ///
    /// # Errors
    /// A `v` of the wrong length or not finite; a product that is not finite; candle's.
    pub fn hvp(&self, v: &[f64]) -> Result<Vec<f64>> {
        let mut products = self.products(&[v.to_vec()], Curvature::Hessian)?;
        Ok(products.swap_remove(0))
    }

    /// Products of several vectors with a curvature matrix of the mean loss where the model stands.
    /// λ‖θ‖² adds its 2λ where the matrix is one of the loss, and not of the predictions or the samples' gradients.
    pub(crate) fn products(
        &self,
        vectors: &[Vec<f64>],
        curvature: Curvature,
    ) -> Result<Vec<Vec<f64>>> {
        for v in vectors {
            self.parameters.check_vector(v, "vector")?;
        }
        if vectors.is_empty() {
            return Ok(Vec::new());
        }
        let _in_place = PARAMETERS_IN_PLACE
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut products = match &self.engine {
            Some(engine) => engine.products(&self.parameters, &self.data, vectors, curvature)?,
            None => {
                let product = |v: &Vec<f64>| self.product_by_autograd(v, curvature);
                vectors.iter().map(product).collect::<Result<_>>()?
            }
        };
        for (product, v) in products.iter_mut().zip(vectors) {
            if matches!(curvature, Curvature::Hessian | Curvature::GaussNewton) {
                axpy(2.0 * self.l2, v, product);
            }
            self.check_finite(product, curvature.name())?;
        }
        Ok(products)
    }

    fn product_by_autograd(&self, v: &[f64], curvature: Curvature) -> Result<Vec<f64>> {
        let directions = self.parameters.unflatten(v)?;
        let mut product = vec![0.0; self.dim()];
        let share = 1.0 / self.data.len() as f64;
        self.over_batches(
            |batch| {
                let outputs = self.outputs(batch)?;
                let loss = |z: &Tensor| self.partial_loss(z, batch);
                match curvature {
                    Curvature::Hessian => {
                        autograd::hvp(&self.parameters, &loss(&outputs)?, &directions)
                    }
                    Curvature::GaussNewton | Curvature::Fisher => {
                        let bend = |z: &Tensor, rz: &Tensor| autograd::output_hvp(loss, z, rz);
                        autograd::jacobian_sandwich(&self.parameters, &outputs, &directions, bend)
                    }
                    Curvature::Gradients => {
                        let bend = |z: &Tensor, rz: &Tensor| {
                            let dz = autograd::output_gradient(loss, z)?;
                            let along = ((&dz * rz)?.sum_keepdim(1)? / share)?;
                            Ok(dz.broadcast_mul(&along)?)
                        };
                        autograd::jacobian_sandwich(&self.parameters, &outputs, &directions, bend)
                    }
                }
            },
            |part| axpy(1.0, &part, &mut product),
        )?;
        Ok(product)
    }

    fn loss_in_place(&self) -> Result<f64> {
        let mut loss = match &self.engine {
            Some(engine) => engine.loss(&self.parameters, &self.data)?.0,
            None => self.loss_by_autograd()?,
        };
        if self.l2 > 0.0 {
            let theta = self.parameters.to_flat()?;
            loss += self.l2 * dot(&theta, &theta);
        }
        check_loss(loss)
    }

    fn loss_by_autograd(&self) -> Result<f64> {
        let mut total = 0.0;
        self.over_batches(
            |batch| {
                let losses = self
                    .loss
                    .per_sample(&self.outputs(batch)?, batch.targets())?;
                Ok(losses.to_dtype(DType::F64)?.to_vec1::<f64>()?)
            },
            |losses| total += losses.iter().sum::<f64>(),
        )?;
        Ok(total / self.data.len() as f64)
    }

    fn gradient_in_place(&self) -> Result<Vec<f64>> {
        let mut gradient = match &self.engine {
            Some(engine) => engine.gradient(&self.parameters, &self.data)?.1,
            None => {
                let mut gradient = vec![0.0; self.dim()];
                self.over_batches(
                    |batch| {
                        let loss = self.partial_loss(&self.outputs(batch)?, batch)?;
                        autograd::gradient(&self.parameters, &loss)
                    },
                    |part| axpy(1.0, &part, &mut gradient),
                )?;
                gradient
            }
        };
        if self.l2 > 0.0 {
            axpy(2.0 * self.l2, &self.parameters.to_flat()?, &mut gradient);
        }
        self.check_finite(&gradient, "gradient")?;
        Ok(gradient)
    }

    /// What `f` gives with the model at `theta`.
    fn at<T>(&self, theta: &[f64], f: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let moved = self.parameters.unflatten(theta)?;
        let _away = PARAMETERS_IN_PLACE
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let _restore = Restore {
            parameters: &self.parameters,
            saved: self.parameters.copies()?,
        };
        self.parameters.set_tensors(&moved)?;
        f(self)
    }

    fn outputs(&self, batch: &Dataset) -> Result<Tensor> {
        Ok((self.forward)(batch.inputs())?)
    }

    /// The batch's share of the mean, so that the parts of all batches, ragged or not, add up.
    fn partial_loss(&self, outputs: &Tensor, batch: &Dataset) -> Result<Tensor> {
        let losses = self.loss.per_sample(outputs, batch.targets())?;
        Ok((losses.sum_all()? / self.data.len() as f64)?)
    }

    /// `part` of every batch, on the worker threads, and `fold` of the results, in order.
    fn over_batches<T: Send>(
        &self,
        part: impl Fn(&Dataset) -> Result<T> + Sync,
        mut fold: impl FnMut(T),
    ) -> Result<()> {
        let batches = self.data.batches(self.batch_size)?;
        let batches = batches.collect::<Result<Vec<_>>>()?;
        for some in batches.chunks(autograd::threads()?) {
            for result in autograd::on_workers(some, &part)? {
                fold(result?);
            }
        }
        Ok(())
    }

    fn check_data(&self) -> Result<()> {
        let outputs = autograd::on_workers(&[self.data.first(1)?], |one| self.outputs(one))?;
        for outputs in outputs {
            self.loss.check(&outputs?, &self.data)?;
        }
        Ok(())
    }

    fn check_finite(&self, vector: &[f64], what: &str) -> Result<()> {
        for (name, range) in self.parameters.blocks() {
            check_finite(&vector[range], &format!("the {what} of parameter `{name}`"))?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objective")
            .field("parameters", &self.dim())
            .field("samples", &self.data.len())
            .field("loss", &self.loss)
            .field("l2", &self.l2)
            .finish_non_exhaustive()
    }
}

fn check_loss(loss: f64) -> Result<f64> {
    if !loss.is_finite() {
        return Err(Error::NotFinite(format!(
            "the loss is {loss}: look for parameters that are not finite, a learning rate \
             that is too large, or outputs that overflow"
        )));
    }
    Ok(loss)
}

/// Puts a model's parameters back when it goes, whatever happened meanwhile.
struct Restore<'a> {
    parameters: &'a Parameters,
    saved: Vec<Tensor>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        // The copies have the variables' own shapes and types, so this cannot fail.
        let _ = self.parameters.set_tensors(&self.saved);
    }
}
