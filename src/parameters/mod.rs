//! [`Parameters`]: a model's variables as one flat vector θ.

mod restore;

pub(crate) use restore::Restore;

use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;

use crate::error::{Error, Result, check_finite, counted};
use crate::files::write_tensors;
use crate::tensor_functions::append_entries;

/// A model's parameters, sorted by name. θ is their concatenation in that order, each in row-major
/// order. The variables are shared with the model: setting θ changes the model.
///
/// The running statistics of batch normalisation are kept beside θ: training steps change these variables, but
/// derivatives are not taken in them. Files hold both.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let parameters = model.parameters();
/// let names: Vec<_> = parameters.iter().map(|(name, _)| name.as_str()).collect();
/// assert_eq!(
///     names,
///     [
///         "layers.0.bias",
///         "layers.0.weight",
///         "layers.1.bias",
///         "layers.1.weight"
///     ]
/// );
/// assert_eq!(parameters.range("layers.0.weight")?, 3..9);
/// assert_eq!(parameters.get("layers.0.weight")?.dims(), [3, 2]);
///
/// let theta: Vec<f64> = (0..13).map(f64::from).collect();
/// parameters.set_flat(&theta)?;
/// assert_eq!(parameters.to_flat()?, theta);
/// assert!(parameters.set_flat(&[0.0]).is_err()); // wrong length
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parameters {
    named: Vec<(String, Var)>,
    statistics: Vec<(String, Var)>,
    /// Names of parameters and statistics in the order in which they were given.
    given: Vec<String>,
    dtype: DType,
    device: Device,
    len: usize,
}

