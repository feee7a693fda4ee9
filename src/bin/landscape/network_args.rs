//! Flags for the network, its data and the curvature matrix.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use clap::{ArgAction, Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::data::SampleSource;
use loss_landscape::import::Onnx;
use loss_landscape::model::{Design, cuda_device};
use loss_landscape::prelude::*;
use loss_landscape::serde::{Serialize, Serializer};

use crate::dataset::{Data, DatasetArgs, Needs, loaded};
use crate::limits::at_least;
use crate::network::{Network, model_name};
use crate::path_args::path;
use crate::weight_args::{WEIGHTS, WeightArgs};
use crate::{Ignored, mpi_context};

/// The network and its data.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct NetworkArgs {
    /// Model architecture, or the path of an ONNX file, whose weights are the initial ones
    #[arg(long, value_parser = model_name(), default_value = "mlp")]
    pub model: ModelName,
    /// Initialisers of an ONNX file that are parameters: patterns separated by commas, such as head,*.bias [default: all that are
    /// trained; see `landscape inspect`]
    #[arg(long, value_name = "GLOB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    /// Layer widths of `mlp`, input first [default: inputs,128,128,classes]
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
    /// Activation function [default: sigmoid for `mlp`, tanh for `cnn`, gelu for `gpt` and `vit`, relu for others]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<ActivationName>,
    /// Normalisation layer after each hidden layer, not for `mlp`, `gpt` and `vit` [default: group for ResNets and DenseNet, none for others]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<NormName>,
    /// Remove the shortcuts of residual blocks and the concatenations of dense blocks
    #[arg(long, num_args = 0..=1, value_name = "BOOL", require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set)]
    pub no_shortcuts: bool,
    #[command(flatten)]
    #[serde(flatten)]
    pub dataset: DatasetArgs,
    /// Device; `cuda` needs a build with the feature `cuda` (see environment/cuda.sh)
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceName,
}

/// A network with given weights, and its objective.
#[derive(Args)]
pub struct PointArgs {
    /// Weights: .safetensors (or the index.json of shards), .npz, .pth or .pt, with names such as layers.0.weight (outputs ×
    /// inputs), those of nn.Sequential, or torchvision's of ResNets [default: random weights with seed 0]
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub weights: Option<PathBuf>,
    #[command(flatten)]
    pub setting: SettingArgs,
}

/// A network, its samples and numerical settings.
#[derive(Args)]
pub struct SettingArgs {
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    weight_names: WeightArgs,
    /// Use the first N training samples [default: 10000, or all samples if fewer]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Floating-point type of the computation
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: TypeName,
    /// Compute derivatives with candle's graph instead of hand-derived rules
    #[arg(long)]
    pub autograd: bool,
    /// Memory for the samples and for the cached forward pass, in MiB each: a larger .npz or .safetensors file or IDX set is read in
    /// parts, and what is not cached is recomputed in each product [default: half of the free memory for samples, 4096 for the forward pass]
    #[arg(long, value_name = "MIB")]
    memory: Option<usize>,
}

/// Number of training samples that a command uses by default.
const USUAL_SAMPLES: usize = 10_000;

/// A perceptron of any widths, an architecture of the zoo, or an ONNX file.
#[derive(Clone, Debug)]
pub enum ModelName {
    Mlp,
    Zoo(Architecture),
    Onnx(PathBuf),
}

impl ValueEnum for ModelName {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [ModelName; 11] = [
            ModelName::Mlp,
            ModelName::Zoo(Architecture::Shallow),
            ModelName::Zoo(Architecture::Deep),
            ModelName::Zoo(Architecture::Residual),
            ModelName::Zoo(Architecture::Dense),
            ModelName::Zoo(Architecture::Cnn),
            ModelName::Zoo(Architecture::ResNet20),
            ModelName::Zoo(Architecture::ResNet18),
            ModelName::Zoo(Architecture::DenseNet),
            ModelName::Zoo(Architecture::GPT),
            ModelName::Zoo(Architecture::VIT),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Mlp => ("mlp", "Multilayer perceptron, widths from --layers"),
            Self::Zoo(architecture) => (architecture.name(), architecture.summary()),
            Self::Onnx(_) => return None,
        };
        Some(PossibleValue::new(name).help(help))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub enum ActivationName {
    Sigmoid,
    Tanh,
    Relu,
    Gelu,
    Softplus,
    GeluTanh,
    Silu,
    Relu6,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "lowercase")]
pub enum NormName {
    /// No normalisation
    None,
    /// Group normalisation with 8 groups of channels (DenseNet: 4)
    Group,
    /// Batch normalisation: batch statistics in training, running statistics in analysis
    Batch,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "lowercase")]
