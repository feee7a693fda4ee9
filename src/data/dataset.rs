//! [`Dataset`]: samples with their targets.

use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Batches;
use super::labels::{not_a_label, to_u32};
use crate::error::{Error, Result, counted};
use crate::random::{Purpose, generator};

/// The targets of a dataset's samples.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// assert!(matches!(data.targets(), Targets::Labels(labels) if labels.dims() == [60]));
/// let data = data.one_hot(2)?;
/// assert!(matches!(data.targets(), Targets::Values(values) if values.dims() == [60, 2]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Targets {
    /// The class of each sample, shape `(n,)`, or of each of its tokens, shape `(n, …)`; `u32`.
    Labels(Tensor),
    /// The values to fit, shape `(n, …)`, floating point.
    Values(Tensor),
}

impl Targets {
    pub(crate) fn tensor(&self) -> &Tensor {
        match self {
            Self::Labels(tensor) | Self::Values(tensor) => tensor,
        }
    }

    /// The shape of one sample's targets.
    pub(crate) fn dims(&self) -> &[usize] {
        &self.tensor().dims()[1..]
    }

    fn map(
        &self,
        f: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Self> {
        Ok(match self {
            Self::Labels(labels) => Self::Labels(f(labels)?),
            Self::Values(values) => Self::Values(f(values)?),
        })
    }
}

/// `n` samples with their targets, on one device. Cloning is cheap: tensors are shared.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let inputs = Tensor::new(&[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], &Device::Cpu)?;
/// let data = Dataset::classification(&inputs, &Tensor::new(&[0u32, 1, 1], &Device::Cpu)?)?;
/// assert_eq!((data.len(), data.labels()?), (3, vec![0, 1, 1]));
/// let turned = data.select(&[2, 0])?;
/// assert_eq!(turned.inputs().to_vec2::<f64>()?, [[4.0, 5.0], [0.0, 1.0]]);
///
/// let fit = Dataset::regression(&inputs, &Tensor::new(&[1.0, 2.0, 3.0], &Device::Cpu)?)?;
/// assert!(matches!(fit.targets(), Targets::Values(values) if values.dims() == [3, 1]));
/// assert!(fit.labels().is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    inputs: Tensor,
    targets: Targets,
}

impl Dataset {
    /// A dataset with classes as targets.
    ///
    /// # Shapes
    /// `inputs` `(n, …)`, floating point or `u32` tokens; `labels` `(n,)`, or `(n, …)` with a label per token, of any integer
    /// type.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // Two sequences of three tokens, each with the token that follows.
    /// let tokens = Tensor::new(&[[0u32, 1, 2], [2, 1, 0]], &Device::Cpu)?;
    /// let next = Tensor::new(&[[1u32, 2, 0], [1, 0, 2]], &Device::Cpu)?;
    /// let data = Dataset::classification(&tokens, &next)?;
    /// assert_eq!((data.len(), data.labels()?.len()), (2, 6));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// No samples; inputs and labels that differ in number; inputs that are not finite; labels that are not integers, negative or
    /// ≥ 2³².
    pub fn classification(inputs: &Tensor, labels: &Tensor) -> Result<Self> {
        if !labels.dtype().is_int() {
            return Err(Error::invalid(format!(
                "labels are {:?}: classes must be integers, values to fit go to \
                 Dataset::regression",
                labels.dtype()
            )));
        }
        if labels.rank() == 0 {
            return Err(Error::invalid(format!(
                "labels have shape {:?}: give one class per sample, shape (n,), or one per token, shape (n, …)",
                labels.dims()
            )));
        }
        let targets = Targets::Labels(to_u32(labels, not_a_label)?.contiguous()?.detach());
        Self::new(inputs, labels.dim(0)?, targets)
    }

    /// A dataset with values as targets.
    ///
    /// # Shapes
    /// `inputs` `(n, …)`, floating point or `u32` tokens; `values` `(n, outputs)`, `(n,)` for one output, or the shape of the
    /// outputs `(n, …)`, floating point.
    ///
    /// # Errors
    /// No samples; inputs and values that differ in number; inputs or values that are not finite.
    pub fn regression(inputs: &Tensor, values: &Tensor) -> Result<Self> {
        let values = match values.rank() {
            0 => {
                return Err(Error::invalid(
                    "values are a single number: give one row per sample, shape (n, outputs)",
                ));
            }
            1 => values.unsqueeze(1)?,
            _ => values.clone(),
        };
        check_tensor(&values, "values")?;
        let dtype = match inputs.dtype() {
            DType::U32 => values.dtype(),
            dtype => dtype,
        };
        let values = values.to_dtype(dtype)?.detach();
        Self::new(inputs, values.dim(0)?, Targets::Values(values))
    }

