//! [`Function`]: a function of rows, given by its values at sample rows, and recognised by them.
//!
//! Exporters write GELU, SiLU, layer normalisation and others as many small operators, each in several ways. All of them have the same
//! values.

use candle_core::{Device, Tensor};

use crate::layers::Activation;
use crate::tensor_functions::entries;
use crate::vector::gaussian;

/// Values of a function at the sample rows of `width` entries: as many values per row as it has entries, or one.
#[derive(Clone, Debug)]
pub(super) struct Function {
    width: usize,
    values: Vec<f64>,
}

/// A function of rows that a layer computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LayerFunction {
    /// The entries times this factor.
    Scale(f64),
    Activation(Activation),
    /// (x − μ)/√(σ² + ε)
    LayerNorm {
        epsilon: f64,
    },
    /// x/√(mean of x² + ε)
    RmsNorm {
        epsilon: f64,
    },
}

/// Relative difference of a known function's values and those of the graph, whose constants have single precision.
const TOLERANCE: f64 = 1e-6;

/// Standard deviation of the entries of a sample row.
const SIZES: [f64; 4] = [8.0, 3.0, 1.0, 1e-4];

/// The sample rows, one after another.
fn samples(width: usize) -> Vec<f64> {
    let rows = (128 / width).max(SIZES.len());
    let entries = gaussian(rows * width, 1).into_iter().enumerate();
    let scaled = entries.map(|(i, x)| x * SIZES[i / width % SIZES.len()]);
    scaled.collect()
}

impl Function {
    /// The entries times a factor, for rows of `width` entries.
    pub fn scale(width: usize, factor: f64) -> Self {
        let values = samples(width).iter().map(|x| factor * x).collect();
        Self { width, values }
    }

    fn num_rows(&self) -> usize {
        samples(self.width).len() / self.width
    }

    /// Number of values per row.
    fn values_per_row(&self) -> usize {
        self.values.len() / self.num_rows()
    }

    /// `f` of each value.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        let values = self.values.iter().map(|v| f(*v)).collect();
        Self { values, ..*self }
    }

    /// `f` of the values as a tensor of any shape.
    pub fn map_tensor(&self, f: impl FnOnce(&Tensor) -> Option<Tensor>) -> Option<Self> {
        let values = Tensor::from_slice(&self.values, self.values.len(), &Device::Cpu).ok()?;
        let values = entries(&f(&values)?).ok()?;
        (values.len() == self.values.len()).then_some(Self { values, ..*self })
    }

    /// The mean of each row's values.
    pub fn mean(&self) -> Self {
        let rows = self.values.chunks(self.values_per_row());
        let values = rows.map(|row| row.iter().sum::<f64>() / row.len() as f64);
        Self {
            values: values.collect(),
            ..*self
        }
    }

    /// `f` of the values of two functions of the same rows; a function with one value per row is repeated.
    pub fn combine(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let [a, b] = [self.values_per_row(), other.values_per_row()];
        let each = a.max(b);
        let value = |function: &Self, per_row: usize, i: usize| {
            function.values[match per_row == each {
                true => i,
                false => i / each,
            }]
        };
        let values = (0..self.num_rows() * each).map(|i| f(value(self, a, i), value(other, b, i)));
        Self {
            values: values.collect(),
            ..*self
        }
    }

    /// Whether all values agree with `expected`.
    fn agrees(&self, expected: &[f64]) -> bool {
        let close = |(v, e): (&f64, &f64)| (v - e).abs() <= TOLERANCE * e.abs().max(1e-3);
        self.values.len() == expected.len() && self.values.iter().zip(expected).all(close)
    }

    /// The function of a layer that has these values.
    pub fn recognise(&self) -> Option<LayerFunction> {
        let x = samples(self.width);
        if self.values.len() != x.len() {
            return None;
        }
        let factor = self.values[0] / x[0];
        let scaled: Vec<f64> = x.iter().map(|x| factor * x).collect();
        if factor != 0.0 && self.agrees(&scaled) {
            return Some(LayerFunction::Scale(factor));
        }
        for activation in Activation::ALL {
            let tensor = Tensor::from_slice(&x, x.len(), &Device::Cpu).ok()?;
            let values = activation.apply(&tensor).ok()?;
            if self.agrees(&values.to_vec1().ok()?) {
                return Some(LayerFunction::Activation(activation));
            }
        }
        let centered: Vec<f64> = x
            .chunks(self.width)
            .flat_map(|row| {
                let mean = row.iter().sum::<f64>() / row.len() as f64;
                row.iter().map(move |x| x - mean)
            })
            .collect();
        let layer_norm = self.epsilon(&centered);
        let rms_norm = || {
            self.epsilon(&x)
                .map(|epsilon| LayerFunction::RmsNorm { epsilon })
        };
        layer_norm
            .map(|epsilon| LayerFunction::LayerNorm { epsilon })
            .or_else(rms_norm)
    }

    /// ε if the values are each row of `x` divided by √(mean of x² + ε).
    fn epsilon(&self, x: &[f64]) -> Option<f64> {
        let square = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let width = self.width;
        // ε shows best where entries are small.
        let small = (SIZES.len() - 1) * width..SIZES.len() * width;
        let row = &x[small.clone()];
        let pairs = row.iter().zip(&self.values[small]);
        let (x0, y0) = pairs.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()))?;
        let epsilon = as_written((x0 / y0).powi(2) - square(row));
        if !(0.0..1.0).contains(&epsilon) {
            return None;
        }
        let normal = x.chunks(width).flat_map(|row| {
            let size = (square(row) + epsilon).sqrt();
            row.iter().map(move |x| x / size)
        });
        self.agrees(&normal.collect::<Vec<_>>()).then_some(epsilon)
    }
}

