//! Models: [`Layered`] lists of [layers](crate::layers), the multilayer perceptron [`Mlp`], and the networks of the zoo, by
//! [`Architecture`].

mod layered;
mod mlp;
mod zoo;

pub use crate::layers::{Activation, LayerKind};
pub use crate::parameters::Parameters;
pub use layered::Layered;
pub use mlp::Mlp;
pub use zoo::{Architecture, Design, Norm};

use std::sync::OnceLock;

use candle_core::{Device, Module, Tensor};

use crate::error::{Error, Result};

/// A candle module with named parameters.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // x ↦ xWᵀ, with a candle layer.
/// #[derive(Clone)]
/// struct Plain {
///     layer: candle_nn::Linear,
///     parameters: Parameters,
/// }
///
/// impl Module for Plain {
///     fn forward(&self, x: &Tensor) -> candle::Result<Tensor> {
///         self.layer.forward(x)
///     }
/// }
///
/// impl Model for Plain {
///     fn parameters(&self) -> &Parameters {
///         &self.parameters
///     }
/// }
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
/// let layer = candle_nn::linear_no_bias(2, 1, vb)?;
/// let model = Plain {
///     layer,
///     parameters: Parameters::try_from(&vars)?,
/// };
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let history = Trainer::sgd(0.1)
///     .with_epochs(5)
///     .with_batch_size(20)
///     .fit(&model, &data, &data)?;
/// assert!(history.epochs[4].test_loss < history.epochs[0].test_loss);
/// # Ok::<(), Error>(())
/// ```
pub trait Model: Module {
    /// The parameters, shared with the model: setting them changes the model.
    fn parameters(&self) -> &Parameters;

    /// The model's layers, if it is exactly a sequence of them: its derivatives are then computed by hand-derived
    /// rules on the CPU, much faster than by automatic differentiation.
    fn layers(&self) -> Option<Vec<LayerKind>> {
        None
    }

    /// Why [`Model::layers`] returns `None`, if the model states a reason: an objective shows it with its
    /// [`Engine`](crate::objective::Engine).
    fn without_layers(&self) -> Option<String> {
        None
    }

    /// The forward pass of a training step, if it differs from [`Module::forward`]: batch normalisation with the
    /// batch's mean and variance, which update the running [statistics](Parameters::statistics), and dropout, drawn
    /// from `seed`.
    ///
    /// # Errors
    /// Errors of candle.
    fn forward_training(&self, x: &Tensor, seed: u64) -> candle_core::Result<Tensor> {
        let _ = seed;
        self.forward(x)
    }
}

/// The first CUDA device, if this build and machine have one, otherwise the CPU.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let device = best_device()?;
/// assert!(device.is_cuda() || device.is_cpu());
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// None: if a build with the feature `cuda` finds no usable device, it prints a warning.
pub fn best_device() -> Result<Device> {
    Ok(cuda_device().unwrap_or_else(|problem| {
        if cfg!(feature = "cuda") {
            crate::progress::warn(&format!("computing on the CPU: {problem}"));
        }
        Device::Cpu
    }))
}

/// The first CUDA device. Every call returns the same one, so that models and data on it can be combined.
///
/// ```
/// use loss_landscape::model::cuda_device;
/// use loss_landscape::prelude::*;
///
/// match cuda_device() {
///     Ok(device) => assert!(device.is_cuda()),
///     Err(error) => assert!(error.to_string().contains("CUDA device")),
/// }
/// ```
///
/// # Errors
/// A build without the feature `cuda`; a machine without a GPU or its driver.
pub fn cuda_device() -> Result<Device> {
    static DEVICE: OnceLock<std::result::Result<Device, String>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| {
        if !cfg!(feature = "cuda") {
            return Err(
                "this build lacks the feature `cuda` and cannot use CUDA devices: build with \
                 `--features cuda`; environment/cuda.sh builds the command line, and `environment/setup.sh --cuda` \
                 the notebooks' kernel"
                    .into(),
            );
        }
        // candle's `new_cuda` uses one stream per thread, without synchronisation between them, so this device has
        // its own.
        Device::new_cuda_with_stream(0).map_err(|error| {
            let problem = Error::from(error);
            format!("no CUDA device can be used: no GPU or no driver found ({problem})")
        })
    });
    device.clone().map_err(Error::Invalid)
}
