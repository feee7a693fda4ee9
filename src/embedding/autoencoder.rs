//! [`Autoencoder`]: a network that reconstructs its inputs through a narrow layer.

use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{Linear, Sequential, seq};
use ndarray::{Array1, Array2};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Points, check_components, overflow, reduced};
use crate::error::{Error, Result};
use crate::progress::{self, Progress};
use crate::random::{Purpose, generator};
use crate::train::VarOptimizer;

/// An encoder d → hidden → k and a decoder k → hidden → d (Kramer, 1991; Hinton and Salakhutdinov, 2006) with tanh in the
/// hidden layers. Adam minimises the mean squared reconstruction error on all points at once, with a linearly decaying
/// learning rate.
///
/// Points with more entries than there are points are first written in coordinates of their span, which preserves all
/// distances up to rounding. All coordinates are then scaled by one factor. Weights are drawn from the seed in `f64`: the
/// same seed gives the same bits.
///
/// See [`Encoded`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Autoencoder {
    /// Dimension k of the embedding [default: 2].
    pub components: usize,
    /// Width of the hidden layers [default: 32].
    pub hidden: usize,
    /// Number of training steps [default: 1000].
    pub epochs: usize,
    /// Initial learning rate [default: 0.01].
    pub learning_rate: f64,
    /// Seed of the weights [default: 0].
    pub seed: u64,
}

impl Default for Autoencoder {
    fn default() -> Self {
        Self {
            components: 2,
            hidden: 32,
            epochs: 1000,
            learning_rate: 0.01,
            seed: 0,
        }
    }
}

/// Result of an [`Autoencoder`].
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // Points on a line need one coordinate.
/// let points: Vec<Vec<f64>> = (0..20)
///     .map(|i| vec![f64::from(i), 2.0 * f64::from(i)])
///     .collect();
/// let settings = Autoencoder::default().with_components(1).with_hidden(8).with_epochs(300);
/// let encoded = settings.run(&points)?;
/// assert_eq!(encoded.coordinates.dim(), (20, 1));
/// assert!(encoded.reconstruction_error < 0.1);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Encoded {
    /// Outputs of the encoder, shape `(n, k)`.
    pub coordinates: Array2<f64>,
    /// Root mean square of ‖x − x̂‖ over the points, where x̂ are the decoder's outputs.
    #[serde(alias = "error")]
    pub rms_error: f64,
    /// ‖X − X̂‖_F / ‖X − mean‖_F on the points that the network was trained on. Fitting noise lowers it; see
    /// [`ComparedEmbedding::held_out_error`](super::ComparedEmbedding::held_out_error).
    pub reconstruction_error: f64,
}