impl Parameters {
    /// Parameters from names and variables, in any order. Matching weights by order uses it.
    ///
    /// # Errors
    /// No variables; a duplicate name or variable; mixed dtypes or devices; a dtype other than `f32` and `f64`.
    pub fn new(named: impl IntoIterator<Item = (String, Var)>) -> Result<Self> {
        let mut named: Vec<_> = named.into_iter().collect();
        let given = names(&named);
        sort(&mut named);
        let Some((first_name, first)) = named.first() else {
            return Err(Error::invalid("a model needs at least one parameter"));
        };
        let (dtype, device) = (first.dtype(), first.device().clone());
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(Error::invalid(format!(
                "parameter `{first_name}` is {dtype:?}: curvature needs f32 or f64"
            )));
        }
        let len = count(named.iter());
        let parameters = Self {
            named,
            statistics: Vec::new(),
            given,
            dtype,
            device,
            len,
        };
        parameters.check()?;
        Ok(parameters)
    }

    /// Adds running statistics of batch normalisation, in any order.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let var = |value| Var::new(&[value], &Device::Cpu);
    /// let parameters = Parameters::new([("norm.weight".to_owned(), var(1.0)?)])?;
    /// let parameters =
    ///     parameters.with_statistics([("norm.running_mean".to_owned(), var(0.0)?)])?;
    /// assert_eq!(parameters.len(), 1); // statistics are no part of θ
    /// assert_eq!(parameters.statistics().len(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A duplicate name or variable, also among the parameters; a different dtype or device than the parameters'.
    pub fn with_statistics(
        self,
        statistics: impl IntoIterator<Item = (String, Var)>,
    ) -> Result<Self> {
        let mut statistics: Vec<_> = statistics.into_iter().collect();
        let mut given = self.given;
        given.truncate(self.named.len());
        given.extend(names(&statistics));
        sort(&mut statistics);
        let parameters = Self {
            statistics,
            given,
            ..self
        };
        parameters.check()?;
        Ok(parameters)
    }

    fn check(&self) -> Result<()> {
        let all: Vec<_> = self.all().collect();
        let first_name = &all[0].0;
        for (i, (name, var)) in all.iter().enumerate() {
            if var.dtype() != self.dtype {
                return Err(Error::invalid(format!(
                    "parameter `{name}` is {:?} but `{first_name}` is {:?}: use one type",
                    var.dtype(),
                    self.dtype
                )));
            }
            if !var.device().same_device(&self.device) {
                return Err(Error::invalid(format!(
                    "parameters `{name}` and `{first_name}` are on different devices"
                )));
            }
            if let Some((other, _)) = all[..i]
                .iter()
                .find(|(n, v)| n == name || v.id() == var.id())
            {
                return Err(Error::invalid(format!(
                    "parameters `{other}` and `{name}` are the same: give each variable once, \
                     under a name of its own"
                )));
            }
        }
        Ok(())
    }

    /// Number of parameters: the length of θ.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.len
    }

    /// The model's floating-point dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The model's device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names and variables, in θ's order.
    pub fn iter(&self) -> std::slice::Iter<'_, (String, Var)> {
        self.named.iter()
    }

    /// Names and variables of the running statistics, sorted by name.
    pub fn statistics(&self) -> std::slice::Iter<'_, (String, Var)> {
        self.statistics.iter()
    }

    /// Parameters, followed by statistics.
    pub(crate) fn all(&self) -> impl Iterator<Item = &(String, Var)> {
        self.named.iter().chain(&self.statistics)
    }

    /// Names of parameters and statistics by module, in PyTorch's order: modules as they were given, and in each `weight`,
    /// `bias`, `running_mean`, `running_var`, then others. A module's name is that of its parameters without the last part.
    pub(crate) fn modules(&self) -> Vec<(String, Vec<String>)> {
        const FIRST: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];
        let mut modules: Vec<(String, Vec<String>)> = Vec::new();
        for name in &self.given {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            match modules.iter_mut().find(|(other, _)| other == module) {
                Some((_, names)) => names.push(name.clone()),
                None => modules.push((module.to_owned(), vec![name.clone()])),
            }
        }
        for (_, names) in &mut modules {
            names.sort_by_key(|name| {
                let last = name.rsplit('.').next().unwrap_or_default();
                let rank = FIRST.iter().position(|first| *first == last);
                rank.unwrap_or(FIRST.len())
            });
        }
        modules
    }

    /// The variables, in θ's order.
    pub fn vars(&self) -> Vec<Var> {
        self.named.iter().map(|(_, var)| var.clone()).collect()
    }

    /// The variable called `name`.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn get(&self, name: &str) -> Result<&Var> {
        find(&self.named, name, "parameter")
    }

    /// The running statistic called `name`.
    pub(crate) fn statistic(&self, name: &str) -> Result<&Var> {
        find(&self.statistics, name, "running statistic")
    }

    /// Range in θ of the variable called `name`.
    ///
    /// # Errors
    /// As [`Parameters::get`].
    pub fn range(&self, name: &str) -> Result<Range<usize>> {
        let len = self.get(name)?.elem_count();
        let start = count(self.named.iter().take_while(|(n, _)| n != name));
        Ok(start..start + len)
    }

    /// Range of the running statistic called `name` in the vector of θ followed by all statistics.
    pub(crate) fn statistic_range(&self, name: &str) -> Result<Range<usize>> {
        let len = self.statistic(name)?.elem_count();
        let start = self.len + count(self.statistics.iter().take_while(|(n, _)| n != name));
        Ok(start..start + len)
    }

    /// Name and range in θ of each variable, in order.
    pub fn blocks(&self) -> Vec<(String, Range<usize>)> {
        let names = self.named.iter().map(|(name, _)| name.clone());
        names.zip(self.ranges()).collect()
    }

    /// Name and shape of each variable, in order: the same for models of one architecture.
    pub(crate) fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let named = self.named.iter();
        named
            .map(|(name, var)| (name.clone(), var.dims().to_vec()))
            .collect()
    }

    /// Range in θ of each variable, in order.
    pub(crate) fn ranges(&self) -> Vec<Range<usize>> {
        let mut start = 0;
        let ends = self.named.iter().map(|(_, var)| {
            start += var.elem_count();
            start - var.elem_count()..start
        });
        ends.collect()
    }

    /// θ, on the host.
    ///
    /// # Errors
    /// Errors of candle, when a device cannot be read.
    pub fn to_flat(&self) -> Result<Vec<f64>> {
        let mut theta = Vec::with_capacity(self.len);
        self.append_theta(&mut theta)?;
        Ok(theta)
    }

    /// Appends θ.
    pub(crate) fn append_theta(&self, flat: &mut Vec<f64>) -> Result<()> {
        append(&self.named, flat)
    }

    /// Appends all running statistics in their order.
    pub(crate) fn append_statistics(&self, flat: &mut Vec<f64>) -> Result<()> {
        append(&self.statistics, flat)
    }

    /// Length of the vector of θ followed by all statistics.
    pub(crate) fn len_with_statistics(&self) -> usize {
        count(self.all())
    }

    /// All running statistics in their order, on the host.
    pub(crate) fn flat_statistics(&self) -> Result<Vec<f64>> {
        let mut flat = Vec::new();
        self.append_statistics(&mut flat)?;
        Ok(flat)
    }

    /// Sets all running statistics.
    pub(crate) fn set_flat_statistics(&self, mut flat: &[f64]) -> Result<()> {
        for (_, var) in &self.statistics {
            let (values, rest) = flat.split_at(var.elem_count());
            let values = Tensor::from_slice(values, var.shape(), &self.device)?;
            var.set(&values.to_dtype(self.dtype)?)?;
            flat = rest;
        }
        Ok(())
    }

    /// A copy in another floating-point dtype, with its own variables.
    pub(crate) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let copy = |(name, var): &(String, Var)| -> Result<_> {
            let copy = var.to_dtype(dtype)?.copy()?.detach();
            Ok((name.clone(), Var::from_tensor(&copy)?))
        };
        let copies = |named: &[(String, Var)]| named.iter().map(copy).collect::<Result<Vec<_>>>();
        let copy = Self::new(copies(&self.named)?)?.with_statistics(copies(&self.statistics)?)?;
        Ok(Self {
            given: self.given.clone(),
            ..copy
        })
    }

    /// Concatenates tensors into one vector.
    pub(crate) fn flatten<'a>(
        &self,
        tensors: impl Iterator<Item = &'a Tensor>,
    ) -> Result<Vec<f64>> {
        let mut flat = Vec::with_capacity(self.len);
        for tensor in tensors {
            append_entries(tensor, &mut flat)?;
        }
        Ok(flat)
    }

    /// Splits a vector in θ-space into one tensor per variable, with the model's dtype and device.
    pub(crate) fn unflatten(&self, flat: &[f64]) -> Result<Vec<Tensor>> {
        self.check_vector(flat, "vector")?;
        let tensors = self.ranges().into_iter().zip(&self.named);
        tensors
            .map(|(range, (_, var))| {
                let values = &flat[range];
                let tensor = match self.dtype {
                    DType::F64 => Tensor::from_slice(values, var.shape(), &self.device)?,
                    _ => {
                        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                        Tensor::from_vec(values, var.shape(), &self.device)?
                    }
                };
                Ok(tensor)
            })
            .collect()
    }

    /// Sets θ, rounded to the model's dtype.
    ///
    /// # Errors
    /// A wrong length or entries that are not finite; the model is then unchanged.
    pub fn set_flat(&self, theta: &[f64]) -> Result<()> {
        let tensors = self.unflatten(theta)?;
        self.set_tensors(&tensors)
    }

    /// Writes parameters and running statistics under their names to a file: in PyTorch's format if the path ends in `.pth`
    /// or `.pt`, as `.npz` if it ends so, and otherwise as safetensors. PyTorch reads a `.pth` file by `torch.load(path, weights_only=True)`, as a state
    /// dict. The write is atomic, as by [`write_atomically`](crate::files::write_atomically).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("model.pth");
    /// let [a, b] = [0, 1].map(|seed| Mlp::new(&[2, 3, 1], Activation::Tanh, seed, &Device::Cpu));
    /// let (a, b) = (a?, b?);
    /// a.parameters().save(&path)?;
    /// b.parameters().load(&path)?;
    /// assert_eq!(a.parameters().to_flat()?, b.parameters().to_flat()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A path that cannot be written to.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let tensors = self.all();
        let tensors = tensors.map(|(name, var)| (name.clone(), var.as_detached_tensor()));
        let advice = "Give a path in an existing, writable directory with free space";
        write_tensors(path.as_ref(), advice, tensors)
    }

    pub(crate) fn set_tensors(&self, tensors: &[Tensor]) -> Result<()> {
        for ((_, var), tensor) in self.named.iter().zip(tensors) {
            var.set(tensor)?;
        }
        Ok(())
    }

    /// Machine epsilon of the parameters' dtype.
    pub(crate) fn epsilon(&self) -> f64 {
        epsilon_of(self.dtype())
    }

    /// Returns an error if a vector is not in θ-space.
    pub(crate) fn check_vector(&self, vector: &[f64], what: &str) -> Result<()> {
        if vector.len() != self.len {
            return Err(Error::invalid(format!(
                "the {what} has {} but the model has {}",
                counted(vector.len(), "entry"),
                counted(self.len, "parameter")
            )));
        }
        check_finite(vector, &format!("the {what}"))
    }
}

