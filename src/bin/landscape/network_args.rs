//! Flags for the network, its data and the curvature matrix.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::builder::PossibleValue;
use clap::{ArgAction, Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::data::synthetic::sum_of_two;
use loss_landscape::data::{Cifar10, Text};
use loss_landscape::model::cuda_device;
use loss_landscape::operator::{Distributed, Recorded};
use loss_landscape::prelude::*;
use loss_landscape::serde::{Serialize, Serializer};

use crate::limits::at_least;
use crate::path_args::path;
use crate::{Ignored, config_file, mpi_context, signals};

/// The network and its data.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct NetworkArgs {
    /// Model architecture
    #[arg(long, value_enum, default_value = "mlp")]
    pub model: ModelName,
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
    /// Dataset [default: mnist; for `gpt` shakespeare, or text with --data]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetName>,
    /// Directory of the dataset's files, or the text file [default: the MNIST files of the source directory of this program]
    #[arg(long, value_name = "PATH", value_parser = path())]
    #[serde(skip_serializing_if = "config_file::is_missing_or_not_utf8")]
    pub data: Option<PathBuf>,
    /// Number of characters in a sequence that `gpt` reads [default: 64]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Device; `cuda` needs a build with the feature `cuda` (see environment/cuda.sh)
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceName,
}

/// Training and test samples.
pub struct Data {
    pub train: Dataset,
    pub test: Dataset,
}

/// Number of training samples in the synthetic dataset.
const SYNTHETIC_TRAIN: usize = 800;

/// Largest numbers of training and test sequences of a text. A shorter text has one per position.
const SEQUENCES: [usize; 2] = [10_000, 1_000];

/// Size of the training set. Set when the data is loaded.
pub static TRAINING_SAMPLES: OnceLock<usize> = OnceLock::new();

/// A network with given weights, and its objective.
#[derive(Args)]
pub struct PointArgs {
    /// Weights in safetensors format, with keys such as layers.0.weight (outputs × inputs) and layers.0.bias
    /// [default: random weights with seed 0]
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
    /// Use the first N training samples [default: 10000, or all samples if fewer]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Floating-point type of the computation
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: TypeName,
    /// Compute derivatives with candle's graph instead of hand-derived rules
    #[arg(long)]
    pub autograd: bool,
    /// Memory for the cached forward pass, in MiB; what does not fit is recomputed in each product
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub memory: usize,
}

