//! What every command needs to know of a network and its data.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::prelude::*;

/// The network.
#[derive(Args)]
pub struct Network {
    /// Which network
    #[arg(long, value_enum, default_value = "mlp")]
    pub model: ModelName,
    /// Widths of a perceptron's layers, input first
    #[arg(long, value_delimiter = ',', default_value = "784,128,128,10")]
    pub layers: Vec<usize>,
    /// Non-linearity between layers; if not said, sigmoid in `mlp`, tanh in `cnn`, ReLU in the others
    #[arg(long, value_enum)]
    pub activation: Option<ActivationName>,
    /// Data to learn
    #[arg(long, value_enum, default_value = "mnist")]
    pub dataset: DatasetName,
    /// Directory with the dataset's files, if they are not where this program was built
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// A network at a point, and the samples that its loss is of.
#[derive(Args)]
pub struct Point {
    /// Weights in safetensors format, keyed layers.0.weight (out × in), layers.0.bias, …; without them the
    /// network is a random one of seed 0
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    #[command(flatten)]
    pub setting: Setting,
}

/// A network, the samples that its loss is of, and how it is computed.
#[derive(Args)]
pub struct Setting {
    #[command(flatten)]
    pub network: Network,
    /// Take the first N training samples
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub samples: usize,
    /// Floating-point type to compute in
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: TypeName,
    /// Differentiate by candle's graph instead of the hand-derived rules
    #[arg(long)]
    pub autograd: bool,
    /// Megabytes of the forward pass to keep for products with the Hessian; more are computed again each time
    #[arg(long, value_name = "MB", default_value_t = 4096)]
    pub memory: usize,
}

/// A perceptron of any widths, or a network of the zoo.
#[derive(Clone, Copy)]
pub enum ModelName {
    Mlp,
    Zoo(Architecture),
}

impl ValueEnum for ModelName {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [ModelName; 9] = [
            ModelName::Mlp,
            ModelName::Zoo(Architecture::Shallow),
            ModelName::Zoo(Architecture::Deep),
            ModelName::Zoo(Architecture::Residual),
            ModelName::Zoo(Architecture::Dense),
            ModelName::Zoo(Architecture::Cnn),
            ModelName::Zoo(Architecture::ResNet20),
            ModelName::Zoo(Architecture::ResNet18),
            ModelName::Zoo(Architecture::DenseNet),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Mlp => ("mlp", "Dense layers of the widths in --layers"),
            Self::Zoo(architecture) => (architecture.name(), architecture.summary()),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ActivationName {
    Sigmoid,
    Tanh,
    Relu,
    Gelu,
    Softplus,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum DatasetName {
    Mnist,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum TypeName {
    F32,
    F64,
}

/// Which matrix.
#[derive(Clone, Copy, ValueEnum)]
pub enum OperatorName {
    /// The Hessian
    Hessian,
    /// Gauss and Newton's matrix
    Ggn,
    /// The Fisher information
    Fisher,
}

impl Network {
    pub fn data(&self) -> Result<Mnist, Error> {
        match (self.dataset, &self.data) {
            (DatasetName::Mnist, None) => Mnist::load(&Device::Cpu),
            (DatasetName::Mnist, Some(dir)) => Mnist::load_from(dir, &Device::Cpu),
        }
    }

    pub fn model(&self, seed: u64) -> Result<Layered, Error> {
        let activation = self.activation.map(|name| match name {
            ActivationName::Sigmoid => Activation::Sigmoid,
            ActivationName::Tanh => Activation::Tanh,
            ActivationName::Relu => Activation::Relu,
            ActivationName::Gelu => Activation::Gelu,
            ActivationName::Softplus => Activation::Softplus,
        });
        match self.model {
            ModelName::Mlp => {
                let activation = activation.unwrap_or(Activation::Sigmoid);
                Ok((&Mlp::new(&self.layers, activation, seed, &Device::Cpu)?).into())
            }
            ModelName::Zoo(architecture) => {
                let mut design = architecture.design();
                design.activation = activation.unwrap_or(design.activation);
                design.build(&[1, 28, 28], 10, seed, &Device::Cpu)
            }
        }
    }
}

impl Point {
    pub fn objective(&self) -> Result<Objective, Error> {
        let model = self.setting.model(self.weights.as_deref())?;
        self.setting.objective(&model)
    }
}

impl Setting {
    pub fn model(&self, weights: Option<&Path>) -> Result<Layered, Error> {
        let model = self.network.model(0)?.to_dtype(self.dtype())?;
        if let Some(path) = weights {
            model.parameters().load(path)?;
        }
        Ok(model)
    }

    pub fn objective(&self, model: &Layered) -> Result<Objective, Error> {
        let data = self.network.data()?.train.first(self.samples)?;
        let data = data.to_dtype(self.dtype())?;
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

impl OperatorName {
    pub fn of(self, objective: &Objective) -> Box<dyn LinearOperator> {
        match self {
            Self::Hessian => Box::new(objective.hessian()),
            Self::Ggn => Box::new(objective.gauss_newton()),
            Self::Fisher => Box::new(objective.fisher()),
        }
    }
}