pub enum DeviceName {
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum TypeName {
    F32,
    F64,
}

/// Curvature matrix.
#[derive(Clone, Copy, ValueEnum)]
pub enum OperatorName {
    /// Hessian
    Hessian,
    /// Gauss–Newton matrix
    Ggn,
    /// Fisher information matrix
    Fisher,
}

impl NetworkArgs {
    pub fn ignored(&self) -> Ignored {
        let mut ignored: Ignored = Vec::new();
        match self.model {
            ModelName::Mlp => {}
            ModelName::Zoo(_) => {
                ignored.push((&["layers"], "only `mlp` has configurable widths"));
            }
            ModelName::Onnx(_) => ignored.push((
                &["layers", "activation", "norm", "no-shortcuts"],
                "the ONNX file states the network",
            )),
        }
        if !matches!(self.model, ModelName::Onnx(_)) {
            ignored.push((&["parameters"], "only ONNX files have initialisers"));
        }
        ignored.extend(self.dataset.ignored(self.reads_text()));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        self.dataset.check(&self.model.name(), self.reads_text())
    }

    /// Whether samples are sequences of characters.
    pub fn reads_text(&self) -> bool {
        match self.model {
            ModelName::Onnx(_) => self.dataset.is_text(),
            _ => matches!(self.model, ModelName::Zoo(Architecture::Gpt { .. })),
        }
    }

    /// The samples, in the type of their files. They are loaded once.
    fn data(&self, needs: Needs) -> Result<Data, Error> {
        if let Some(data) = loaded() {
            return Ok(data.clone());
        }
        let reads_text = self.reads_text();
        let tokens = match &self.model {
            ModelName::Onnx(path) => Onnx::file_reads_tokens(path)?,
            _ => reads_text,
        };
        self.dataset
            .load(reads_text, tokens, &self.device()?, needs)
    }

    /// The samples in the type in which models are trained.
    pub fn training_data(&self, needs: Needs) -> Result<Data, Error> {
        self.data(needs)?.in_f32()
    }

    fn device(&self) -> Result<Device, Error> {
        match self.device {
            DeviceName::Cpu => Ok(Device::Cpu),
            DeviceName::Cuda => cuda_device()
                .map_err(|problem| Error::Invalid(format!("{problem}; or use --device cpu"))),
        }
    }

    /// A network for the samples.
    pub fn model(&self, seed: u64, needs: Needs) -> Result<Network, Error> {
        let (data, device) = (self.data(needs)?, self.device()?);
        match &self.model {
            ModelName::Onnx(path) => {
                Network::from_onnx(path, &data.shape, self.parameters.as_deref(), &device)
            }
            ModelName::Mlp => {
                let perceptron = self.perceptron(&data, seed, &device)?;
                Ok(Network::Layered((&perceptron).into()))
            }
            ModelName::Zoo(architecture) => {
                let design = self.design(*architecture, &data);
                let network = design.build(&data.shape, data.outputs, seed, &device)?;
                Ok(Network::Layered(network))
            }
        }
    }

    fn activation(&self) -> Option<Activation> {
        self.activation.map(|name| match name {
            ActivationName::Sigmoid => Activation::Sigmoid,
            ActivationName::Tanh => Activation::Tanh,
            ActivationName::Relu => Activation::Relu,
            ActivationName::Gelu => Activation::Gelu,
            ActivationName::Softplus => Activation::Softplus,
            ActivationName::GeluTanh => Activation::GeluTanh,
            ActivationName::Silu => Activation::Silu,
            ActivationName::Relu6 => Activation::Relu6,
        })
    }

    fn perceptron(&self, data: &Data, seed: u64, device: &Device) -> Result<Mlp, Error> {
        if self.norm.is_some() || self.no_shortcuts {
            return Err(Error::Invalid(
                "--norm and --no-shortcuts do not apply to `mlp`: choose another --model".into(),
            ));
        }
        let usual = || vec![data.shape.iter().product(), 128, 128, data.outputs];
        let widths = self.layers.clone().unwrap_or_else(usual);
        let last = widths.iter().skip(1).last();
        // One output is enough for binary labels.
        if let Some(last) = last.filter(|last| **last > data.outputs) {
            let advice = match self.dataset.takes_classes(self.reads_text()) {
                true => format!("end it with {}, or add --classes {last}", data.outputs),
                false => format!("end it with {}", data.outputs),
            };
            return Err(Error::Invalid(format!(
                "--layers ends with {last} outputs, but the dataset has {}: {advice}",
                data.describe_outputs()
            )));
        }
        let activation = self.activation().unwrap_or(Activation::Sigmoid);
        Mlp::new(&widths, activation, seed, device)
    }

