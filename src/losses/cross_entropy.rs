//! Softmax cross-entropy and, for one output, the logistic loss: value, gradient and curvature.
//!
//! Everything is computed in `f64` and without differences of nearly equal numbers: 1 − p of a class is the sum of
//! the other classes' probabilities. So the tiny losses and derivatives of samples with large margins are accurate to
//! the rounding of z.

use candle_core::Tensor;

use super::Curvature;
use super::settings::CrossEntropy;
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
    let [at_largest, _, tail] = at_largest(outputs)?;
    let at_label = one_hot(&labels.unsqueeze(1)?, outputs)?;
    let short = (outputs * (at_largest - at_label)?)?.sum(1)?;
    Ok((short + tail)?)
}

/// With the largest output z_a of each row: 1 at a and 0 elsewhere, shape (rows, classes); z_a, shape (rows, 1); and
/// ln(1 + Σ_{j ≠ a} exp(z_j − z_a)), shape (rows,).
fn at_largest(outputs: &Tensor) -> Result<[Tensor; 3]> {
    let at_largest = one_hot(&outputs.argmax_keepdim(1)?, outputs)?;
    let largest = (outputs * &at_largest)?.sum_keepdim(1)?;
    let exponentials = outputs.broadcast_sub(&largest)?.exp()?;
    let others = (exponentials * at_largest.affine(-1.0, 1.0)?)?.sum(1)?;
    let tail = ln_1p(&others)?;
    Ok([at_largest, largest, tail])
}

/// 1 at the class of each row, shape (rows, 1), and 0 elsewhere, in the dtype of `outputs`. One output has two classes.
fn one_hot(class: &Tensor, outputs: &Tensor) -> Result<Tensor> {
    let classes = Tensor::arange(0, outputs.dim(1)?.max(2) as u32, outputs.device())?;
    let mask = class.broadcast_eq(&classes.unsqueeze(0)?)?;
    Ok(mask.to_dtype(outputs.dtype())?)
}

/// The loss of each row in candle's graph, with settings.
///
/// # Shapes
/// As [`per_row`].
pub(super) fn weighted_per_row(
    outputs: &Tensor,
    labels: &Tensor,
    settings: &CrossEntropy,
) -> Result<Tensor> {
    let q = target_distribution(outputs, labels, settings)?;
    if outputs.dim(1)? == 1 {
        let z = outputs.squeeze(1)?;
        let [absent, present] = [q.narrow(1, 0, 1)?, q.narrow(1, 1, 1)?];
        let present = (present.squeeze(1)? * softplus(&z.neg()?)?)?;
        return Ok((present + (absent.squeeze(1)? * softplus(&z)?)?)?);
    }
    let [at_largest, largest, tail] = at_largest(outputs)?;
    // Σ_c q_c (z_a − z_c), as in `softmax_per_row` with constant masks. They add up to 0, so a shift of z changes nothing.
    let mass = q.sum_keepdim(1)?;
    let masks = (at_largest.broadcast_mul(&mass)? - q)?;
    let shifted = outputs.broadcast_sub(&largest.detach())?;
    let short = (shifted * masks)?.sum(1)?;
    Ok((short + (mass.squeeze(1)? * tail)?)?)
}

/// The weights q of −ln p in each row's loss, shape (rows, classes).
fn target_distribution(
    outputs: &Tensor,
    labels: &Tensor,
    settings: &CrossEntropy,
) -> Result<Tensor> {
    let (k, dtype, device) = (outputs.dim(1)?.max(2), outputs.dtype(), outputs.device());
    let smoothing = settings.label_smoothing;
    let at_label = one_hot(&labels.unsqueeze(1)?, outputs)?;
    let q = at_label.affine(1.0 - smoothing, smoothing / k as f64)?;
    let weights: Vec<f64> = (0..k).map(|c| settings.class_weight(c)).collect();
    let weights = Tensor::from_vec(weights, (1, k), device)?.to_dtype(dtype)?;
    let q = q.broadcast_mul(&weights)?;
    Ok(match settings.ignored_label {
        Some(ignored) => {
            let counted = labels.ne(ignored)?.to_dtype(dtype)?;
            q.broadcast_mul(&counted.unsqueeze(1)?)?
        }
        None => q,
    })
}

/// Rows of outputs with their labels.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub(super) z: &'a [T],
    pub(super) labels: &'a [u32],
    /// Number of outputs of a row.
    pub(super) width: usize,
    pub(super) settings: &'a CrossEntropy,
}

impl<'a, T: Scalar> Rows<'a, T> {
    fn classes(&self) -> usize {
        self.width.max(2)
    }

