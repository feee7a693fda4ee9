//! Softmax cross-entropy and, for one output, the logistic loss: value, gradient and curvature.
//!
//! Everything is computed in `f64` and without differences of nearly equal numbers: 1 − p of a class is the sum of
//! the other classes' probabilities. So the tiny losses and derivatives of samples with large margins are accurate to
//! the rounding of z.

use candle_core::Tensor;

use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::simd::vectorised;
use crate::tensor_functions::{ln_1p, softplus};

/// The loss of each row in candle's graph.
///
/// # Shapes
/// `outputs` (rows, classes) or (rows, 1), `labels` (rows,), to (rows,).
pub(super) fn per_row(outputs: &Tensor, labels: &Tensor) -> Result<Tensor> {
    if outputs.dim(1)? == 1 {
        let z = outputs.squeeze(1)?;
        // −1 for the label 1 and 1 for the label 0: the loss is softplus(∓z).
        let side = labels.to_dtype(z.dtype())?.affine(-2.0, 1.0)?;
        return Ok(softplus(&(z * side)?)?);
    }
    softmax_per_row(outputs, labels)
}

/// (z_a − z_y) + ln(1 + Σ_{j ≠ a} exp(z_j − z_a)) with the largest output z_a: a sum of nonnegative numbers.
///
/// The masks are constants, so a derivative of z_a − z_y is exactly 0 where y = a. 1 − p_y is then −Σ_{j ≠ a} p_j.
fn softmax_per_row(outputs: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let classes = Tensor::arange(0, outputs.dim(1)? as u32, outputs.device())?;
    let mask = |class: &Tensor| -> Result<Tensor> {
        let mask = class.broadcast_eq(&classes.unsqueeze(0)?)?;
        Ok(mask.to_dtype(outputs.dtype())?)
    };
    let at_largest = mask(&outputs.argmax_keepdim(1)?)?;
    let at_label = mask(&labels.unsqueeze(1)?)?;
    let largest = (outputs * &at_largest)?.sum_keepdim(1)?;
    let exponentials = outputs.broadcast_sub(&largest)?.exp()?;
    let others = (exponentials * at_largest.affine(-1.0, 1.0)?)?.sum(1)?;
    let short = (outputs * (at_largest - at_label)?)?.sum(1)?;
    Ok((short + ln_1p(&others)?)?)
}

/// The sum of the rows' losses.
pub(super) fn sum<T: Scalar>(z: &[T], labels: &[u32], width: usize) -> f64 {
    if width == 1 {
        let margins = z.iter().zip(labels).map(|(z, label)| margin(*z, *label));
        return margins.map(|m| (-m).max(0.0) + exp(-m.abs()).ln_1p()).sum();
    }
    let exponentials = Exponentials::new(z, width);
    let rows = z.chunks_exact(width).zip(exponentials.rows());
    let losses = rows.zip(labels).map(|((z, row), label)| {
        (z[row.largest].f64() - z[*label as usize].f64()) + row.rest.ln_1p()
    });
    losses.sum()
}

/// Number of rows whose largest output is at their label, or for one output, whose sign is right.
pub(super) fn correct<T: Scalar>(z: &[T], labels: &[u32], width: usize) -> usize {
    let predicted = |row: &[T]| match row {
        [z] => u32::from(*z > T::ZERO),
        _ => largest(row) as u32,
    };
    let rows = z.chunks_exact(width).zip(labels);
    rows.filter(|(row, label)| predicted(row) == **label)
        .count()
}

/// Writes `share` times the gradient of each row's loss in z.
pub(super) fn gradient<T: Scalar>(z: &[T], labels: &[u32], width: usize, share: f64, dz: &mut [T]) {
    if width == 1 {
        for ((dz, z), label) in dz.iter_mut().zip(z).zip(labels) {
            let m = margin(*z, *label);
            let e = exp(-m.abs());
            let wrong = share * (if m > 0.0 { e } else { 1.0 } / (1.0 + e));
            *dz = T::from_f64(if *label == 1 { -wrong } else { wrong });
        }
        return;
    }
    let exponentials = Exponentials::new(z, width);
    let rows = dz.chunks_exact_mut(width).zip(exponentials.rows());
    for ((dz, row), label) in rows.zip(labels) {
        let (total, label) = (1.0 + row.rest, *label as usize);
        for (d, e) in dz.iter_mut().zip(row.others) {
            *d = T::from_f64(share * (e / total));
        }
        dz[row.largest] = T::from_f64(share * (1.0 / total));
        dz[label] = T::from_f64(match label == row.largest {
            true => share * (-row.rest / total),
            false => share * (-(1.0 + (row.rest - row.others[label])) / total),
        });
    }
}

