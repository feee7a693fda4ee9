//! [`Onnx`]: a model from an ONNX file.
//!
//! [`read`](read::read) turns the file into a [`Graph`], [`assign`](parameters::assign) finds its parameters, and [`fold`](fold::fold)
//! computes its constants and shapes. Where [`from_graph`](layers::from_graph) recognises all of its nodes, derivatives are
//! hand-derived; otherwise [`run`](evaluate::run) builds candle's graph.

mod batch;
mod evaluate;
mod fold;
mod functions;
mod graph;
mod layers;
mod messages;
mod operators;
mod origin;
mod parameters;
mod read;
mod sequences;
mod summary;
mod tensors;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Module, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use self::evaluate::{Mode, run};
use self::graph::{Graph, Kind, Value};
use self::layers::Mapped;
use crate::error::{Error, Result};
use crate::files;
use crate::layers::{self as kinds, Flatten, LayerKind, Pass, Shape, Unflatten};
use crate::model::{Model, Parameters};
pub use summary::{OnnxParameter, OnnxSummary};

/// A model from an ONNX file, such as `torch.onnx.export` writes: its floating initialisers are the parameters.
///
/// Its derivatives are hand-derived where its nodes are recognised as [layers](crate::layers), and computed through candle's graph
/// otherwise; [`Onnx::rules`] says why. Parameters have the names and shapes of PyTorch's modules in the first case, and those of the
/// file in the second. The running mean and variance of batch normalisation are
/// [statistics](Parameters::statistics). A batch size that is fixed in the file becomes variable.
///
/// Cloning shares the parameters.
///
/// ```
/// use loss_landscape::import::Onnx;
/// use loss_landscape::prelude::*;
///
/// // A perceptron of widths 12, 24, 16 and 5, exported by PyTorch.
/// let model = Onnx::load("tests/onnx/mlp.onnx", &Device::Cpu)?;
/// println!("{}", model.summary());
/// let x = Tensor::ones((4, 12), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&x)?.dims(), [4, 5]);
///
/// let labels = Tensor::new(&[0u32, 1, 2, 3], &Device::Cpu)?;
/// let data = Dataset::classification(&x, &labels)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// assert_eq!(objective.dim(), 12 * 24 + 24 + 24 * 16 + 16 + 16 * 5 + 5);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Onnx {
    graph: Arc<Graph>,
    /// Constants in the dtype and on the device of the parameters.
    constants: Arc<HashMap<String, Tensor>>,
    layers: std::result::Result<Arc<Vec<LayerKind>>, Arc<str>>,
    /// Names of the parameters that hold the values of each weight of the file.
    names: Arc<BTreeMap<String, Vec<String>>>,
    parameters: Parameters,
}

/// Settings of [`Onnx::load_with`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OnnxSettings {
    /// Shape of a sample, without the batch axis, for a file that leaves axes open.
    pub sample_shape: Option<Vec<usize>>,
    /// Patterns of the initialisers that are parameters, separated by commas; all by default. A pattern matches a name, or its start up
    /// to a dot; `*` stands for any characters.
    pub parameters: Option<String>,
}

impl OnnxSettings {
    /// Sets the shape of a sample, without the batch axis.
    #[must_use]
    pub fn with_sample_shape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.sample_shape = Some(shape.into());
        self
    }

    /// Narrows the parameters to the initialisers that match one of these patterns, separated by commas. The others are constants.
    #[must_use]
    pub fn with_parameters(mut self, patterns: impl Into<String>) -> Self {
        self.parameters = Some(patterns.into());
        self
    }
}

/// Largest number of entries of a sample, and of a batch of fixed size. Sizes in a damaged file are arbitrary.
const LARGEST: [usize; 2] = [1 << 24, 1 << 26];

const ADVICE: &str = "docs/models.md lists what can be read, and how to export it";

