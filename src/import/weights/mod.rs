//! Weights of other programs: [`Parameters::load`].

mod mismatch;
mod schemes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use self::mismatch::mismatch;
use crate::error::{Error, Result};
use crate::files::read_arrays;
use crate::parameters::Parameters;
use crate::tensor_functions::entries;

/// How the tensors of a file are matched to a model's parameters, where [`Parameters::load`] does not recognise their names.
///
/// ```
/// use loss_landscape::import::Matching;
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("theirs.npz");
/// // Weights that another program wrote.
/// let theirs = [
///     ("w1", Tensor::ones((3, 2), DType::F32, &Device::Cpu)?),
///     ("b1", Tensor::zeros(3, DType::F32, &Device::Cpu)?),
/// ];
/// Tensor::write_npz(&theirs, &path)?;
///
/// let model = Mlp::new(&[2, 3], Activation::Tanh, 0, &Device::Cpu)?;
/// assert!(model.parameters().load(&path).is_err());
/// let map = [("layers.0.weight", "w1"), ("layers.0.bias", "b1")];
/// model.parameters().load_with(&path, &Matching::default().with_map(map))?;
/// assert_eq!(model.parameters().to_flat()?, [0., 0., 0., 1., 1., 1., 1., 1., 1.]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Matching {
    /// The file's name for each name of the model: of a tensor, or of a module, whose tensors then have the same last parts.
    pub map: BTreeMap<String, String>,
    /// Matches tensors of equal shape in their order, whatever their names.
    pub by_order: bool,
}

impl Matching {
    /// The file's name for each name of the model. An entry `("layers.0", "fc1")` maps `layers.0.weight` to `fc1.weight`, and
    /// all others of this module. Names that are not in the map are the same in the file.
    #[must_use]
    pub fn with_map<A: Into<String>, B: Into<String>>(
        mut self,
        map: impl IntoIterator<Item = (A, B)>,
    ) -> Self {
        self.map = map.into_iter().map(|(a, b)| (a.into(), b.into())).collect();
        self
    }

    /// Matches tensors of equal shape in their order. Where the file's names end as the model's do, such as in `weight` and
    /// `bias`, these ends must agree too. The model's order is that of its layers, with weights before biases.
    #[must_use]
    pub fn with_by_order(mut self, by_order: bool) -> Self {
        self.by_order = by_order;
        self
    }

    /// The file's name for a name of the model, if the map has one.
    fn mapped(&self, name: &str) -> Option<String> {
        let mut module = name;
        loop {
            if let Some(theirs) = self.map.get(module) {
                return Some(format!("{theirs}{}", &name[module.len()..]));
            }
            (module, _) = module.rsplit_once('.')?;
        }
    }

