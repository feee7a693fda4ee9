//! Models used by several benches.

use loss_landscape::candle_nn::{Conv2dConfig, linear};
use loss_landscape::prelude::*;

/// The zoo's small convolutional network as a candle model on 256 images, with the convolutions of `nn` or of candle.
pub fn candle_cnn(convolutions: &str) -> Result<Objective, Error> {
    const CHANNELS: [usize; 8] = [1, 16, 16, 16, 32, 32, 64, 64];
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let mut layers: Vec<Box<dyn Module + Send + Sync>> = Vec::new();
    for (i, pair) in CHANNELS.windows(2).enumerate() {
        let config = Conv2dConfig {
            padding: 1,
            stride: if i == 3 || i == 5 { 2 } else { 1 },
            ..Default::default()
        };
        let vb = vb.pp(format!("layers.{i}"));
        layers.push(match convolutions {
            "nn" => Box::new(nn::conv2d(pair[0], pair[1], 3, config, vb)?),
            _ => Box::new(candle_nn::conv2d(pair[0], pair[1], 3, config, vb)?),
        });
    }
    let last = linear(64, 10, vb.pp("layers.7"))?;
    let data = Mnist::load(&Device::Cpu)?.train.first(256)?;
    let objective = Objective::from_fn(&vars, &data, Loss::CrossEntropy, move |x| {
        let mut h = x.reshape(((), 1, 28, 28))?;
        for layer in &layers {
            h = layer.forward(&h)?.tanh()?;
        }
        last.forward(&h.mean((2, 3))?)
    });
    objective?.with_batch_size(128)
}