/// Undoes the rounding of a decimal number to single precision: 10⁻⁵ for 9.9999997·10⁻⁶.
pub(super) fn as_written(value: f64) -> f64 {
    let single = value as f32;
    let is_single = (f64::from(single) - value).abs() <= 1e-9 * value.abs();
    let written = format!("{single:e}").parse();
    written.ok().filter(|_| is_single).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(width: usize) -> Function {
        Function::scale(width, 1.0)
    }

    #[test]
    fn activations_are_recognised_by_their_values() {
        for width in [1, 5, 300] {
            let x = input(width);
            for activation in Activation::ALL {
                let y = x.map_tensor(|x| activation.apply(x).ok()).unwrap();
                assert_eq!(y.recognise(), Some(LayerFunction::Activation(activation)));
                assert_ne!(y.map(|y| 1.001 * y).recognise(), y.recognise());
            }
            assert_eq!(
                x.map(|x| -0.25 * x).recognise(),
                Some(LayerFunction::Scale(-0.25))
            );
            assert_eq!(x.map(|x| x + 1.0).recognise(), None);
            assert_eq!(x.map(|x| x * x).recognise(), None);
        }
    }

    #[test]
    fn norms_are_recognised_with_their_epsilon() {
        for width in [2, 7, 512] {
            for epsilon in [1e-5, 1e-12, 0.125] {
                let x = input(width);
                let single = f64::from(epsilon as f32);
                let centered = x.combine(&x.mean(), |x, m| x - m);
                let variance = centered.map(|c| c * c).mean();
                let norm = centered.combine(&variance, |c, v| c / (v + single).sqrt());
                assert_eq!(norm.recognise(), Some(LayerFunction::LayerNorm { epsilon }));
                let square = x.map(|x| x * x).mean();
                let norm = x.combine(&square, |x, s| x / (s + single).sqrt());
                assert_eq!(norm.recognise(), Some(LayerFunction::RmsNorm { epsilon }));
                let other = x.combine(&square, |x, s| x / (s.sqrt() + single));
                assert!(epsilon < 1e-6 || other.recognise().is_none());
            }
        }
    }
}