    /// Rejects settings that do not apply to a model.
    fn check(&self, ours: &[Entry]) -> Result<()> {
        if self.by_order && !self.map.is_empty() {
            return Err(Error::invalid(
                "weights are matched by a map or by their order: give one of them",
            ));
        }
        let is_used = |key: &str| {
            let mut names = ours.iter();
            names.any(|ours| {
                let rest = ours.name.strip_prefix(key);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        match self.map.keys().find(|key| !is_used(key)) {
            None => Ok(()),
            Some(key) => {
                let names: Vec<_> = ours.iter().map(|ours| ours.name).collect();
                Err(Error::invalid(format!(
                    "the map of weights has `{key}`, which is not a parameter or module of the model: it has {}",
                    names.join(", ")
                )))
            }
        }
    }
}

impl Parameters {
    /// Sets parameters and running statistics to the tensors of a file: `.safetensors`, also in shards, `.npz`, `.pth` or
    /// `.pt`, as [`read_arrays`](crate::files::read_arrays) reads them, in any floating-point type.
    ///
    /// Names are recognised if they are the model's, if they are the numbers of `nn.Sequential` (`0.weight`, `2.weight`), and
    /// if they are torchvision's of a ResNet or DenseNet. A prefix that all names share, such as PyTorch's `module.` and
    /// `_orig_mod.`, is removed. `num_batches_tracked` is ignored. [`Parameters::load_with`] matches other names.
    ///
    /// # Errors
    /// A file that is missing or damaged; tensors that do not match the parameters one to one, with a table of both; integers;
    /// numbers that are not finite. The model is then unchanged.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<()> {
        self.load_with(path, &Matching::default()).map(drop)
    }

    /// Sets parameters and running statistics as [`Parameters::load`] does, with names matched as given. Returns pairs of the
    /// model's name and the file's.
    ///
    /// # Errors
    /// As [`Parameters::load`]; a map with a name that the model does not have; a map together with matching by order.
    pub fn load_with(
        &self,
        path: impl AsRef<Path>,
        matching: &Matching,
    ) -> Result<Vec<(String, String)>> {
        let path = path.as_ref();
        let mut arrays = read_arrays(path, self.device())?;
        arrays.retain(|(name, _)| last(name) != "num_batches_tracked");
        let theirs: Vec<Entry> = arrays.iter().map(|(name, t)| Entry::new(name, t)).collect();
        let ours: Vec<Entry> = self
            .all()
            .map(|(name, var)| Entry::new(name, var))
            .collect();
        matching.check(&ours)?;

        let pairs = match matching.by_order {
            true => schemes::by_order(&ours, &theirs, &self.modules()),
            false => schemes::by_names(&ours, &theirs, &self.modules(), matching),
        };
        if !fits(&ours, &theirs, &pairs) {
            return Err(mismatch(path, &ours, &theirs, &pairs));
        }
        let pairs: Vec<usize> = pairs.into_iter().flatten().collect();
        let tensors = self.all().zip(&pairs).map(|((_, var), theirs)| {
            let (name, tensor) = &arrays[*theirs];
            converted(path, name, tensor, var)
        });
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        for ((_, var), tensor) in self.all().zip(&tensors) {
            var.set(tensor)?;
        }
        let names = self.all().zip(pairs);
        Ok(names
            .map(|((name, _), pair)| (name.clone(), arrays[pair].0.clone()))
            .collect())
    }
}

/// A tensor's name and shape.
#[derive(Clone, Copy)]
struct Entry<'a> {
    name: &'a str,
    shape: &'a [usize],
}

impl<'a> Entry<'a> {
    fn new(name: &'a str, tensor: &'a Tensor) -> Self {
        Self {
            name,
            shape: tensor.dims(),
        }
    }
}

/// The index of the file's tensor for each of the model's, where there is one.
type Pairs = Vec<Option<usize>>;

/// The last part of a name.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

/// Whether the pairs match all tensors, one to one.
fn is_complete(pairs: &Pairs, theirs: &[Entry]) -> bool {
    let used: BTreeSet<usize> = pairs.iter().flatten().copied().collect();
    used.len() == pairs.len() && used.len() == theirs.len()
}

/// Whether the pairs match all tensors, one to one and with equal shapes.
fn fits(ours: &[Entry], theirs: &[Entry], pairs: &Pairs) -> bool {
    let mut each = ours.iter().zip(pairs);
    is_complete(pairs, theirs)
        && each.all(|(ours, pair)| pair.is_some_and(|pair| theirs[pair].shape == ours.shape))
}

/// The tensor in the type of its variable.
fn converted(path: &Path, name: &str, tensor: &Tensor, var: &Var) -> Result<Tensor> {
    let wrong = |problem: String, advice: &str| {
        Error::file(path, format!("has a tensor `{name}` {problem}"), advice)
    };
    if !tensor.dtype().is_float() {
        return Err(wrong(
            format!("of {:?}, which cannot hold weights", tensor.dtype()),
            "Save it in a floating-point type",
        ));
    }
    let converted = tensor.to_dtype(var.dtype())?;
    let found = entries(&converted)?;
    let Some(at) = found.iter().position(|number| !number.is_finite()) else {
        return Ok(converted);
    };
    let original = entries(tensor)?[at];
    let entry = format!("entry {at} of {} is {original:?}", found.len());
    Err(match original.is_finite() {
        true => wrong(
            format!("with a number too large for {:?}: {entry}", var.dtype()),
            "Use f64 for the model",
        ),
        false => wrong(
            format!("that is not finite: {entry}"),
            "Give weights from before the training diverged",
        ),
    })
}
