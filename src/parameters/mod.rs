//! [`Parameters`]: a model's variables as one flat vector θ.

mod restore;

pub(crate) use restore::Restore;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;

use crate::error::{Error, Result, check_finite, counted};
use crate::files::read_tensors;
use crate::files::write_tensors;

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
    dtype: DType,
    device: Device,
    len: usize,
}

impl Parameters {
    /// Parameters from names and variables, in any order.
    ///
    /// # Errors
    /// No variables; a duplicate name or variable; mixed dtypes or devices; a dtype other than `f32` and `f64`.
    pub fn new(named: impl IntoIterator<Item = (String, Var)>) -> Result<Self> {
        let named = sorted(named);
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
        let statistics = sorted(statistics);
        let parameters = Self { statistics, ..self };
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
    fn all(&self) -> impl Iterator<Item = &(String, Var)> {
        self.named.iter().chain(&self.statistics)
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
        self.flatten(self.named.iter().map(|(_, var)| var.as_tensor()))
    }

    /// Length of the vector of θ followed by all statistics.
    pub(crate) fn len_with_statistics(&self) -> usize {
        count(self.all())
    }

    /// All running statistics in their order, on the host.
    pub(crate) fn flat_statistics(&self) -> Result<Vec<f64>> {
        self.flatten(self.statistics.iter().map(|(_, var)| var.as_tensor()))
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
        Self::new(copies(&self.named)?)?.with_statistics(copies(&self.statistics)?)
    }

    /// Concatenates tensors into one vector.
    pub(crate) fn flatten<'a>(
        &self,
        tensors: impl Iterator<Item = &'a Tensor>,
    ) -> Result<Vec<f64>> {
        let mut flat = Vec::with_capacity(self.len);
        for tensor in tensors {
            let host = tensor.flatten_all()?.to_dtype(DType::F64)?;
            flat.extend(host.to_vec1::<f64>()?);
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

    /// Writes parameters and running statistics to a safetensors file, under their names. The write is atomic, as by
    /// [`write_atomically`](crate::files::write_atomically).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("model.safetensors");
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

    /// Sets parameters and running statistics to those of a safetensors file with the same names and shapes, in any
    /// floating-point dtype.
    ///
    /// All names in the file may share a prefix, such as the `module.` and `_orig_mod.` of PyTorch's wrappers. Batch
    /// normalisation's `num_batches_tracked` is ignored.
    ///
    /// # Errors
    /// A file that is missing, damaged or from another model, or numbers that are not finite; the model is then
    /// unchanged.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let wrong = |problem: String| {
            let advice = "Give a safetensors file saved from this model";
            Error::file(path, problem, advice)
        };
        let mut found = read_tensors(path, &self.device)
            .map_err(|e| wrong(format!("cannot be read: {e}")).caused_by(e))?;
        found.retain(|name, _| name.rsplit('.').next() != Some("num_batches_tracked"));
        let prefix = self.name_prefix(&found);
        let (mut ours, mut missing) = (Vec::new(), None);
        for (name, var) in self.all() {
            match found.remove(&format!("{prefix}{name}")) {
                Some(tensor) => ours.push((name, tensor, var)),
                None => missing = missing.or(Some(name)),
            }
        }
        let missing = missing.map(|name| format!("no tensor `{name}`"));
        let more =
            list(found.into_keys()).map(|names| format!("{names}, which the model does not have"));
        if missing.is_some() || more.is_some() {
            let problems: Vec<_> = missing.into_iter().chain(more).collect();
            return Err(wrong(format!("has {}", problems.join(", and "))));
        }
        let tensors = ours
            .iter()
            .map(|(name, tensor, var)| fitting(name, tensor, var));
        let tensors: Vec<Tensor> = tensors
            .collect::<std::result::Result<_, _>>()
            .map_err(wrong)?;
        for ((_, var), tensor) in self.all().zip(&tensors) {
            var.set(tensor)?;
        }
        Ok(())
    }

    /// The common prefix of the model's names in the file, if there is one.
    fn name_prefix(&self, found: &HashMap<String, Tensor>) -> String {
        let first = &self.named[0].0;
        let prefixes = found.keys().filter_map(|name| name.strip_suffix(first));
        let is_common = |prefix: &&str| {
            let mut names = self.all().map(|(name, _)| format!("{prefix}{name}"));
            names.all(|name| found.contains_key(&name))
        };
        // The shortest prefix, so that it does not depend on the order of the names.
        let prefix = prefixes.filter(is_common).min_by_key(|prefix| prefix.len());
        prefix.unwrap_or_default().to_owned()
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

/// A file's tensor in the dtype of its variable, or the reason why it does not fit.
fn fitting(name: &str, tensor: &Tensor, var: &Var) -> std::result::Result<Tensor, String> {
    if !tensor.dtype().is_float() {
        return Err(format!(
            "has a tensor `{name}` of {:?}, which cannot hold weights: convert it to a floating-point type",
            tensor.dtype()
        ));
    }
    if tensor.shape() != var.shape() {
        let hint = match *tensor.dims() {
            [rows, columns] if var.dims() == [columns, rows] => "; transpose it",
            _ => "",
        };
        return Err(format!(
            "has a tensor `{name}` of shape {:?}, where the model's is {:?}{hint}",
            tensor.dims(),
            var.dims()
        ));
    }
    let convert = || -> candle_core::Result<(Tensor, Vec<f64>)> {
        let fitting = tensor.to_dtype(var.dtype())?;
        let numbers = fitting.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        Ok((fitting, numbers))
    };
    let (fitting, numbers) = convert().map_err(|e| Error::from(e).to_string())?;
    match numbers.iter().position(|number| !number.is_finite()) {
        None => Ok(fitting),
        Some(at) => Err(format!(
            "has a tensor `{name}` that is not finite: entry {at} of {} is {}",
            numbers.len(),
            numbers[at]
        )),
    }
}

/// Lists up to 5 tensor names for a message; `None` if there are none.
fn list(names: impl Iterator<Item = String>) -> Option<String> {
    const MOST: usize = 5;
    let mut names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    let what = if names.len() == 1 {
        "a tensor"
    } else {
        "tensors"
    };
    let rest = match more {
        0 => String::new(),
        _ => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| format!("{what} {}{rest}", names.join(", ")))
}

fn sorted(named: impl IntoIterator<Item = (String, Var)>) -> Vec<(String, Var)> {
    let mut named: Vec<_> = named.into_iter().collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
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
        let named = data.iter().map(|(name, var)| (name.clone(), var.clone()));
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