/// Writes rdz = `share` times (diag p − ppᵀ) rz for each row and each of `k` tangents. A sample has `positions` rows.
pub(super) fn curvature_product<T: Scalar>(
    z: &[T],
    [width, positions]: [usize; 2],
    share: f64,
    rz: &[T],
    rdz: &mut [T],
) {
    let (size, k) = (width * positions, rz.len() / z.len());
    let samples = rz
        .chunks_exact(k * size)
        .zip(rdz.chunks_exact_mut(k * size));
    if width == 1 {
        for (z, (rz, rdz)) in z.chunks_exact(size).zip(samples) {
            let tangents = rz.chunks_exact(size).zip(rdz.chunks_exact_mut(size));
            for (rz, rdz) in tangents {
                for ((z, rz), rdz) in z.iter().zip(rz).zip(rdz) {
                    let e = exp(-z.f64().abs());
                    *rdz = T::from_f64(share * (e / ((1.0 + e) * (1.0 + e)))) * *rz;
                }
            }
        }
        return;
    }
    let exponentials = Exponentials::new(z, width);
    let rows: Vec<Row> = exponentials.rows().collect();
    for (rows, (rz, rdz)) in rows.chunks_exact(positions).zip(samples) {
        for (rz, rdz) in rz.chunks_exact(size).zip(rdz.chunks_exact_mut(size)) {
            let tangents = rz.chunks_exact(width).zip(rdz.chunks_exact_mut(width));
            for (row, (rz, rdz)) in rows.iter().zip(tangents) {
                // (diag p − ppᵀ) rz is invariant to a shift of rz: the largest class, whose p may round to 1, is
                // shifted to 0.
                let (total, origin) = (1.0 + row.rest, rz[row.largest].f64());
                let pairs = row.others.iter().zip(rz);
                let sum: f64 = pairs.map(|(e, z)| e * (z.f64() - origin)).sum();
                let mean = sum / total;
                for ((r, e), z) in rdz.iter_mut().zip(row.others).zip(rz) {
                    *r = T::from_f64(share * (e / total * ((z.f64() - origin) - mean)));
                }
                rdz[row.largest] = T::from_f64(share * (-mean / total));
            }
        }
    }
}

/// The output of a binary classifier, with positive sign if it is on the label's side.
fn margin<T: Scalar>(z: T, label: u32) -> f64 {
    if label == 1 { z.f64() } else { -z.f64() }
}

/// Index of the first largest number.
fn largest<T: Scalar>(row: &[T]) -> usize {
    let mut best = 0;
    for i in 1..row.len() {
        if row[i] > row[best] {
            best = i;
        }
    }
    best
}

/// eˣ for x ≤ 0; 0 if the result is not a normal number.
#[inline(always)]
fn exp(x: f64) -> f64 {
    if x < -708.0 { 0.0 } else { Scalar::exp(x) }
}

/// exp(z − max z) of some rows of outputs.
struct Exponentials {
    values: Vec<f64>,
    width: usize,
    /// Index of each row's largest output.
    largest: Vec<usize>,
}

/// One row. With S the sum of `others`, the largest output has probability 1/(1 + S), and each other e/(1 + S).
struct Row<'a> {
    largest: usize,
    /// exp(z − max z), and 0 for the largest output itself.
    others: &'a [f64],
    /// Their sum.
    rest: f64,
}

impl Exponentials {
    fn new<T: Scalar>(z: &[T], width: usize) -> Self {
        let largest: Vec<usize> = z.chunks_exact(width).map(largest).collect();
        let mut values = vec![0.0; z.len()];
        exponentials(z, &largest, &mut values);
        Self {
            values,
            width,
            largest,
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let rows = self.values.chunks_exact(self.width).zip(&self.largest);
        rows.map(|(others, largest)| Row {
            largest: *largest,
            others,
            rest: others.iter().sum(),
        })
    }
}

vectorised! {
    fn exponentials<T: Scalar>(z: &[T], largest: &[usize], values: &mut [f64]) {
        let width = z.len() / largest.len();
        let rows = z.chunks_exact(width).zip(values.chunks_exact_mut(width));
        for ((z, values), largest) in rows.zip(largest) {
            let top = z[*largest].f64();
            for (value, z) in values.iter_mut().zip(z) {
                *value = exp(z.f64() - top);
            }
            values[*largest] = 0.0;
        }
    }
}
