//! [`Objective`]: a loss as a function of θ, with its gradient and Hessian-vector products at the model's current
//! point.
//!
//! Derivatives are computed in one of two ways, and the two agree. Any candle model goes through candle's graph:
//! double backward over the dataset in batches. Models that list their [layers](crate::layers) use hand-derived rules
//! on the CPU, several times faster. [`Objective::engine`] returns which way is used, and why.

mod autograd;
mod batch_size;
mod batch_statistics;
mod check;
mod criterion;
mod curvature_factors;
mod differences;
mod engine;
mod evaluate;
mod in_use;
mod jacobian;
mod parts;
mod pass_model;
mod pullback;
mod ranks;
mod rounding;
mod sample_derivatives;
mod step;

pub use crate::engine::{GraphReason, LayerTile};
pub use crate::losses::{CrossEntropy, Loss};
pub(crate) use autograd::store as gradient_store;
pub use check::DerivativeCheck;
pub use engine::Engine;
pub use evaluate::Score;
pub(crate) use pass_model::PassModel;

use self::autograd::FUSED;
use self::batch_size::BatchSize;
use self::criterion::Criterion;
use self::parts::Parts;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::data::{Dataset, Targets, even_parts};
use crate::engine::{HandDerived, hand_derived};
use crate::error::{Error, Result, check_finite};
use crate::layers::LayerKind;
use crate::model::Model;
use crate::parameters::Parameters;
use crate::pool::Pool;
use crate::ranks::Ranks;

type Forward = dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync;

/// The forward pass of a training step, which may draw random numbers from a seed.
type Training = dyn Fn(&Tensor, u64) -> candle_core::Result<Tensor> + Send + Sync;

/// Default limit of [`Objective::with_memory`], in bytes.
const MEMORY: usize = 4 << 30;

/// The loss L(θ) of a model on a dataset: the mean over its samples plus an optional penalty λ‖θ‖²:
///
/// L(θ) = (1/n) Σᵢ ℓ(f(xᵢ; θ), yᵢ) + λ‖θ‖²
///
/// It is evaluated at the model's current parameters: after more training, the same objective returns values for the
/// new θ and the new running statistics of batch normalisation, which are constants here. All vectors are `f64`, on
/// the host, in the order of [`Parameters`].
///
/// Sums over batches are computed in a fixed order, so the same point gives the same bits on a CPU.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // The mean of (wx + b)² over x = ±2, which is L(b, w) = b² + 4w².
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&line, &data, Loss::Mse)?;
///
/// line.parameters().set_flat(&[1.0, 0.5])?; // the bias is the first entry of θ
/// assert_eq!(objective.loss()?, 2.0);
/// assert_eq!(objective.gradient()?, [2.0, 4.0]);
/// assert_eq!(objective.hvp(&[1.0, 1.0])?, [2.0, 8.0]);
/// assert_eq!(objective.loss_at(&[0.0, 0.0])?, 0.0); // the model itself is unchanged
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Objective {
    forward: Arc<Forward>,
    training: Arc<Training>,
    parameters: Parameters,
    data: Dataset,
    loss: Criterion,
    l2: f64,
    batch_size: BatchSize,
    memory: usize,
    check: DerivativeCheck,
    layers: std::result::Result<Arc<[LayerKind]>, GraphReason>,
    engine: std::result::Result<Arc<dyn HandDerived>, GraphReason>,
    /// Number of samples in the mean, over all ranks.
    samples: usize,
    ranks: Option<Arc<dyn Ranks>>,
    /// All samples, if they are read in parts; `data` is then the first part.
    parts: Option<Parts>,
    /// Largest number of samples in a batch where batch normalisation uses the batch's statistics.
    batches: Option<usize>,
    /// Buffers of θ with the running statistics.
    points: Arc<Pool<Vec<f64>>>,
}