impl Onnx {
    /// Reads a model with its weights. Tensors in other files must be in the directory of `path`.
    ///
    /// # Errors
    /// A file that is missing or damaged; operators that are not supported, with the name of the node; several inputs; axes of a sample
    /// whose size the file leaves open.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::load_with(path, &OnnxSettings::default(), device)
    }

    /// [`Onnx::load`] with settings.
    ///
    /// # Errors
    /// As [`Onnx::load`]; a sample shape that contradicts the file; a pattern that matches no parameter.
    pub fn load_with(
        path: impl AsRef<Path>,
        settings: &OnnxSettings,
        device: &Device,
    ) -> Result<Self> {
        let path = path.as_ref();
        let (bytes, directory) = (bytes(path)?, directory(path));
        let built = catch_unwind(AssertUnwindSafe(|| {
            Self::build(bytes, directory, settings, device)
        }));
        let built = built.unwrap_or_else(|_| {
            Err(Error::invalid(
                "has sizes that the computation cannot handle",
            ))
        });
        built.map_err(|error| match error {
            Error::Interrupted => Error::Interrupted,
            other => Error::file(path, other, ADVICE),
        })
    }

    fn build(
        bytes: Vec<u8>,
        directory: &Path,
        settings: &OnnxSettings,
        device: &Device,
    ) -> Result<Self> {
        let mut graph = read::read(bytes, directory).map_err(Error::Invalid)?;
        let patterns = settings.parameters.as_deref().map(|patterns| {
            let patterns = patterns.split(',').map(|pattern| pattern.trim().to_owned());
            patterns.collect::<Vec<_>>()
        });
        let (fixed, sample) = sample_shape(&graph, settings.sample_shape.as_deref())?;
        parameters::assign(&mut graph, patterns.as_deref()).map_err(Error::Invalid)?;
        fold::fold(&mut graph, &sample, fixed)?;
        let sizes = sample.iter().map(|size| Some(*size));
        graph.inputs[0].dims = Some(std::iter::once(None).chain(sizes).collect());
        let graph = Arc::new(graph);
        let by_graph = Self::by_graph(graph.clone(), Arc::from(""), device)?;
        match layers::from_graph(&graph) {
            Err(reason) => Ok(Self {
                layers: Err(reason.into()),
                ..by_graph
            }),
            Ok(mapped) => by_graph.with_layers(&mapped, device),
        }
    }

    /// The model whose parameters are the file's weights.
    fn by_graph(graph: Arc<Graph>, reason: Arc<str>, device: &Device) -> Result<Self> {
        let vars = |tensors: &BTreeMap<String, Tensor>| {
            let vars = tensors
                .iter()
                .map(|(name, tensor)| Ok((name.clone(), variable(tensor, device)?)));
            vars.collect::<Result<Vec<_>>>()
        };
        let parameters =
            Parameters::new(vars(&graph.weights)?)?.with_statistics(vars(&graph.statistics)?)?;
        let names = graph
            .weights
            .keys()
            .map(|name| (name.clone(), vec![name.clone()]));
        Ok(Self {
            constants: Arc::new(constants(&graph, fold::dtype(&graph), device)?),
            layers: Err(reason),
            names: Arc::new(names.collect()),
            graph,
            parameters,
        })
    }

    /// The model whose parameters are those of the layers.
    fn with_layers(&self, mapped: &Mapped, device: &Device) -> Result<Self> {
        let graph = &self.graph;
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut vars = Vec::new();
        for (name, parameter) in &mapped.parameters {
            names
                .entry(parameter.weight.clone())
                .or_default()
                .push(name.clone());
            vars.push((name.clone(), variable(&parameter.tensor(graph)?, device)?));
        }
        let statistics = mapped
            .statistics
            .iter()
            .filter_map(|(ours, theirs)| Some((ours, graph.statistics.get(theirs)?)));
        let statistics =
            statistics.map(|(name, tensor)| Ok((name.clone(), variable(tensor, device)?)));
        let statistics = statistics.collect::<Result<Vec<_>>>()?;
        // Inputs with another shape and as many numbers are reshaped.
        let sample = self.sample_shape();
        let first = match sample.len() {
            1 => Flatten.into(),
            _ => Unflatten(sample).into(),
        };
        Ok(Self {
            layers: Ok(Arc::new([vec![first], mapped.layers.clone()].concat())),
            names: Arc::new(names),
            parameters: Parameters::new(vars)?.with_statistics(statistics)?,
            ..self.clone()
        })
    }

    /// A copy in another floating-point dtype, with its own parameters and running statistics.
    ///
    /// # Errors
    /// A dtype other than `f32` and `f64`.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        Ok(Self {
            parameters: self.parameters.to_dtype(dtype)?,
            constants: Arc::new(constants(&self.graph, dtype, self.parameters.device())?),
            ..self.clone()
        })
    }

    /// The shape of a sample, without the batch axis. Inputs of another shape with as many numbers are reshaped.
    pub fn sample_shape(&self) -> Vec<usize> {
        let dims = self.graph.inputs[0].dims.iter().flatten().skip(1);
        dims.map(|size| size.unwrap_or(1)).collect()
    }

    /// Whether the model in a file takes tokens; see [`Onnx::reads_tokens`]. Unlike [`Onnx::load`], it needs no shape of a sample.
    ///
    /// ```
    /// use loss_landscape::import::Onnx;
    ///
    /// assert!(!Onnx::file_reads_tokens("tests/onnx/mlp.onnx")?);
    /// # Ok::<(), loss_landscape::Error>(())
    /// ```
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn file_reads_tokens(path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        let graph = read::read(bytes(path)?, directory(path));
        let graph = graph.map_err(|problem| Error::file(path, problem, ADVICE))?;
        Ok(matches!(&graph.inputs[..], [input] if input.kind != Kind::Float))
    }

    /// Whether samples are tokens: integers, as in language models.
    pub fn reads_tokens(&self) -> bool {
        self.graph.inputs[0].kind != Kind::Float
    }

    /// The number of layers with hand-derived rules.
    ///
    /// # Errors
    /// Why derivatives are computed through candle's graph instead: the first node for which there are no rules.
    pub fn rules(&self) -> std::result::Result<usize, String> {
        match &self.layers {
            Ok(layers) => Ok(layers.len()),
            Err(reason) => Err(reason.to_string()),
        }
    }

    /// Inputs, parameters and operators.
    pub fn summary(&self) -> OnnxSummary {
        OnnxSummary::new(self)
    }

    /// Inputs in the shape and the type that the graph takes.
    fn fitted(&self, x: &Tensor) -> Result<Tensor> {
        let sample = self.sample_shape();
        let dims = x.dims().get(1..).unwrap_or_default();
        let count: usize = sample.iter().product();
        if x.rank() == 0 || dims.iter().product::<usize>() != count {
            return Err(Error::invalid(format!(
                "the samples have shape {}, and the model takes samples of shape {}",
                Shape::new(dims),
                Shape::new(sample)
            )));
        }
        let is_integer = x.dtype().is_int();
        if is_integer != self.reads_tokens() {
            let names = ["floating-point numbers", "tokens (integers)"];
            return Err(Error::invalid(format!(
                "the samples are {}, and the model takes {}",
                names[usize::from(is_integer)],
                names[usize::from(self.reads_tokens())]
            )));
        }
        let x = match dims == sample {
            true => x.clone(),
            false => x.reshape([&x.dims()[..1], &sample].concat())?,
        };
        Ok(match self.graph.inputs[0].kind {
            Kind::Float => x,
            Kind::Integer => x.to_device(&Device::Cpu)?.to_dtype(DType::I64)?,
            Kind::Boolean => x.to_device(&Device::Cpu)?.ne(0u32)?,
        })
    }

    fn pass(&self, x: &Tensor, seed: Option<u64>) -> Result<Tensor> {
        let fitted = self.fitted(x)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed.unwrap_or(0));
        if let Ok(layers) = &self.layers {
            let mut pass = match seed {
                None => Pass::Inference,
                Some(_) => Pass::Training(Box::new(rng)),
            };
            // Layers take the samples' own type of tokens.
            let x = if self.reads_tokens() { x } else { &fitted };
            return Ok(kinds::forward(layers, x, &self.parameters, &mut pass)?);
        }
        let parameters = &self.parameters;
        let mode = match seed {
            None => Mode::Inference,
            Some(_) => Mode::Training {
                parameters,
                rng: &mut rng,
            },
        };
        let given = |name: &str| {
            let constant = self.constants.get(name).cloned();
            let weight = || parameters.get(name).ok().map(|var| var.as_tensor().clone());
            let statistic = || {
                parameters
                    .statistic(name)
                    .ok()
                    .map(|var| var.as_detached_tensor())
            };
            constant.or_else(weight).or_else(statistic)
        };
        let setting = (parameters.dtype(), parameters.device());
        run(&self.graph, &given, fitted, setting, mode, &mut |_, _| {})
    }
}