    /// The architecture with the activation, normalisation and shortcuts of the flags.
    fn design(&self, mut architecture: Architecture, data: &Data) -> Design {
        if let Architecture::Gpt { context, .. } = &mut architecture {
            *context = data.shape[0];
        }
        let mut design = architecture.design();
        design.activation = self.activation().unwrap_or(design.activation);
        design.normalization = match self.norm {
            None => design.normalization,
            Some(NormName::None) => Norm::None,
            Some(NormName::Batch) => Norm::Batch,
            Some(NormName::Group) if architecture == Architecture::DenseNet => Norm::Group(4),
            Some(NormName::Group) => Norm::Group(8),
        };
        design.shortcuts = !self.no_shortcuts;
        design
    }
}

impl Serialize for ModelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl ModelName {
    fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Mlp => "mlp".into(),
            Self::Zoo(architecture) => architecture.name().into(),
            Self::Onnx(path) => path.to_string_lossy(),
        }
    }
}

impl PointArgs {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.setting.ignored();
        if self.weights.is_none() {
            ignored.push((&WEIGHTS, "it needs --weights"));
        }
        ignored
    }

    pub fn objective(&self) -> Result<Objective, Error> {
        let needs = self.setting.needs(true);
        let model = self.setting.model(self.weights.as_deref(), needs)?;
        self.setting.objective(&model, needs)
    }

    /// The objective and the test samples, all in memory.
    pub fn with_test_samples(&self) -> Result<(Objective, Dataset), Error> {
        let needs = Needs {
            test: true,
            ..self.setting.needs(false)
        };
        let model = self.setting.model(self.weights.as_deref(), needs)?;
        let objective = self.setting.objective(&model, needs)?;
        let test = self.setting.network.data(needs)?.test;
        Ok((objective, test.to_dtype(self.setting.dtype())?))
    }

    /// The objective, with its samples split across MPI ranks.
    pub fn distributed(&self) -> Result<Objective, Error> {
        let objective = self.objective()?;
        match mpi_context::ranks() {
            Some(_) if objective.samples() > objective.data().len() => Err(Error::Invalid(
                "samples that are read in parts cannot be divided among ranks: use fewer with --samples, or --divide vectors for \
                 spectrum, density and trace"
                    .into(),
            )),
            Some(ranks) => objective.with_ranks(ranks),
            None => Ok(objective),
        }
    }
}

impl SettingArgs {
    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "samples", self.samples.unwrap_or(1))?;
        self.network.check()
    }

    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.network.ignored();
        let dataset = &self.network.dataset;
        if self.autograd && !dataset.may_be_in_parts(self.network.reads_text()) {
            ignored.push((
                &["memory"],
                "candle's graph caches nothing between products",
            ));
        }
        ignored
    }

    /// What the samples are needed for. Some commands can read them in parts.
    pub fn needs(&self, in_parts: bool) -> Needs {
        let memory = match (in_parts, self.memory) {
            (true, Some(memory)) => memory.saturating_mul(1 << 20) as f64,
            _ => f64::INFINITY,
        };
        Needs {
            samples: Some(self.samples.unwrap_or(USUAL_SAMPLES)),
            has_samples_flag: true,
            test: false,
            in_parts,
            memory,
            dtype: self.dtype(),
        }
    }

    pub fn model(&self, weights: Option<&Path>, needs: Needs) -> Result<Network, Error> {
        let model = self.network.model(0, needs)?.to_dtype(self.dtype())?;
        if let Some(path) = weights {
            self.weight_names.load(model.parameters(), path)?;
        }
        Ok(model)
    }

    pub fn objective(&self, model: &Network, needs: Needs) -> Result<Objective, Error> {
        let data = self.network.data(needs)?;
        let objective = match &data.parts {
            Some(parts) => {
                let parts = parts.first(self.samples.unwrap_or(parts.len()))?;
                let size = data.train.len();
                Objective::of(model, &data.train, data.loss())?.with_source(parts, size)?
            }
            None => {
                let samples = self.samples.unwrap_or(data.train.len().min(USUAL_SAMPLES));
                let train = data.train.first(samples)?.to_dtype(self.dtype())?;
                Objective::of(model, &train, data.loss())?
            }
        };
        let objective = match self.memory {
            Some(memory) => objective.with_memory(memory.saturating_mul(1 << 20)),
            None => objective,
        };
        Ok(if self.autograd {
            objective.by_autograd()
        } else {
            objective
        })
    }

    fn dtype(&self) -> DType {
        match self.dtype {
            TypeName::F32 => DType::F32,
            TypeName::F64 => DType::F64,
        }
    }
}