impl Objective {
    /// The loss of `model` on `data`.
    ///
    /// # Errors
    /// As [`Objective::from_fn`].
    pub fn of<M>(model: &M, data: &Dataset, loss: impl Into<Loss>) -> Result<Self>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        Self::of_shared(Arc::new(model.clone()), data, loss.into())
    }

    fn of_shared(model: Arc<dyn Model + Send + Sync>, data: &Dataset, loss: Loss) -> Result<Self> {
        let parameters = model.parameters().clone();
        let layers = model.layers().ok_or_else(|| match model.without_layers() {
            Some(reason) => GraphReason::Unrecognised(reason),
            None => GraphReason::NoLayers,
        });
        let trained = model.clone();
        let training = move |x: &Tensor, seed| trained.forward_training(x, seed);
        let passes: (Arc<Forward>, Arc<Training>) =
            (Arc::new(move |x| model.forward(x)), Arc::new(training));
        let loss = Criterion::new(loss, data)?;
        Self::new(parameters, data, loss, passes, layers)
    }

    /// The loss of your own candle model: `forward` maps inputs of shape `(n, …)` to outputs of
    /// shape `(n, outputs)` with the variables of `parameters`, a `&VarMap` or [`Parameters`].
    ///
    /// The derivatives are checked on a few samples when the objective is built; see [`Objective::derivative_check`].
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let vars = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
    /// let (first, last) = (
    ///     candle_nn::linear(2, 4, vb.pp("first"))?,
    ///     candle_nn::linear(4, 1, vb.pp("last"))?,
    /// );
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let forward = move |x: &Tensor| last.forward(&first.forward(x)?.tanh()?);
    /// let objective = Objective::from_fn(&vars, &data, Loss::CrossEntropy, forward)?;
    /// assert_eq!(objective.dim(), (2 * 4 + 4) + (4 + 1));
    ///
    /// // A cut graph is detected at once.
    /// let theta = Var::new(&[[1.0], [1.0]], &Device::Cpu)?;
    /// let parameters = Parameters::new([("theta".to_owned(), theta.clone())])?;
    /// let cut = Objective::from_fn(parameters, &data, Loss::CrossEntropy, move |x| {
    ///     x.matmul(&theta.detach())
    /// });
    /// assert!(matches!(cut, Err(Error::NoGradient { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Outputs that do not fit the loss or the targets; a loss that is not finite, or that differs
    /// between two calls; a parameter that gets no gradient or no second derivative; an operation
    /// that candle cannot differentiate twice; a gradient that central differences contradict, or in `f64` a
    /// Hessian-vector product.
    pub fn from_fn<P, F>(
        parameters: P,
        data: &Dataset,
        loss: impl Into<Loss>,
        forward: F,
    ) -> Result<Self>
    where
        P: TryInto<Parameters>,
        Error: From<P::Error>,
        F: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
    {
        let loss = Criterion::new(loss.into(), data)?;
        Self::new(
            parameters.try_into()?,
            data,
            loss,
            passes(forward),
            Err(GraphReason::NoLayers),
        )
    }

    /// The same with a custom loss: `loss` maps outputs `(n, outputs)` and the targets of these n samples to one loss
    /// per sample, shape `(n,)`. The objective is their mean. It must be twice differentiable in the outputs.
    ///
    /// # Errors
    /// As [`Objective::from_fn`]; losses of another shape. A Fisher matrix is undefined without the loss's
    /// distribution, so its products are an error. [`GaussNewton`](crate::operator::GaussNewton) is defined, but is
    /// positive semidefinite only if the loss is convex in the outputs.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// // The mean of ln cosh(wx + b) over x = ±2 has the Hessian diag(1, 4) where w = b = 0.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[0.0, 0.0])?;
    ///
    /// let network = line.clone();
    /// let objective = Objective::from_loss(
    ///     line.parameters().clone(),
    ///     &data,
    ///     move |x| network.forward(x),
    ///     |z, targets| {
    ///         let Targets::Values(y) = targets else { candle::bail!("values are wanted") };
    ///         let r = (z - y)?;
    ///         ((r.exp()? + r.neg()?.exp()?)? * 0.5)?.log()?.squeeze(1)
    ///     },
    /// )?;
    /// let product = objective.hvp(&[1.0, 1.0])?;
    /// assert!((product[0] - 1.0).abs() < 1e-12 && (product[1] - 4.0).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_loss<P, F, L>(parameters: P, data: &Dataset, forward: F, loss: L) -> Result<Self>
    where
        P: TryInto<Parameters>,
        Error: From<P::Error>,
        F: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
        L: Fn(&Tensor, &Targets) -> candle_core::Result<Tensor> + Send + Sync + 'static,
    {
        let loss = Criterion::Own(Arc::new(loss));
        Self::new(
            parameters.try_into()?,
            data,
            loss,
            passes(forward),
            Err(GraphReason::NoLayers),
        )
    }

    fn new(
        parameters: Parameters,
        data: &Dataset,
        loss: Criterion,
        (forward, training): (Arc<Forward>, Arc<Training>),
        layers: std::result::Result<Vec<LayerKind>, GraphReason>,
    ) -> Result<Self> {
        let mut objective = Self {
            forward,
            training,
            parameters,
            data: data.clone(),
            loss,
            l2: 0.0,
            batch_size: BatchSize::usual(data),
            memory: MEMORY,
            check: DerivativeCheck::default(),
            layers: layers.map(Arc::from),
            engine: Err(GraphReason::NoLayers),
            samples: data.len(),
            ranks: None,
            parts: None,
            batches: None,
            points: Arc::default(),
        };
        objective.engine = objective.engine_for(data);
        objective
            .check_data()
            .map_err(|error| match &objective.engine {
                Err(GraphReason::Misfit(misfit)) => Error::invalid(misfit.to_string()),
                _ => error,
            })?;
        objective.check = check::check(&objective)?;
        Ok(objective)
    }

    /// Hand-derived rules for the model's layers on this data, or the reason why there are none.
    fn engine_for(&self, data: &Dataset) -> std::result::Result<Arc<dyn HandDerived>, GraphReason> {
        let layers = self.layers.as_ref().map_err(Clone::clone)?;
        let loss = self.loss.known().ok_or(GraphReason::OwnLoss)?;
        hand_derived(layers, &self.parameters, data, loss)
    }

    /// The same objective with automatic differentiation only, to compare the two ways.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 4, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let by_hand = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let by_graph = by_hand.clone().by_autograd();
    /// assert!(by_hand.is_hand_derived() && !by_graph.is_hand_derived());
    /// for (a, b) in by_hand.gradient()?.iter().zip(by_graph.gradient()?) {
    ///     assert!((a - b).abs() < 1e-12);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn by_autograd(mut self) -> Self {
        self.engine = Err(GraphReason::Requested);
        self
    }

    /// Whether derivatives are computed by hand-derived rules rather than automatic differentiation. With batch
    /// statistics they are not.
    pub fn is_hand_derived(&self) -> bool {
        self.engine() == Engine::ByHand
    }

    /// Adds λ‖θ‖² to the loss, 2λθ to the gradient and 2λ to the Hessian's diagonal.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model = Mlp::new(&[2, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let plain = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let penalised = plain.clone().with_l2(0.1)?;
    /// let theta = [1.0, 2.0, 2.0]; // ‖θ‖² = 9
    /// assert!((penalised.loss_at(&theta)? - plain.loss_at(&theta)? - 0.9).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `strength` is negative or not finite.
    pub fn with_l2(mut self, strength: f64) -> Result<Self> {
        check_l2(strength)?;
        self.l2 = strength;
        Ok(self)
    }

    /// The model, by its forward passes.
    pub(crate) fn model(&self) -> PassModel {
        PassModel {
            forward: self.forward.clone(),
            training: self.training.clone(),
            parameters: self.parameters.clone(),
            layers: self.layers.clone(),
        }
    }

    /// The model's layers, if it lists them.
    pub(crate) fn layers(&self) -> Option<&[LayerKind]> {
        self.layers.as_deref().ok()
    }

    /// Strength λ of the penalty λ‖θ‖².
    pub(crate) fn l2(&self) -> f64 {
        self.l2
    }

    /// Sets the number of samples in a forward pass: more is faster, fewer needs less memory. Results are equal up to
    /// rounding. The default is 512 on a CPU, and on a GPU some thousands of images, halved whenever a batch does not
    /// fit its memory.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let together = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let in_parts = together.clone().with_batch_size(7)?; // the last of 4
    /// assert!((together.loss()? - in_parts.loss()?).abs() < 1e-14);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `size` is 0.
    pub fn with_batch_size(mut self, size: usize) -> Result<Self> {
        if size == 0 {
            return Err(Error::invalid("a batch needs at least one sample"));
        }
        self.batch_size = BatchSize::new(size);
        Ok(self)
    }

    /// The loss of the same model on other data, for example the test set. It is the mean over the labels of those data that
    /// count, if not all do.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 4, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let whole = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let first = whole.with_data(&data.first(30)?)?.loss()?;
    /// let last = whole
    ///     .with_data(&data.select(&(30..60).collect::<Vec<_>>())?)?
    ///     .loss()?;
    /// assert!((whole.loss()? - (first + last) / 2.0).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Data whose dtype or device differs from this objective's; targets that do not fit the loss.
    pub fn with_data(&self, data: &Dataset) -> Result<Self> {
        let ours = self.data.inputs();
        if data.inputs().dtype() != ours.dtype() || !data.device().same_device(ours.device()) {
            return Err(Error::invalid(format!(
                "the data is {:?} on {:?} but the objective's is {:?} on {:?}: convert it with to_dtype, \
                 or load it on that device",
                data.inputs().dtype(),
                data.device().location(),
                ours.dtype(),
                ours.device().location()
            )));
        }
        if data.inputs().dims()[1..] != ours.dims()[1..] {
            return Err(Error::invalid(format!(
                "samples of shape {:?} do not fit a model for {:?}",
                &data.inputs().dims()[1..],
                &ours.dims()[1..]
            )));
        }
        let mut other = self.with_batch(data.clone());
        other.loss = self.loss.with_data(data)?;
        if other.loss.depends_on_data() && other.engine.is_ok() {
            other.engine = other.engine_for(data);
        }
        other.checked()
    }

    /// The same loss on some of its samples. Its mean over random subsets is this loss: a label has the same weight in both.
    ///
    /// # Errors
    /// As [`Objective::with_data`].
    pub(crate) fn with_subset(&self, data: &Dataset) -> Result<Self> {
        self.with_batch(data.clone()).checked()
    }

    fn checked(mut self) -> Result<Self> {
        self.check_data()?;
        match self.ranks.take() {
            Some(ranks) => self.with_ranks(ranks),
            None => Ok(self),
        }
    }

    /// The same for data that is known to fit, such as a batch.
    pub(crate) fn with_batch(&self, data: Dataset) -> Self {
        Self {
            samples: data.len(),
            data,
            parts: None,
            ..self.clone()
        }
    }

    /// Caches at most `bytes` of the primal pass for products at a point, with hand-derived rules; 2³² by
    /// default. The rest is recomputed for each product, which then takes about half as long again. As many bytes
    /// are used for the first layer's outputs on a plane. Results are bit-identical.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let v = direction::gaussian(model.parameters(), 0);
    /// assert_eq!(
    ///     objective.clone().with_memory(0).hvp(&v)?,
    ///     objective.hvp(&v)?
    /// );
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// Number of parameters, the length of θ.
    pub fn dim(&self) -> usize {
        self.parameters.len()
    }

    /// The model's parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The data. With [`with_ranks`](Self::with_ranks) this rank's share, with [`with_source`](Self::with_source) the first
    /// part.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// How well the gradient and the Hessian-vector product agreed with central differences when this objective was
    /// built.
    pub fn derivative_check(&self) -> &DerivativeCheck {
        &self.check
    }

    /// Number of labels in the accuracy of these samples.
    pub(crate) fn num_labels(&self) -> f64 {
        let labels = self.loss.num_labels(&self.data);
        match self.parts {
            None => labels,
            Some(_) => labels / self.data.len() as f64 * self.samples as f64,
        }
    }

    fn outputs(&self, batch: &Dataset) -> Result<Tensor> {
        Ok(match self.batches {
            None => (self.forward)(batch.inputs())?,
            Some(_) => (self.training)(batch.inputs(), 0)?,
        })
    }

    /// The batch's contribution to the mean; the contributions of all batches, ragged or not, add up to it.
    fn partial_loss(&self, outputs: &Tensor, batch: &Dataset) -> Result<Tensor> {
        let losses = self.loss.per_sample(outputs, batch.targets())?;
        Ok((losses.sum_all()? / self.data.len() as f64)?)
    }

    /// Runs `part` on every batch, on the worker threads, and `fold` on the results, in order. A batch that does not
    /// fit the device's memory is halved.
    fn over_batches<T: Send>(
        &self,
        part: impl Fn(&Dataset) -> Result<T> + Sync,
        mut fold: impl FnMut(T),
    ) -> Result<()> {
        let at_once = autograd::at_once(self.data.device());
        let (n, mut done) = (self.data.len(), 0);
        if let Some(size) = self.batches {
            for some in even_parts(n, size).chunks(at_once) {
                let some = some
                    .iter()
                    .map(|part| self.data.narrow(part.start, part.len()));
                let some = some.collect::<Result<Vec<_>>>()?;
                for result in self.on_workers(&some, &part)? {
                    fold(result?);
                }
            }
            return Ok(());
        }
        while done < n {
            let rest = self.data.narrow(done, n - done)?;
            let some = rest.batches(self.batch_size.get())?.take(at_once);
            let some = some.collect::<Result<Vec<_>>>()?;
            for (batch, result) in some.iter().zip(self.on_workers(&some, &part)?) {
                match result {
                    Err(error) if self.batch_size.halve_after(&error, batch.len()) => break,
                    result => fold(result?),
                }
                done += batch.len();
            }
        }
        Ok(())
    }

    fn on_workers<T: Send>(
        &self,
        batches: &[Dataset],
        f: impl Fn(&Dataset) -> Result<T> + Sync,
    ) -> Result<Vec<Result<T>>> {
        // On a GPU each thread may have its own stream: wait for the work this thread has queued.
        self.data.device().synchronize()?;
        autograd::on_workers(batches, f)
    }

    fn check_data(&self) -> Result<()> {
        let forward = |one: &Dataset| Ok((self.forward)(one.inputs())?);
        let outputs = self.on_workers(&[self.data.first(1)?], forward)?;
        for outputs in outputs {
            let outputs = outputs.map_err(|e| self.explain(e))?;
            self.loss.check(&outputs, &self.data)?;
        }
        Ok(())
    }

    /// Adds the data's shape and dtype to candle's error in the first forward pass.
    fn explain(&self, error: Error) -> Error {
        let Error::Candle(error) = error else {
            return error;
        };
        let (inputs, model) = (self.data.inputs(), self.parameters.dtype());
        // The message of candle's LayerNorm too.
        if error.to_string().contains("unsupported dtype for rmsnorm") {
            return Error::invalid(format!("{FUSED} ({error})"));
        }
        Error::invalid(if inputs.dtype() == model || inputs.dtype() == DType::U32 {
            format!(
                "the model cannot take a sample, inputs of shape (1, {}): {error}. Give it a first \
                 layer for that shape, or data of the shape that its first layer takes",
                inputs.dims()[1..]
                    .iter()
                    .map(usize::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        } else {
            format!(
                "the model's parameters are {model:?} and the data is {:?}: convert one with \
                 to_dtype ({error})",
                inputs.dtype()
            )
        })
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
            .field("engine", &self.engine())
            .field("batch_statistics", &self.batches)
            .finish_non_exhaustive()
    }
}

fn passes<F>(forward: F) -> (Arc<Forward>, Arc<Training>)
where
    F: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
{
    let forward = Arc::new(forward);
    let training = forward.clone();
    (forward, Arc::new(move |x, _| training(x)))
}

/// Returns an error if λ is negative or not finite.
pub(crate) fn check_l2(strength: f64) -> Result<()> {
    if strength >= 0.0 && strength.is_finite() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "an L2 strength of {strength} is invalid: give a finite number ≥ 0"
    )))
}