impl Autoencoder {
    /// Sets the dimension of the embedding.
    #[must_use]
    pub fn with_components(mut self, components: usize) -> Self {
        self.components = components;
        self
    }
    /// Sets the width of the hidden layers.
    #[must_use]
    pub fn with_hidden(mut self, hidden: usize) -> Self {
        self.hidden = hidden;
        self
    }
    /// Sets the number of training steps.
    #[must_use]
    pub fn with_epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }
    /// Sets the initial learning rate.
    #[must_use]
    pub fn with_learning_rate(mut self, learning_rate: f64) -> Self {
        self.learning_rate = learning_rate;
        self
    }
    /// Sets the seed of the weights.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Trains on `points` and encodes them.
    ///
    /// # Errors
    /// `components`, `hidden` or `epochs` is 0; the learning rate is not positive or training diverges; all points are equal; as
    /// [`Distances::new`](super::Distances::new).
    pub fn run(&self, points: &dyn Points) -> Result<Encoded> {
        check_components(self.components)?;
        let positive = self.learning_rate > 0.0 && self.learning_rate.is_finite();
        if self.hidden == 0 || self.epochs == 0 || !positive {
            return Err(Error::invalid(format!(
                "the autoencoder has {} hidden units, {} epochs and a learning rate of {}: all must be \
                 above 0",
                self.hidden, self.epochs, self.learning_rate
            )));
        }
        let rows = reduced(points)?;
        let trained = self.train(&rows)?;
        let (coordinates, outputs) = trained.apply(&rows)?;
        let centered = &rows - &trained.mean;
        let squares = |rows: &Array2<f64>| rows.iter().map(|x| x * x).sum::<f64>();
        let (lost, total) = (squares(&(&rows - &outputs)), squares(&centered));
        Ok(Encoded {
            coordinates,
            rms_error: (lost / rows.nrows() as f64).sqrt(),
            reconstruction_error: (lost / total).sqrt(),
        })
    }

    /// Trains on the rows.
    pub(super) fn train(&self, rows: &Array2<f64>) -> Result<Trained> {
        let (n, d) = rows.dim();
        let mean = rows
            .columns()
            .into_iter()
            .map(|column| column.sum() / n as f64);
        let mean = Array1::from_iter(mean);
        let mut rows = rows - &mean;
        let spread = (rows.iter().map(|x| x * x).sum::<f64>() / n as f64).sqrt();
        if spread == 0.0 {
            return Err(Error::invalid(
                "all points are equal: an autoencoder has nothing to learn",
            ));
        }
        if !spread.is_finite() {
            return Err(overflow());
        }
        rows /= spread;

        let inputs = Tensor::from_iter(rows.iter().copied(), &Device::Cpu)?.reshape((n, d))?;
        let mut weights = WeightInit::new(self.seed);
        let encoder = weights.network(d, self.hidden, self.components)?;
        let decoder = weights.network(self.components, self.hidden, d)?;
        let loss = || -> Result<Tensor> {
            let outputs = decoder.forward(&encoder.forward(&inputs)?)?;
            Ok((((outputs - &inputs)?.sqr()?.sum_all()?) / n as f64)?)
        };
        let mut optimizer = VarOptimizer::adam(weights.vars)?;
        let mut progress = Progress::start("autoencoder");
        for epoch in 0..self.epochs {
            progress::check()?;
            let remaining = 1.0 - epoch as f64 / self.epochs as f64;
            optimizer.step(&loss()?.backward()?, self.learning_rate * remaining)?;
            progress.part(epoch + 1, self.epochs);
        }

        if !loss()?.to_scalar::<f64>()?.is_finite() {
            return Err(Error::NotFinite(format!(
                "the autoencoder diverged with a learning rate of {}: use a smaller one",
                self.learning_rate
            )));
        }
        Ok(Trained {
            encoder,
            decoder,
            mean,
            spread,
        })
    }
}

/// A trained network, and the shift and scale of its inputs.
pub(super) struct Trained {
    encoder: Sequential,
    decoder: Sequential,
    mean: Array1<f64>,
    spread: f64,
}

impl Trained {
    /// Returns the encoder's outputs for the rows, and the decoder's reconstruction of the rows.
    pub(super) fn apply(&self, rows: &Array2<f64>) -> Result<(Array2<f64>, Array2<f64>)> {
        let inputs = (rows - &self.mean) / self.spread;
        let inputs =
            Tensor::from_iter(inputs.iter().copied(), &Device::Cpu)?.reshape(rows.dim())?;
        let code = self.encoder.forward(&inputs)?;
        let outputs = array(&self.decoder.forward(&code)?)?;
        Ok((array(&code)?, outputs * self.spread + &self.mean))
    }
}

fn array(tensor: &Tensor) -> Result<Array2<f64>> {
    let rows = tensor.to_vec2::<f64>()?;
    let shape = tensor.dims2()?;
    Ok(Array2::from_shape_fn(shape, |(i, j)| rows[i][j]))
}

/// Creates weights. candle's own generator takes no seed on the CPU.
struct WeightInit {
    rng: ChaCha8Rng,
    vars: Vec<Var>,
}

impl WeightInit {
    fn new(seed: u64) -> Self {
        Self {
            rng: generator(Purpose::Autoencoder, seed, 0),
            vars: Vec::new(),
        }
    }

    fn network(&mut self, inputs: usize, hidden: usize, outputs: usize) -> Result<Sequential> {
        Ok(seq()
            .add(self.linear(inputs, hidden)?)
            .add_fn(Tensor::tanh)
            .add(self.linear(hidden, outputs)?))
    }

    /// Draws weights uniformly from ±√(3/n) for n inputs, which preserves the variance of the inputs; biases are 0.
    fn linear(&mut self, inputs: usize, outputs: usize) -> Result<Linear> {
        let bound = (3.0 / inputs as f64).sqrt();
        let draws = (0..outputs * inputs).map(|_| self.rng.random_range(-bound..bound));
        let draws: Vec<f64> = draws.collect();
        let weight = Var::from_vec(draws, (outputs, inputs), &Device::Cpu)?;
        let bias = Var::zeros(outputs, DType::F64, &Device::Cpu)?;
        let layer = Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
        self.vars.extend([weight, bias]);
        Ok(layer)
    }
}
