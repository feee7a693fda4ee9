//! [`Dropout`]: values set to zero at random in training.

use candle_core::Tensor;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::{Layer, Misfit, Pass, Shape, UnitGraph};
use crate::kernels::Scalar;
use crate::parameters::Parameters;

/// Dropout (Srivastava et al., 2014): in a training step each value is set to 0 with probability `rate`, and divided
/// by 1 − `rate` otherwise. In analysis it is the identity.
///
/// Models with dropout are trained through candle's graph and analysed by hand-derived rules.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropout {
    /// The probability, at least 0 and less than 1.
    pub rate: f64,
}

impl Dropout {
    /// Dropout at this rate.
    pub fn new(rate: f64) -> Self {
        Self { rate }
    }
}

impl Layer for Dropout {
    fn output_shape(&self, input: &Shape, _parameters: &Parameters) -> Result<Shape, Misfit> {
        match (0.0..1.0).contains(&self.rate) {
            true => Ok(input.clone()),
            false => Err(Misfit::new(
                self,
                input,
                format!("a rate of at least 0 and less than 1, not {}", self.rate),
            )),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        _parameters: &Parameters,
        pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        if !(0.0..1.0).contains(&self.rate) {
            candle_core::bail!(
                "Dropout needs a rate of at least 0 and less than 1, not {}",
                self.rate
            );
        }
        match pass {
            Pass::Training(rng) => self.dropped(x, rng),
            Pass::Inference | Pass::Recording(_) => Ok(x.clone()),
        }
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        self.output_shape(network.shape(), network.parameters())?;
        network.mark_dropout();
        Ok(())
    }

    fn add_units(&self, _graph: &mut UnitGraph) -> Result<(), Misfit> {
        Ok(())
    }
}

impl Dropout {
    fn dropped(&self, x: &Tensor, rng: &mut ChaCha8Rng) -> candle_core::Result<Tensor> {
        let scale = 1.0 / (1.0 - self.rate);
        let factors = (0..x.elem_count()).map(|_| match rng.random::<f64>() >= self.rate {
            true => scale,
            false => 0.0,
        });
        let factors = Tensor::from_iter(factors, x.device())?.to_dtype(x.dtype())?;
        x * factors.reshape(x.shape())?
    }
}