    /// The factors of each row; see [`CrossEntropy::factors`].
    fn factors(&self) -> impl Iterator<Item = [f64; 2]> + 'a {
        let (settings, classes) = (self.settings, self.classes());
        let labels = self.labels.iter();
        labels.map(move |label| settings.factors(*label, classes))
    }

    /// Σ w_c
    fn total_weight(&self) -> f64 {
        let classes = 0..self.classes();
        classes.map(|c| self.settings.class_weight(c)).sum()
    }

    /// The sum of the rows' losses.
    pub(super) fn sum(&self) -> f64 {
        let (z, labels, width) = (self.z, self.labels, self.width);
        if width == 1 {
            let rows = z.iter().zip(labels).zip(self.factors());
            let losses = rows.map(|((z, label), [own, all])| {
                let m = margin(*z, *label);
                let tail = exp(-m.abs()).ln_1p();
                let mut loss = own * ((-m).max(0.0) + tail);
                if all > 0.0 {
                    let [absent, present] = [0, 1].map(|c| self.settings.class_weight(c));
                    let z = z.f64();
                    loss += all * (present * ((-z).max(0.0) + tail) + absent * (z.max(0.0) + tail));
                }
                loss
            });
            return losses.sum();
        }
        let exponentials = Exponentials::new(z, width);
        let rows = z.chunks_exact(width).zip(exponentials.rows());
        let rows = rows.zip(labels).zip(self.factors());
        let losses = rows.map(|(((z, row), label), [own, all])| {
            let (top, tail) = (z[row.largest].f64(), row.rest.ln_1p());
            let mut loss = 0.0;
            // An ignored label may be no class.
            if own > 0.0 {
                loss += own * ((top - z[*label as usize].f64()) + tail);
            }
            if all > 0.0 {
                for (c, z) in z.iter().enumerate() {
                    loss += all * self.settings.class_weight(c) * ((top - z.f64()) + tail);
                }
            }
            loss
        });
        losses.sum()
    }

    /// Number of counted rows whose largest output is at their label, or for one output, whose sign is right.
    pub(super) fn correct(&self) -> usize {
        let predicted = |row: &[T]| match row {
            [z] => u32::from(*z > T::ZERO),
            _ => largest(row) as u32,
        };
        let rows = self.z.chunks_exact(self.width).zip(self.labels);
        rows.filter(|(row, label)| predicted(row) == **label && !self.settings.is_ignored(**label))
            .count()
    }

    /// Writes `share` times the gradient of each row's loss in z.
    pub(super) fn gradient(&self, share: f64, dz: &mut [T]) {
        let (z, labels, width) = (self.z, self.labels, self.width);
        let weight = |class: usize| self.settings.class_weight(class);
        if width == 1 {
            let rows = dz.iter_mut().zip(z).zip(labels).zip(self.factors());
            for (((dz, z), label), [own, all]) in rows {
                let m = margin(*z, *label);
                let e = exp(-m.abs());
                let wrong = share * own * (if m > 0.0 { e } else { 1.0 } / (1.0 + e));
                let mut d = if *label == 1 { -wrong } else { wrong };
                if all > 0.0 {
                    let [p, rest] = sigmoids(z.f64(), e);
                    d += share * all * (weight(0) * p - weight(1) * rest);
                }
                *dz = T::from_f64(d);
            }
            return;
        }
        let total_weight = self.total_weight();
        let exponentials = Exponentials::new(z, width);
        let rows = dz.chunks_exact_mut(width).zip(exponentials.rows());
        for (((dz, row), label), [own, all]) in rows.zip(labels).zip(self.factors()) {
            if own == 0.0 && all == 0.0 {
                dz.fill(T::ZERO);
                continue;
            }
            let (total, label) = (1.0 + row.rest, *label as usize);
            let share_of_row = share * own;
            if all == 0.0 {
                for (d, e) in dz.iter_mut().zip(row.others) {
                    *d = T::from_f64(share_of_row * (e / total));
                }
                dz[row.largest] = T::from_f64(share_of_row * (1.0 / total));
                dz[label] = T::from_f64(share_of_row * row.minus_others(label));
                continue;
            }
            for (c, d) in dz.iter_mut().enumerate() {
                let p = row.probability(c);
                let of_label = if c == label { row.minus_others(c) } else { p };
                let of_all = total_weight * p - weight(c);
                *d = T::from_f64(share_of_row * of_label + share * all * of_all);
            }
        }
    }

    /// The factor `share` Σ q of the curvature of each row's loss.
    fn weights(&self, share: f64) -> Vec<f64> {
        let total_weight = self.total_weight();
        let factors = self.factors();
        let weights = factors.map(|[own, all]| share * (own + all * total_weight));
        weights.collect()
    }

    /// The probabilities of the classes, with the rows' weights.
    pub(super) fn probabilities(&self, share: f64) -> ClassProbabilities {
        let classes = self.classes();
        let mut found = ClassProbabilities {
            classes,
            width: self.width,
            of_class: Vec::with_capacity(self.labels.len() * classes),
            of_others: Vec::with_capacity(self.labels.len() * classes),
            weights: self.weights(share),
        };
        if self.width == 1 {
            for z in self.z {
                let [present, absent] = sigmoids(z.f64(), exp(-z.f64().abs()));
                found.of_class.extend([absent, present]);
                found.of_others.extend([present, absent]);
            }
            return found;
        }
        for row in Exponentials::new(self.z, self.width).rows() {
            let all = 0..classes;
            found
                .of_class
                .extend(all.clone().map(|c| row.probability(c)));
            found.of_others.extend(all.map(|c| -row.minus_others(c)));
        }
        found
    }

    /// Writes the product of each row and each tangent with the curvature of the own class or of the others, as
    /// [`Self::curvature_product`].
    pub(super) fn class_product(
        &self,
        curvature: Curvature,
        positions: usize,
        share: f64,
        rz: &[T],
        rdz: &mut [T],
    ) {
        let width = self.width;
        let (size, k) = (width * positions, rz.len() / self.z.len());
        let probabilities = self.probabilities(share);
        let samples = rz
            .chunks_exact(k * size)
            .zip(rdz.chunks_exact_mut(k * size));
        for (sample, (rz, rdz)) in samples.enumerate() {
            for (rz, rdz) in rz.chunks_exact(size).zip(rdz.chunks_exact_mut(size)) {
                let tangents = rz.chunks_exact(width).zip(rdz.chunks_exact_mut(width));
                for (row, (rz, rdz)) in (sample * positions..).zip(tangents) {
                    probabilities.product(curvature, (row, self.labels[row]), rz, rdz);
                }
            }
        }
    }

    /// Writes dz = Sw for each row, with the root S of `share` Q (diag p − ppᵀ) whose column c is √(`share` Q p_c) (e_c − p). For one
    /// output S is √(`share` Q p(1 − p)).
    pub(super) fn curvature_root(&self, share: f64, weights: &[f64], dz: &mut [T]) {
        let (z, width) = (self.z, self.width);
        let sizes = self.weights(share).into_iter().map(f64::sqrt);
        if width == 1 {
            for (((dz, z), w), size) in dz.iter_mut().zip(z).zip(weights).zip(sizes) {
                let e = exp(-z.f64().abs());
                *dz = T::from_f64(size * w * e.sqrt() / (1.0 + e));
            }
            return;
        }
        let exponentials = Exponentials::new(z, width);
        let rows = dz.chunks_exact_mut(width).zip(exponentials.rows());
        let rows = rows.zip(weights.chunks_exact(width)).zip(sizes);
        for (((dz, row), weights), size) in rows {
            let total = 1.0 + row.rest;
            let root = |c: usize| row.probability(c).sqrt() * weights[c];
            let of_largest = root(row.largest);
            let others = (0..width).filter(|c| *c != row.largest);
            let of_others: f64 = others.map(root).sum();
            for (c, d) in dz.iter_mut().enumerate() {
                let of_class = row.probability(c) * (of_others + of_largest);
                *d = T::from_f64(size * (root(c) - of_class));
            }
            // 1 − p of the largest class is the sum of the others.
            let own = of_largest * (row.rest / total);
            dz[row.largest] = T::from_f64(size * (own - of_others / total));
        }
    }

    /// Writes rdz = `share` Q (diag p − ppᵀ) rz for each row and each of `k` tangents, with the row's Q = Σ q. A sample has
    /// `positions` rows.
    pub(super) fn curvature_product(&self, positions: usize, share: f64, rz: &[T], rdz: &mut [T]) {
        let (z, width) = (self.z, self.width);
        let (size, k) = (width * positions, rz.len() / z.len());
        let shares = self.weights(share);
        let samples = rz
            .chunks_exact(k * size)
            .zip(rdz.chunks_exact_mut(k * size));
        let samples = shares.chunks_exact(positions).zip(samples);
        if width == 1 {
            for (z, (shares, (rz, rdz))) in z.chunks_exact(size).zip(samples) {
                let tangents = rz.chunks_exact(size).zip(rdz.chunks_exact_mut(size));
                for (rz, rdz) in tangents {
                    for (((z, share), rz), rdz) in z.iter().zip(shares).zip(rz).zip(rdz) {
                        let e = exp(-z.f64().abs());
                        *rdz = T::from_f64(share * (e / ((1.0 + e) * (1.0 + e)))) * *rz;
                    }
                }
            }
            return;
        }
        let exponentials = Exponentials::new(z, width);
        let rows: Vec<Row> = exponentials.rows().collect();
        for (rows, (shares, (rz, rdz))) in rows.chunks_exact(positions).zip(samples) {
            for (rz, rdz) in rz.chunks_exact(size).zip(rdz.chunks_exact_mut(size)) {
                let tangents = rz.chunks_exact(width).zip(rdz.chunks_exact_mut(width));
                for ((row, share), (rz, rdz)) in rows.iter().zip(shares).zip(tangents) {
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
}

/// The probabilities of the classes in rows of outputs.
///
/// The curvature of a row's loss in its outputs is weight · Σ_c p_c (e_c − p)(e_c − p)ᵀ.
#[derive(Clone, Debug)]
pub(crate) struct ClassProbabilities {
    /// Number of classes.
    pub(crate) classes: usize,
    /// Number of outputs of a row: one per class, or a single one for the classes 0 and 1.
    pub(crate) width: usize,
    /// p, shape (rows, classes).
    pub(crate) of_class: Vec<f64>,
    /// 1 − p, shape (rows, classes): the sums of the other classes' probabilities.
    pub(crate) of_others: Vec<f64>,
    /// Weight of each row: 1 over the number of a sample's rows, times the factors of the settings; 0 for an ignored label.
    pub(crate) weights: Vec<f64>,
}

impl ClassProbabilities {
    /// The probability of `class` in a row.
    pub(crate) fn probability(&self, row: usize, class: usize) -> f64 {
        self.of_class[row * self.classes + class]
    }

    /// The entries of e_c − p at the outputs of a row, for c = `class`. A single output is that of class 1.
    pub(crate) fn deviation(&self, row: usize, class: usize) -> impl Iterator<Item = f64> + '_ {
        let first = self.classes - self.width;
        (first..self.classes).map(move |j| {
            let i = row * self.classes + j;
            match j == class {
                true => self.of_others[i],
                false => -self.of_class[i],
            }
        })
    }

    /// Writes the product of rz with the curvature of a row's own class y, weight · p_y (e_y − p)(e_y − p)ᵀ, or with
    /// [`Curvature::OtherClasses`] that of the others, weight · Σ_{c ≠ y} p_c (e_c − p)(e_c − p)ᵀ.
    pub(crate) fn product<T: Scalar>(
        &self,
        curvature: Curvature,
        (row, label): (usize, u32),
        rz: &[T],
        rdz: &mut [T],
    ) {
        let (weight, own) = (self.weights[row], label as usize);
        if weight == 0.0 {
            // An ignored label may be no class.
            rdz.fill(T::ZERO);
            return;
        }
        if curvature == Curvature::OwnClass {
            let along = self.deviation(row, own).zip(rz);
            let along: f64 = along.map(|(u, z)| u * z.f64()).sum();
            let factor = weight * self.probability(row, own) * along;
            for (r, u) in rdz.iter_mut().zip(self.deviation(row, own)) {
                *r = T::from_f64(factor * u);
            }
            return;
        }
        // The products are invariant to a shift of rz: the own class, whose p may round to 1, is shifted to 0.
        let first = self.classes - self.width;
        let value = |class: usize| match class < first {
            true => 0.0,
            false => rz[class - first].f64(),
        };
        let shifted = |class: usize| value(class) - value(own);
        let p = &self.of_class[row * self.classes..][..self.classes];
        let mean: f64 = (0..self.classes).map(|c| p[c] * shifted(c)).sum();
        let term = |class: usize| match class == own {
            true => 0.0,
            false => p[class] * (shifted(class) - mean),
        };
        let sum: f64 = (0..self.classes).map(term).sum();
        for (r, class) in rdz.iter_mut().zip(first..) {
            *r = T::from_f64(weight * (term(class) - p[class] * sum));
        }
    }
}

/// σ(z) and σ(−z) with e = exp(−|z|).
pub(super) fn sigmoids(z: f64, e: f64) -> [f64; 2] {
    let [larger, smaller] = [1.0 / (1.0 + e), e / (1.0 + e)];
    match z > 0.0 {
        true => [larger, smaller],
        false => [smaller, larger],
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
pub(super) fn exp(x: f64) -> f64 {
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

impl Row<'_> {
    fn probability(&self, class: usize) -> f64 {
        let total = 1.0 + self.rest;
        match class == self.largest {
            true => 1.0 / total,
            false => self.others[class] / total,
        }
    }

    /// −(1 − p) of a class: minus the sum of the other probabilities.
    fn minus_others(&self, class: usize) -> f64 {
        let total = 1.0 + self.rest;
        match class == self.largest {
            true => -self.rest / total,
            false => -(1.0 + (self.rest - self.others[class])) / total,
        }
    }
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