/// A perceptron of any widths, or an architecture of the zoo.
#[derive(Clone, Copy, Debug)]
pub enum ModelName {
    Mlp,
    Zoo(Architecture),
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
        let help = match self {
            Self::Mlp => "Multilayer perceptron, widths from --layers",
            Self::Zoo(architecture) => architecture.summary(),
        };
        Some(PossibleValue::new(self.name()).help(help))
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
pub enum DatasetName {
    /// MNIST: handwritten digits, 28 × 28
    Mnist,
    /// CIFAR-10: photographs, 3 × 32 × 32; needs --data
    Cifar10,
    /// 800 training and 200 test samples of 20 features; the class depends on two of them
    Synthetic,
    /// Two plays by Shakespeare: 10,000 training and 1,000 test sequences of characters
    Shakespeare,
    /// The UTF-8 text file in --data: at most 10,000 training and 1,000 test sequences of characters
    Text,
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

/// The curvature matrix.
#[derive(Args)]
pub struct MatrixArgs {
    /// Curvature matrix to analyse
    #[arg(long, value_enum, default_value = "hessian")]
    operator: OperatorName,
    /// Checkpoint file for matrix–vector products, 8 bytes per parameter and product; resumes from it if it exists
    #[arg(long, value_name = "FILE", value_parser = path())]
    resume: Option<PathBuf>,
    /// How work is split across MPI ranks
    #[arg(long, value_enum, default_value = "samples")]
    divide: DivideName,
}

/// How work is split across MPI ranks.
#[derive(Clone, Copy, ValueEnum)]
enum DivideName {
    /// Each rank has a part of the samples
    Samples,
    /// Each rank multiplies a part of the vectors of a block, such as probes
    Vectors,
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
        if let ModelName::Zoo(_) = self.model {
            ignored.push((&["layers"], "only `mlp` has configurable widths"));
        }
        if !self.reads_text() {
            ignored.push((&["context"], "only `gpt` reads sequences"));
        }
        match self.dataset() {
            DatasetName::Synthetic => ignored.push((
                &["data"],
                "the synthetic dataset is generated, not read from files",
            )),
            DatasetName::Shakespeare => ignored.push((
                &["data"],
                "the plays are part of this program; use --dataset text for another text",
            )),
            _ => {}
        }
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "context", self.context())?;
        let (model, dataset) = (self.model.name(), self.dataset());
        match (self.reads_text(), dataset.is_text()) {
            (true, false) => Err(Error::Invalid(format!(
                "`{model}` reads text, and dataset `{}` has none: use --dataset shakespeare, or --dataset text with --data",
                dataset.name()
            ))),
            (false, true) => Err(Error::Invalid(format!(
                "`{model}` does not read text, and dataset `{}` is text: use --model gpt or another --dataset",
                dataset.name()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether samples are sequences of characters.
    pub fn reads_text(&self) -> bool {
        matches!(self.model, ModelName::Zoo(Architecture::Gpt { .. }))
    }

    fn dataset(&self) -> DatasetName {
        self.dataset
            .unwrap_or(match (self.reads_text(), &self.data) {
                (true, Some(_)) => DatasetName::Text,
                (true, None) => DatasetName::Shakespeare,
                (false, _) => DatasetName::Mnist,
            })
    }

    fn context(&self) -> usize {
        self.context.unwrap_or(64)
    }

    fn text(&self) -> Result<Text, Error> {
        let text = match (self.dataset(), &self.data) {
            (DatasetName::Text, Some(file)) => Text::load(file)?,
            (DatasetName::Text, None) => {
                return Err(Error::Invalid(
                    "no text is given: add --data FILE, or use --dataset shakespeare".into(),
                ));
            }
            _ => Text::shakespeare()?,
        };
        // The last tenth is for the test, and must hold a sequence and the character after it.
        let least = self.context().saturating_add(1).saturating_mul(10);
        match text.len() >= least {
            true => Ok(text),
            false => Err(Error::Invalid(format!(
                "the text has {} characters, and --context {} needs at least {least}: use a longer text or a smaller --context",
                text.len(),
                self.context()
            ))),
        }
    }

    pub fn data(&self) -> Result<Data, Error> {
        let device = &self.device()?;
        match (self.dataset(), &self.data) {
            (DatasetName::Mnist, dir) => {
                let Mnist { train, test } = match dir {
                    None => Mnist::load(device)?,
                    Some(dir) => Mnist::load_from(dir, device)?,
                };
                Ok(Data { train, test })
            }
            (DatasetName::Cifar10, Some(dir)) => {
                let Cifar10 { train, test } = Cifar10::load_from(dir, device)?;
                Ok(Data { train, test })
            }
            (DatasetName::Cifar10, None) => Err(Error::Invalid(
                "CIFAR-10 is not included: give the directory of its binary version with --data"
                    .into(),
            )),
            (DatasetName::Synthetic, _) => {
                let all = sum_of_two(0, device)?.to_dtype(DType::F32)?;
                let rest: Vec<usize> = (SYNTHETIC_TRAIN..all.len()).collect();
                Ok(Data {
                    train: all.first(SYNTHETIC_TRAIN)?,
                    test: all.select(&rest)?,
                })
            }
            (DatasetName::Shakespeare | DatasetName::Text, _) => {
                let (train, test) = self.text()?.split(0.1)?;
                let windows = |text: &Text, most: usize| {
                    let count = most.min(text.len() - self.context());
                    text.windows(self.context(), count, 0, device)
                };
                Ok(Data {
                    train: windows(&train, SEQUENCES[0])?,
                    test: windows(&test, SEQUENCES[1])?,
                })
            }
        }
    }

    fn device(&self) -> Result<Device, Error> {
        match self.device {
            DeviceName::Cpu => Ok(Device::Cpu),
            DeviceName::Cuda => cuda_device()
                .map_err(|problem| Error::Invalid(format!("{problem}; or use --device cpu"))),
        }
    }

    pub fn model(&self, seed: u64) -> Result<Layered, Error> {
        let activation = self.activation.map(|name| match name {
            ActivationName::Sigmoid => Activation::Sigmoid,
            ActivationName::Tanh => Activation::Tanh,
            ActivationName::Relu => Activation::Relu,
            ActivationName::Gelu => Activation::Gelu,
            ActivationName::Softplus => Activation::Softplus,
            ActivationName::GeluTanh => Activation::GeluTanh,
            ActivationName::Silu => Activation::Silu,
        });
        let device = self.device()?;
        let (shape, classes) = self.shape_and_classes()?;
        match self.model {
            ModelName::Mlp if self.norm.is_some() || self.no_shortcuts => Err(Error::Invalid(
                "--norm and --no-shortcuts do not apply to `mlp`: choose another --model".into(),
            )),
            ModelName::Mlp => {
                let activation = activation.unwrap_or(Activation::Sigmoid);
                let usual = || vec![shape.iter().product(), 128, 128, classes];
                let widths = self.layers.clone().unwrap_or_else(usual);
                // One output is enough for binary labels.
                let most = widths.iter().skip(1).last().filter(|last| **last > classes);
                if let Some(last) = most {
                    return Err(Error::Invalid(format!(
                        "--layers ends with {last} outputs, but the dataset has {classes} classes: end it with {classes}"
                    )));
                }
                Ok((&Mlp::new(&widths, activation, seed, &device)?).into())
            }
            ModelName::Zoo(mut architecture) => {
                if let Architecture::Gpt { context, .. } = &mut architecture {
                    *context = self.context();
                }
                let mut design = architecture.design();
                design.activation = activation.unwrap_or(design.activation);
                design.normalization = match self.norm {
                    None => design.normalization,
                    Some(NormName::None) => Norm::None,
                    Some(NormName::Batch) => Norm::Batch,
                    Some(NormName::Group) if architecture == Architecture::DenseNet => {
                        Norm::Group(4)
                    }
                    Some(NormName::Group) => Norm::Group(8),
                };
                design.shortcuts = !self.no_shortcuts;
                design.build(&shape, classes, seed, &device)
            }
        }
    }

    /// Shape of a sample, and number of classes.
    fn shape_and_classes(&self) -> Result<(Vec<usize>, usize), Error> {
        Ok(match self.dataset() {
            DatasetName::Mnist => (vec![1, 28, 28], 10),
            DatasetName::Cifar10 => (vec![3, 32, 32], 10),
            DatasetName::Synthetic => (vec![20], 2),
            DatasetName::Shakespeare | DatasetName::Text => {
                (vec![self.context()], self.text()?.vocabulary().len())
            }
        })
    }
}

impl DatasetName {
    fn is_text(self) -> bool {
        matches!(self, Self::Shakespeare | Self::Text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::Cifar10 => "cifar10",
            Self::Synthetic => "synthetic",
            Self::Shakespeare => "shakespeare",
            Self::Text => "text",
        }
    }
}

impl Serialize for ModelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl ModelName {
    fn name(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Zoo(architecture) => architecture.name(),
        }
    }
}

impl PointArgs {
    pub fn objective(&self) -> Result<Objective, Error> {
        let model = self.setting.model(self.weights.as_deref())?;
        self.setting.objective(&model)
    }

    /// The objective, with its samples split across MPI ranks.
    pub fn distributed(&self) -> Result<Objective, Error> {
        let objective = self.objective()?;
        match mpi_context::ranks() {
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
        if self.autograd {
            ignored.push((
                &["memory"],
                "candle's graph caches nothing between products",
            ));
        }
        ignored
    }

    pub fn model(&self, weights: Option<&Path>) -> Result<Layered, Error> {
        let model = self.network.model(0)?.to_dtype(self.dtype())?;
        if let Some(path) = weights {
            model.parameters().load(path)?;
        }
        Ok(model)
    }

    pub fn objective(&self, model: &Layered) -> Result<Objective, Error> {
        let data = self.network.data()?.train;
        TRAINING_SAMPLES.get_or_init(|| data.len());
        let samples = self.samples.unwrap_or(data.len().min(10_000));
        let data = data.first(samples)?.to_dtype(self.dtype())?;
        let objective = Objective::of(model, &data, Loss::CrossEntropy)?;
        let objective = objective.with_memory(self.memory.saturating_mul(1 << 20));
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

impl MatrixArgs {
    /// Builds the objective and its curvature matrix.
    pub fn build(&self, point: &PointArgs) -> Result<(Objective, Box<dyn LinearOperator>), Error> {
        let objective = match self.divide {
            DivideName::Samples => point.distributed()?,
            DivideName::Vectors => point.objective()?,
        };
        let operator = self.operator(&objective)?;
        signals::on_interrupt(match &self.resume {
            Some(file) => format!(
                "products are saved in {}: run the same command to resume",
                file.display()
            ),
            None => "nothing is saved; use --resume FILE to save products".to_owned(),
        });
        Ok((objective, operator))
    }

    fn operator(&self, objective: &Objective) -> Result<Box<dyn LinearOperator>, Error> {
        let operator: Box<dyn LinearOperator> = match self.operator {
            OperatorName::Hessian => Box::new(objective.hessian()),
            OperatorName::Ggn => Box::new(objective.gauss_newton()),
            OperatorName::Fisher => Box::new(objective.fisher()),
        };
        let operator = match (self.divide, mpi_context::ranks()) {
            (DivideName::Vectors, Some(ranks)) => Box::new(Distributed::new(operator, ranks)),
            _ => operator,
        };
        Ok(match (&self.resume, mpi_context::ranks()) {
            (Some(file), Some(ranks)) => Box::new(Recorded::on_ranks(operator, file, ranks)?),
            (Some(file), None) => Box::new(operator.with_checkpoint(file)?),
            (None, _) => operator,
        })
    }
}
