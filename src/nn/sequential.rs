//! [`Sequential`]: layers and closures one after another, on any thread.

use std::fmt;
use std::sync::Arc;

use candle_core::{Module, Result, Tensor};

/// Layers and closures, one after another: [`candle_nn::Sequential`] as a model that worker threads share, as objectives
/// need. candle's cannot move to another thread. Cloning shares the layers.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// # fn main() -> Result<(), Error> {
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
/// let net = nn::seq() // was candle_nn::seq()
///     .add(candle_nn::linear(2, 8, vb.pp("first"))?)
///     .add(candle_nn::Activation::Silu)
///     .add(candle_nn::linear(8, 8, vb.pp("second"))?)
///     .add_fn(|x| x.tanh())
///     .add(candle_nn::linear(8, 1, vb.pp("last"))?);
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let objective = Objective::from_fn(&vars, &data, Loss::CrossEntropy, move |x| net.forward(x))?;
/// let sharpest = objective.hessian().top(1)?;
/// assert!(sharpest.converged);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Sequential {
    layers: Vec<Arc<dyn Module + Send + Sync>>,
}

/// An empty sequence of layers.
pub fn seq() -> Sequential {
    Sequential::default()
}

impl Sequential {
    /// Appends a layer.
    #[must_use]
    #[allow(clippy::should_implement_trait)] // candle's name
    pub fn add<M: Module + Send + Sync + 'static>(mut self, layer: M) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// Appends a closure.
    #[must_use]
    pub fn add_fn<F>(self, f: F) -> Self
    where
        F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    {
        self.add(candle_nn::func(f))
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether there are no layers.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

impl Module for Sequential {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let start = x.clone();
        self.layers
            .iter()
            .try_fold(start, |x, layer| layer.forward(&x))
    }
}

impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequential")
            .field("layers", &self.layers.len())
            .finish()
    }
}