/// The content of an ONNX file.
fn bytes(path: &Path) -> Result<Vec<u8>> {
    files::read(
        path,
        "Export a model with torch.onnx.export, or give another path",
    )
}

/// The directory of an ONNX file.
fn directory(path: &Path) -> &Path {
    let parent = path.parent();
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// A variable of its own with these values.
fn variable(tensor: &Tensor, device: &Device) -> Result<Var> {
    Ok(Var::from_tensor(
        &tensor.to_device(device)?.copy()?.detach(),
    )?)
}

/// The constants of a graph: floats in `dtype` on `device`, integers and booleans on the host.
fn constants(graph: &Graph, dtype: DType, device: &Device) -> Result<HashMap<String, Tensor>> {
    let constants = graph.constants.iter().map(|(name, tensor)| {
        let tensor = match Kind::of(tensor) {
            Kind::Float => tensor.to_dtype(dtype)?.to_device(device)?,
            _ => tensor.clone(),
        };
        Ok((name.clone(), tensor))
    });
    constants.collect()
}

/// The fixed batch size of a graph, if it has one, and the shape of a sample.
fn sample_shape(graph: &Graph, given: Option<&[usize]>) -> Result<(Option<usize>, Vec<usize>)> {
    let [input] = &graph.inputs[..] else {
        let names: Vec<_> = graph
            .inputs
            .iter()
            .map(|input| format!("`{}`", input.name))
            .collect();
        return Err(Error::invalid(format!(
            "has {} inputs ({}), and models with one input are supported: export it with the others as constants",
            names.len(),
            names.join(", ")
        )));
    };
    let Value { name, dims, .. } = input;
    let open = |axes: String| {
        Error::invalid(format!(
            "leaves {axes} of its input `{name}` open: give the shape of a sample (OnnxSettings::with_sample_shape)"
        ))
    };
    let Some(dims) = dims else {
        return match given {
            Some(given) => checked(None, given.to_vec()),
            None => Err(open("the shape".into())),
        };
    };
    let Some((batch, sample)) = dims.split_first() else {
        return Err(Error::invalid(format!(
            "has an input `{name}` without a batch axis"
        )));
    };
    let batch = batch.filter(|size| *size > 0);
    let fixed: Option<Vec<usize>> = sample.iter().copied().collect();
    let Some(given) = given else {
        return match fixed {
            Some(fixed) => checked(batch, fixed),
            None => {
                let axes = (1..).zip(sample).filter(|(_, size)| size.is_none());
                let axes: Vec<String> = axes.map(|(i, _)| i.to_string()).collect();
                Err(open(format!("axis {}", axes.join(", "))))
            }
        };
    };
    let count = |sizes: &[usize]| {
        let mut sizes = sizes.iter();
        sizes.try_fold(1usize, |n, size| n.checked_mul(*size))
    };
    let stated: Vec<usize> = sample.iter().flatten().copied().collect();
    // The size of one open axis, if the others leave one.
    let rest = count(given)
        .zip(count(&stated).filter(|n| *n > 0))
        .and_then(|(given, stated)| (given % stated == 0).then(|| given / stated));
    match fixed {
        Some(fixed) if count(&fixed) == count(given) => checked(batch, fixed),
        None if sample.len() == given.len()
            && sample
                .iter()
                .zip(given)
                .all(|(a, b)| a.is_none_or(|a| a == *b)) =>
        {
            checked(batch, given.to_vec())
        }
        None if stated.len() + 1 == sample.len() && rest.is_some() => {
            let sizes = sample.iter().map(|size| size.or(rest).unwrap_or(1));
            checked(batch, sizes.collect())
        }
        _ => {
            let sizes = sample
                .iter()
                .map(|size| size.map_or("?".to_owned(), |size| size.to_string()));
            Err(Error::invalid(format!(
                "takes samples of shape ({}), not {}",
                sizes.collect::<Vec<_>>().join(", "),
                Shape::new(given)
            )))
        }
    }
}

fn checked(batch: Option<usize>, sample: Vec<usize>) -> Result<(Option<usize>, Vec<usize>)> {
    let mut sizes = sample.iter();
    let count = sizes.try_fold(1usize, |n, size| n.checked_mul(*size));
    let fits = count.is_some_and(|count| {
        let all = count.checked_mul(batch.unwrap_or(1));
        (1..=LARGEST[0]).contains(&count) && all.is_some_and(|all| all <= LARGEST[1])
    });
    match fits {
        true => Ok((batch, sample)),
        false => Err(Error::invalid(format!(
            "has samples of the impossible shape {}",
            Shape::new(sample)
        ))),
    }
}

impl Module for Onnx {
    /// Outputs of shape `(n, …)` for inputs of shape `(n, …)`.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.pass(x, None)?)
    }
}