fn append(named: &[(String, Var)], flat: &mut Vec<f64>) -> Result<()> {
    for (_, var) in named {
        append_entries(var, flat)?;
    }
    Ok(())
}

fn sort(named: &mut [(String, Var)]) {
    named.sort_by(|a, b| a.0.cmp(&b.0));
}

fn names(named: &[(String, Var)]) -> Vec<String> {
    named.iter().map(|(name, _)| name.clone()).collect()
}

/// A key that sorts names with numbers by their values: `layers.2` before `layers.10`.
fn natural_key(name: &str) -> Vec<(u64, &str)> {
    let parts = name.split('.');
    parts
        .map(|part| part.parse().map_or((u64::MAX, part), |number| (number, "")))
        .collect()
}

/// Total number of entries.
fn count<'a>(named: impl Iterator<Item = &'a (String, Var)>) -> usize {
    named.map(|(_, var)| var.elem_count()).sum()
}

fn find<'a>(named: &'a [(String, Var)], name: &str, what: &str) -> Result<&'a Var> {
    let found = named.iter().find(|(n, _)| n == name);
    found.map(|(_, var)| var).ok_or_else(|| {
        let names: Vec<_> = named.iter().map(|(n, _)| n.as_str()).collect();
        let there = match names[..] {
            [] => "none".to_owned(),
            _ => names.join(", "),
        };
        Error::invalid(format!("no {what} is called `{name}`: there are {there}"))
    })
}

/// Machine epsilon of a floating-point dtype.
pub(crate) fn epsilon_of(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    }
}

/// The variables of a `VarMap`; `running_mean` and `running_var` of batch normalisation become the statistics.
impl TryFrom<&VarMap> for Parameters {
    type Error = Error;

    fn try_from(map: &VarMap) -> Result<Self> {
        let data = map.data().lock().map_err(|_| {
            Error::invalid("the VarMap's lock is poisoned: a thread panicked while it held it")
        })?;
        let mut all: Vec<_> = data.iter().collect();
        all.sort_by_key(|(name, _)| natural_key(name));
        let named = all
            .into_iter()
            .map(|(name, var)| (name.clone(), var.clone()));
        let (statistics, named): (Vec<_>, _) = named
            .partition(|(name, _)| name.ends_with("running_mean") || name.ends_with("running_var"));
        Self::new(named)?.with_statistics(statistics)
    }
}

impl From<&Parameters> for Parameters {
    fn from(parameters: &Parameters) -> Self {
        parameters.clone()
    }
}