    fn new(inputs: &Tensor, targets_len: usize, targets: Targets) -> Result<Self> {
        if inputs.rank() == 0 || inputs.elem_count() == 0 {
            return Err(Error::invalid(format!(
                "inputs have shape {:?}: a dataset needs at least one sample, shape (n, …)",
                inputs.dims()
            )));
        }
        if inputs.dim(0)? != targets_len {
            return Err(Error::invalid(format!(
                "{} but {}: give one target per sample",
                counted(inputs.dim(0)?, "input"),
                counted(targets_len, "target")
            )));
        }
        if targets.dims().contains(&0) {
            return Err(Error::invalid(format!(
                "targets have shape {:?}: no axis can be 0",
                targets.tensor().dims()
            )));
        }
        if inputs.dtype() != DType::U32 {
            check_tensor(inputs, "inputs")?;
        }
        Ok(Self {
            inputs: inputs.contiguous()?.detach(),
            targets,
        })
    }

    /// Number of samples.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.inputs.dims()[0]
    }

    /// The same targets with other inputs.
    pub(super) fn with_inputs(&self, inputs: &Tensor) -> Result<Self> {
        Self::new(inputs, self.len(), self.targets.clone())
    }

    /// Number of labels: one per sample, or one per token.
    pub(crate) fn num_labels(&self) -> usize {
        self.len() * self.targets.dims().iter().product::<usize>()
    }

    /// The samples, shape `(n, …)`.
    pub fn inputs(&self) -> &Tensor {
        &self.inputs
    }

    /// The targets.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The device of the tensors.
    pub fn device(&self) -> &Device {
        self.inputs.device()
    }

    /// The same data in another floating-point dtype. Tokens stay `u32`.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?; // `f64`; models are created in `f32`
    /// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?;
    /// assert!(Objective::of(&model, &data, Loss::CrossEntropy).is_err());
    /// assert!(Objective::of(&model, &data.to_dtype(DType::F32)?, Loss::CrossEntropy).is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A dtype that is not floating point.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        if !dtype.is_float() {
            return Err(Error::invalid(format!(
                "inputs cannot be {dtype:?}: ask for a floating-point type"
            )));
        }
        Ok(Self {
            inputs: match self.inputs.dtype() {
                DType::U32 => self.inputs.clone(),
                _ => self.inputs.to_dtype(dtype)?,
            },
            targets: match &self.targets {
                Targets::Labels(labels) => Targets::Labels(labels.clone()),
                Targets::Values(values) => Targets::Values(values.to_dtype(dtype)?),
            },
        })
    }

    /// The same data with labels turned into values: row `i` is 1 at the sample's class and 0 elsewhere.
    /// Shape `(n, classes)`.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(2, 0.0, 0, &Device::Cpu)?.one_hot(3)?;
    /// let Targets::Values(values) = data.targets() else {
    ///     unreachable!()
    /// };
    /// assert_eq!(values.to_vec2::<f64>()?, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A dataset without labels, a label ≥ `classes`.
    pub fn one_hot(&self, classes: usize) -> Result<Self> {
        let labels = self.labels_of_samples("one-hot values")?;
        let mut values = vec![0f32; labels.len() * classes];
        for (i, &label) in labels.iter().enumerate() {
            let label = label as usize;
            if label >= classes {
                return Err(Error::invalid(format!(
                    "label {label} of sample {i} does not fit: the number of classes is {classes}"
                )));
            }
            values[i * classes + label] = 1.0;
        }
        let values = Tensor::from_vec(values, (labels.len(), classes), self.device())?;
        Self::regression(&self.inputs, &values)
    }

    /// The class of each sample, or of each token, in order, on the host.
    ///
    /// # Errors
    /// A dataset without labels.
    pub fn labels(&self) -> Result<Vec<u32>> {
        match &self.targets {
            Targets::Labels(labels) => Ok(labels.flatten_all()?.to_vec1()?),
            Targets::Values(_) => Err(Error::invalid(
                "this dataset has values to fit, no labels: build it with Dataset::classification",
            )),
        }
    }

    /// Number of classes: the largest label plus 1. Labels can skip a class.
    ///
    /// # Errors
    /// A dataset without labels.
    pub fn num_classes(&self) -> Result<usize> {
        Ok(self
            .labels()?
            .into_iter()
            .max()
            .map_or(0, |max| max as usize + 1))
    }

    pub(super) fn labels_of_samples(&self, what: &str) -> Result<Vec<u32>> {
        let labels = self.labels()?;
        match self.targets.dims().is_empty() {
            true => Ok(labels),
            false => Err(Error::invalid(format!(
                "{what} needs one label per sample, and this dataset has labels of shape {:?}",
                self.targets.tensor().dims()
            ))),
        }
    }

    /// The samples at `indices`, in that order.
    ///
    /// # Errors
    /// An empty list, an index out of range.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::invalid("a subset needs at least one sample"));
        }
        if let Some(bad) = indices.iter().find(|&&i| i >= self.len()) {
            return Err(Error::invalid(format!(
                "index {bad} is out of range: the dataset has {}",
                counted(self.len(), "sample")
            )));
        }
        let indices: Vec<u32> = indices.iter().map(|&i| i as u32).collect();
        let indices = Tensor::from_vec(indices.clone(), indices.len(), self.device())?;
        Ok(Self {
            inputs: self.inputs.index_select(&indices, 0)?,
            targets: self.targets.map(|t| t.index_select(&indices, 0))?,
        })
    }

    /// Samples `start .. start + len`, sharing this dataset's memory.
    pub(crate) fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self {
            inputs: self.inputs.narrow(0, start, len)?,
            targets: self.targets.map(|t| t.narrow(0, start, len))?,
        })
    }

    /// The first `n` samples.
    ///
    /// # Errors
    /// `n` is 0 or larger than the dataset.
    pub fn first(&self, n: usize) -> Result<Self> {
        self.check_size(n)?;
        self.narrow(0, n)
    }

    /// `n` random samples, drawn without replacement; `seed` determines them. Their mean is an unbiased estimate of
    /// the mean over all samples.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let [once, again, other] = [data.random(20, 0)?, data.random(20, 0)?, data.random(20, 1)?];
    /// let rows = once.inputs().to_vec2::<f64>()?;
    /// assert_eq!(rows, again.inputs().to_vec2::<f64>()?);
    /// assert_ne!(rows, other.inputs().to_vec2::<f64>()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `n` is 0 or larger than the dataset.
    pub fn random(&self, n: usize, seed: u64) -> Result<Self> {
        self.check_size(n)?;
        self.select(&self.random_order(seed)[..n])
    }

    /// Indices of all samples in the random order from which [`Dataset::random`] takes the first.
    pub(crate) fn random_order(&self, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut generator(Purpose::Subsample, seed, 0));
        order
    }

    /// `n` random samples, drawn without replacement, with equally many of each class (the first classes get one more
    /// if `n` is not a multiple of their number), in shuffled order; `seed` determines them.
    ///
    /// This is a different dataset: if the classes differ in size, its mean loss is not an estimate of the mean loss
    /// over all samples. Use [`Dataset::random`] for that.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let labels = data.balanced(11, 0)?.labels()?;
    /// assert_eq!(labels.iter().filter(|label| **label == 0).count(), 6);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A dataset without labels, `n` = 0, a class with too few samples.
    pub fn balanced(&self, n: usize, seed: u64) -> Result<Self> {
        self.check_size(n)?;
        let labels = self.labels_of_samples("a balanced subset")?;
        let classes = labels.iter().max().map_or(0, |&m| m as usize + 1);
        let quota = |class: usize| n / classes + usize::from(class < n % classes);

        let mut taken = vec![0; classes];
        let chosen: Vec<usize> = permutation(self.len(), seed)
            .into_iter()
            .filter(|&i| {
                let class = labels[i] as usize;
                taken[class] += 1;
                taken[class] <= quota(class)
            })
            .collect();
        if let Some(class) = (0..classes).find(|&c| taken[c] < quota(c)) {
            return Err(Error::invalid(format!(
                "{n} balanced samples need {} of class {class}, which has only {}: ask for fewer",
                quota(class),
                taken[class]
            )));
        }
        self.select(&chosen)
    }

    /// All samples once, `size` at a time, in order; the last batch may be smaller.
    ///
    /// # Errors
    /// `size` is 0.
    pub fn batches(&self, size: usize) -> Result<Batches> {
        Batches::in_order(self, size)
    }

    /// All samples once, `size` at a time, shuffled with `seed`.
    ///
    /// # Errors
    /// `size` is 0.
    pub fn shuffled_batches(&self, size: usize, seed: u64) -> Result<Batches> {
        Batches::shuffled(self, size, seed)
    }

    /// Indices of all samples, shuffled with `seed`.
    pub(crate) fn order(&self, seed: u64) -> Vec<usize> {
        permutation(self.len(), seed)
    }

    fn check_size(&self, n: usize) -> Result<()> {
        if n == 0 || n > self.len() {
            return Err(Error::invalid(format!(
                "a subset of {n} samples cannot be taken: ask for 1 to {}",
                self.len()
            )));
        }
        Ok(())
    }
}

/// The numbers `0 .. n`, shuffled with `seed`.
pub(super) fn permutation(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

fn check_tensor(tensor: &Tensor, what: &str) -> Result<()> {
    if !tensor.dtype().is_float() {
        return Err(Error::invalid(format!(
            "{what} are {:?}: convert them to a floating-point type, or tokens to u32",
            tensor.dtype()
        )));
    }
    // A NaN or an infinity survives the sum; only then search for its sample.
    if tensor
        .sum_all()?
        .to_dtype(DType::F64)?
        .to_scalar::<f64>()?
        .is_finite()
    {
        return Ok(());
    }
    for i in 0..tensor.dim(0)? {
        let sample = tensor.get(i)?.to_dtype(DType::F64)?.flatten_all()?;
        if let Some(bad) = sample.to_vec1::<f64>()?.iter().find(|v| !v.is_finite()) {
            return Err(Error::NotFinite(format!(
                "{what} are not finite: sample {i} holds {bad}"
            )));
        }
    }
    Ok(())
}