impl Model for Onnx {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn layers(&self) -> Option<Vec<LayerKind>> {
        self.layers.as_ref().ok().map(|layers| layers.to_vec())
    }

    fn without_layers(&self) -> Option<String> {
        self.rules().err()
    }

    fn forward_training(&self, x: &Tensor, seed: u64) -> candle_core::Result<Tensor> {
        Ok(self.pass(x, Some(seed))?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value as Json;

    use super::*;
    use crate::data::Dataset;
    use crate::objective::{Loss, Objective};
    use crate::tensor_functions::entries;

    fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx")
    }

    /// The exports of tests/onnx that can be read.
    fn cases() -> Vec<Json> {
        let text = std::fs::read_to_string(directory().join("cases.json")).unwrap();
        let cases: Vec<Json> = serde_json::from_str(&text).unwrap();
        let supported: Vec<Json> = cases
            .into_iter()
            .filter(|case| case["supported"] == true)
            .collect();
        assert!(supported.len() >= 20);
        supported
    }

    fn name(case: &Json) -> &str {
        case["name"].as_str().unwrap()
    }

    /// The model whose parameters are the file's initialisers.
    fn graph_of(case: &Json) -> Onnx {
        let path = directory().join(format!("{}.onnx", name(case)));
        let model = Onnx::load(path, &Device::Cpu).unwrap_or_else(|e| panic!("{e}"));
        Onnx::by_graph(model.graph.clone(), "".into(), &Device::Cpu).unwrap()
    }

    fn arrays(case: &Json) -> HashMap<String, Tensor> {
        let path = directory().join(format!("{}.npz", name(case)));
        let arrays = files::read_arrays(path, &Device::Cpu).unwrap();
        arrays.into_iter().collect()
    }

    fn inputs(arrays: &HashMap<String, Tensor>) -> Tensor {
        match &arrays["inputs"] {
            tokens if tokens.dtype() == DType::I64 => tokens.to_dtype(DType::U32).unwrap(),
            inputs => inputs.clone(),
        }
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        entries(tensor).unwrap()
    }

    fn assert_close(ours: &[f64], theirs: &[f64], tolerance: f64, what: &str) {
        let size = theirs.iter().fold(1e-3f64, |size, x| size.max(x.abs()));
        let differences = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs() / size);
        let largest = differences.fold(0.0, f64::max);
        assert!(
            ours.len() == theirs.len() && largest <= tolerance,
            "{what}: {largest:.1e}"
        );
    }

