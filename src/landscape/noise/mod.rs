//! Noise of stochastic gradients, its effect on SGD, and stable learning rates.

mod gradient_noise;
mod implicit_bias;
mod stable_rate;

pub use gradient_noise::{GradientNoise, NoiseReport};
pub use implicit_bias::{ImplicitBias, ModifiedLoss};
pub use stable_rate::StableRate;
