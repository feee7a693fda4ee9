//! Small synthetic datasets in `f64`, drawn from a seed.
//!
//! | dataset | content |
//! | --- | --- |
//! | [`two_moons`] | two classes in the plane, not linearly separable |
//! | [`spirals`] | any number of classes in the plane, on spirals with any number of turns |
//! | [`linearly_separable`] | two classes on either side of a plane, with a margin |
//! | [`sum_of_two`] | two classes; the label depends on the sum of two of twenty features |
//! | [`teacher_student`] | outputs of a random network; a global minimum is known |

mod linear;
mod planar;
mod teacher;

pub use linear::{linearly_separable, sum_of_two};
pub use planar::{spirals, two_moons};
pub use teacher::{TeacherStudent, teacher_student};

use candle_core::{Device, Tensor};
use rand::Rng;
use rand_distr::{Distribution, Normal, StandardNormal};

use super::Dataset;
use crate::error::{Error, Result};

/// Gaussian noise with standard deviation `noise`.
fn normal(noise: f64) -> Result<Normal<f64>> {
    Normal::new(0.0, noise)
        .ok()
        .filter(|_| noise >= 0.0)
        .ok_or_else(|| {
            Error::invalid(format!(
                "noise must be finite and at least 0, found {noise}"
            ))
        })
}

fn standard_normal(n: usize, rng: &mut impl Rng) -> Vec<f64> {
    StandardNormal.sample_iter(rng).take(n).collect()
}

/// A dataset of samples, concatenated in `features`, with their labels.
fn labelled(features: Vec<f64>, labels: Vec<u32>, device: &Device) -> Result<Dataset> {
    let n = labels.len();
    let width = features.len() / n;
    Dataset::classification(
        &Tensor::from_vec(features, (n, width), device)?,
        &Tensor::from_vec(labels, n, device)?,
    )
}