    #[test]
    fn outputs_are_those_of_onnxruntime_for_any_batch() {
        for case in cases() {
            let (model, arrays) = (graph_of(&case), arrays(&case));
            let x = inputs(&arrays);
            // Half precision rounds each of onnxruntime's layers.
            let tolerance = if case["dtype"] == "float16" {
                3e-3
            } else {
                1e-5
            };
            let x = if x.dtype().is_float() {
                x.to_dtype(model.parameters().dtype()).unwrap()
            } else {
                x
            };
            let outputs = numbers(&model.forward(&x).unwrap());
            assert_close(
                &outputs,
                &numbers(&arrays["outputs"]),
                tolerance,
                name(&case),
            );
            let first = numbers(&model.forward(&x.narrow(0, 0, 1).unwrap()).unwrap());
            assert_close(
                &first,
                &outputs[..first.len()],
                1e-5,
                &format!("{} alone", name(&case)),
            );
        }
    }

    /// The arrays of PyTorch's parameters as one vector in the order of `model`.
    fn vector(model: &Onnx, case: &Json, arrays: &HashMap<String, Tensor>, kind: &str) -> Vec<f64> {
        let mut flat = vec![f64::NAN; model.parameters().len()];
        for (name, parameter) in case["parameters"].as_object().unwrap() {
            for place in parameter["initializers"].as_array().unwrap() {
                let Ok(range) = model.parameters().range(place["name"].as_str().unwrap()) else {
                    continue;
                };
                let array = &arrays[&format!("{kind}/{name}")];
                let array = if place["transposed"] == true {
                    array.t().unwrap()
                } else {
                    array.clone()
                };
                flat[range].copy_from_slice(&numbers(&array));
            }
        }
        assert!(
            flat.iter().all(|x| x.is_finite()),
            "{}: more parameters than PyTorch",
            name(case)
        );
        flat
    }

    #[test]
    fn gradients_and_products_through_the_graph_are_those_of_pytorch() {
        for case in cases() {
            let (model, arrays) = (graph_of(&case).to_dtype(DType::F64).unwrap(), arrays(&case));
            let x = inputs(&arrays);
            let x = if x.dtype().is_float() {
                x.to_dtype(DType::F64).unwrap()
            } else {
                x
            };
            let data = Dataset::classification(&x, &arrays["targets"]).unwrap();
            let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
            let theirs = |kind: &str| vector(&model, &case, &arrays, kind);
            let gradient = objective.gradient().unwrap();
            assert_close(
                &gradient,
                &theirs("gradient"),
                1e-4,
                &format!("gradient of {}", name(&case)),
            );
            for i in 1..=case["directions"].as_u64().unwrap() {
                let product = objective.hvp(&theirs(&format!("direction{i}"))).unwrap();
                assert_close(
                    &product,
                    &theirs(&format!("product{i}")),
                    1e-4,
                    &format!("product of {}", name(&case)),
                );
            }
        }
    }
}
