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

/// A candle module that knows its parameters.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // x ↦ xWᵀ, with a layer of candle's.
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

    /// What the model is made of, if it is nothing but these layers in a row: its derivatives are then
    /// computed by hand-derived rules on the CPU, much faster than by automatic differentiation.
    fn layers(&self) -> Option<Vec<LayerKind>> {
        None
    }

    /// The forward pass in a step of training, where it is another than [`Module::forward`]: batch normalisation by
    /// the batch's own mean and variance, which move the running [statistics](Parameters::statistics), and dropout,
    /// drawn from `seed`.
    ///
    /// # Errors
    /// candle's.
    fn forward_training(&self, x: &Tensor, seed: u64) -> candle_core::Result<Tensor> {
        let _ = seed;
        self.forward(x)
    }
}

/// The first CUDA device where this build and machine have one, else the CPU.
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
/// None: where a build with the feature `cuda` finds no device that can be used, it warns.
pub fn best_device() -> Result<Device> {
    Ok(cuda_device().unwrap_or_else(|problem| {
        if cfg!(feature = "cuda") {
            crate::progress::warn(&format!("{problem}: computing on the CPU"));
        }
        Device::Cpu
    }))
}

/// The first CUDA device. It is the same each time, so that models and data on it go together.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// match cuda_device() {
///     Ok(device) => assert!(device.is_cuda()),
///     Err(error) => assert!(error.to_string().contains("no CUDA device")),
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
                "no CUDA device is known to a build without the feature `cuda`: build with \
                 `--features cuda`, or by environment/cuda.sh"
                    .into(),
            );
        }
        // With a stream of its own: candle's `new_cuda` takes one for each thread, and they do not wait for one another.
        Device::new_cuda_with_stream(0).map_err(|error| {
            let problem = Error::from(error);
            format!("no CUDA device can be used, for want of a GPU or of its driver ({problem})")
        })
    });
    device.clone().map_err(Error::Invalid)
}
