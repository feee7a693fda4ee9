//! [`TeacherStudent`]: a regression problem with a known solution.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::Distribution;

use super::{normal, standard_normal};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::vector::scale;

/// A random network and samples of its outputs; see [`teacher_student`].
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let set = teacher_student(10, &[3, 4, 2], 0.0, 0, &Device::Cpu)?;
/// assert_eq!(set.teacher.len(), (4 * 3 + 4) + (2 * 4 + 2));
/// assert_eq!(set.data.inputs().dims(), [10, 3]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TeacherStudent {
    /// Inputs with the teacher's outputs.
    pub data: Dataset,
    /// θ of the teacher, for an [`Mlp`](crate::model::Mlp) with the same widths and tanh.
    pub teacher: Vec<f64>,
}

/// Outputs of a random network, the teacher, at `n` standard normal inputs.
///
/// The teacher is h₀ = x, hᵢ₊₁ = tanh(hᵢ Wᵢᵀ + bᵢ), without tanh after the last layer; the weights and
/// biases of a layer with m inputs are normal with variance 1/m. The teacher depends only on `widths` and `seed`, and a
/// larger `n` appends inputs. `noise` is the standard deviation of the Gaussian noise added to each output.
///
/// # Shapes
/// Inputs `(n, first width)`, values `(n, last width)`, `f64`.
///
/// Use another seed for the student: with the same seed, [`Mlp::new`](crate::model::Mlp::new) draws its first weights from the
/// same random numbers as the teacher, and a small student starts near the teacher.
///
/// Without noise, the teacher is a global minimum with loss 0 for a student of the same widths:
///
/// ```
/// # use loss_landscape::prelude::*;
/// # fn main() -> Result<(), Error> {
/// let widths = [3, 4, 1];
/// let set = teacher_student(100, &widths, 0.0, 0, &Device::Cpu)?;
/// let student = Mlp::new(&widths, Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&student, &set.data, Loss::Mse)?;
/// student.parameters().set_flat(&set.teacher)?;
/// assert!(objective.loss()? < 1e-30);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// No samples, fewer than two widths, a width of 0, a negative or infinite `noise`.
pub fn teacher_student(
    n: usize,
    widths: &[usize],
    noise: f64,
    seed: u64,
    device: &Device,
) -> Result<TeacherStudent> {
    if widths.len() < 2 || widths.contains(&0) {
        return Err(Error::invalid(format!(
            "expected at least two widths, all above 0, such as [5, 10, 1], found {widths:?}"
        )));
    }
    if n == 0 {
        return Err(Error::invalid("n must be at least 1, found 0"));
    }
    let noise = normal(noise)?;
    let (features, outputs) = (widths[0], widths[widths.len() - 1]);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layers: Vec<Layer> = widths
        .windows(2)
        .map(|pair| Layer::draw(pair[0], pair[1], &mut rng))
        .collect();
    let (mut inputs, mut errors) = (Vec::new(), Vec::new());
    for _ in 0..n {
        inputs.extend(standard_normal(features, &mut rng));
        errors.extend(noise.sample_iter(&mut rng).take(outputs));
    }
    let inputs = Tensor::from_vec(inputs, (n, features), &Device::Cpu)?;
    let errors = Tensor::from_vec(errors, (n, outputs), &Device::Cpu)?;
    let mut h = inputs.clone();
    for (i, layer) in layers.iter().enumerate() {
        if i > 0 {
            h = h.tanh()?;
        }
        h = layer.forward(&h)?;
    }
    let values = (h + errors)?;
    Ok(TeacherStudent {
        data: Dataset::regression(&inputs.to_device(device)?, &values.to_device(device)?)?,
        teacher: flat(layers),
    })
}

struct Layer {
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Layer {
    fn draw(inputs: usize, outputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut drawn = |n| {
            let mut values = standard_normal(n, rng);
            scale(&mut values, 1.0 / (inputs as f64).sqrt());
            values
        };
        Self {
            weight: drawn(outputs * inputs),
            bias: drawn(outputs),
        }
    }

    fn forward(&self, h: &Tensor) -> Result<Tensor> {
        let shape = (self.bias.len(), h.dim(1)?);
        let weight = Tensor::from_slice(&self.weight, shape, &Device::Cpu)?;
        let bias = Tensor::from_slice(&self.bias, self.bias.len(), &Device::Cpu)?;
        Ok(h.matmul(&weight.t()?)?.broadcast_add(&bias)?)
    }
}

/// Concatenates the layers in the order of their parameter names in a model.
fn flat(layers: Vec<Layer>) -> Vec<f64> {
    let named = layers.into_iter().enumerate().flat_map(|(i, layer)| {
        [
            (format!("layers.{i}.weight"), layer.weight),
            (format!("layers.{i}.bias"), layer.bias),
        ]
    });
    let sorted: BTreeMap<String, Vec<f64>> = named.collect();
    sorted.into_values().flatten().collect()
}
