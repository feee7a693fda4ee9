//! [`Engine`]: how an objective computes its derivatives, and why.

use std::fmt;

use super::Objective;
use crate::engine::{GraphReason, HandDerived, LayerTile};
use crate::error::{Error, Result};

/// How an objective computes its derivatives.
///
/// ```
/// use loss_landscape::objective::{Engine, GraphReason};
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 4, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// assert_eq!(objective.engine(), Engine::ByHand);
/// let parameters = model.parameters().clone();
/// let by_graph =
///     Objective::from_fn(parameters, &data, Loss::CrossEntropy, move |x| model.forward(x))?;
/// assert_eq!(by_graph.engine(), Engine::ByGraph(GraphReason::NoLayers));
/// assert_eq!(
///     by_graph.engine().to_string(),
///     "by candle's graph: the model does not list its layers"
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// By hand-derived rules.
    ByHand,
    /// By automatic differentiation through candle's graph, several times slower.
    ByGraph(GraphReason),
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByHand => f.write_str("by hand-derived rules"),
            Self::ByGraph(reason) => write!(f, "by candle's graph: {reason}"),
        }
    }
}

impl Objective {
    /// How derivatives are computed, and if not by hand-derived rules, why not.
    pub fn engine(&self) -> Engine {
        match (&self.engine, self.batch_statistics()) {
            (Err(reason), _) => Engine::ByGraph(reason.clone()),
            (Ok(_), Some(_)) => Engine::ByGraph(GraphReason::BatchStatistics),
            (Ok(_), None) => Engine::ByHand,
        }
    }

    /// Calls `visitor` with the inputs, the outputs and the output gradients of each layer, tile by tile, at the model's current
    /// point. Tiles come in the order of the samples; in a tile, layers come in the order of the network.
    ///
    /// ```
    /// use loss_landscape::objective::LayerTile;
    /// use loss_landscape::prelude::*;
    ///
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// // The gradient with respect to the first bias is the mean of the first layer's output gradients.
    /// let mut sum = vec![0.0; 3];
    /// objective.visit_layers(|tile: LayerTile| {
    ///     if tile.parameters == ["layers.0.weight", "layers.0.bias"] {
    ///         for row in tile.output_gradients.chunks(3) {
    ///             sum.iter_mut().zip(row).for_each(|(s, g)| *s += g / 60.0);
    ///         }
    ///     }
    /// })?;
    /// let gradient = objective.gradient()?;
    /// assert!(sum.iter().zip(&gradient).all(|(a, b)| (a - b).abs() < 1e-12));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// An objective without hand-derived rules; see [`Objective::engine`].
    pub fn visit_layers(&self, mut visitor: impl FnMut(LayerTile) + Send) -> Result<()> {
        let engine = self.hand_derived("visiting the layers")?;
        engine.visit(&self.point(None)?, &self.data, &mut visitor)
    }

    /// The hand-derived rules, on all samples.
    ///
    /// # Errors
    /// An error that names `what` if there are no such rules, or if the samples are divided among ranks or read in parts.
    pub(super) fn hand_derived(&self, what: &str) -> Result<&dyn HandDerived> {
        self.needs_all_samples(what)?;
        match (&self.engine, self.engine()) {
            (Ok(engine), Engine::ByHand) => Ok(engine.as_ref()),
            (_, engine) => Err(Error::invalid(format!(
                "{what} needs hand-derived rules, but derivatives are computed {engine}"
            ))),
        }
    }
}
