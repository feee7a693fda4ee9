//! [`Exchange`]: the sums of XTrace (Epperly, Tropp and Webber, "XTrace: making the most of every sample in
//! stochastic trace estimation", 2024).

use super::Estimate;
use super::krylov::{extend, products};
use super::product::in_turn;
use super::trace::{Power, rounding};
use crate::error::Result;
use crate::operator::LinearOperator;
use crate::vector::{axpy, dot, norm, scale};

/// Vectors ω with y = Aω, and Y = QR with Z = AQ.
pub(super) struct Exchange {
    power: Power,
    probes: Vec<Vec<f64>>,
    probe_images: Vec<Vec<f64>>,
    range: Vec<Vec<f64>>,
    range_images: Vec<Vec<f64>>,
    /// R's columns.
    triangle: Vec<Vec<f64>>,
    /// QᵀBQ, QᵀBΩ and QᵀΩ, row by row.
    inner: Vec<Vec<f64>>,
    mixed: Vec<Vec<f64>>,
    cross: Vec<Vec<f64>>,
}

impl Exchange {
    pub(super) fn new(power: Power) -> Self {
        Self {
            power,
            probes: Vec::new(),
            probe_images: Vec::new(),
            range: Vec::new(),
            range_images: Vec::new(),
            triangle: Vec::new(),
            inner: Vec::new(),
            mixed: Vec::new(),
            cross: Vec::new(),
        }
    }

    pub(super) fn probes(&self) -> usize {
        self.probes.len()
    }

    pub(super) fn products(&self) -> usize {
        self.probes.len() + self.range.len()
    }

    /// Takes more vectors in; true if their images add nothing to the range, which is then all of A's.
    pub(super) fn add(
        &mut self,
        operator: &(impl LinearOperator + ?Sized),
        probes: Vec<Vec<f64>>,
    ) -> Result<bool> {
        let known = self.range.len();
        let mut exhausted = false;
        for (probe, image) in probes.iter().zip(in_turn(operator, &probes)?) {
            let smallest = rounding(probe.len(), norm(&image));
            let (mut column, length, q) = extend(image.clone(), &self.range, smallest);
            match q {
                Some(q) if !exhausted => {
                    column.push(length);
                    self.range.push(q);
                    self.triangle.push(column);
                }
                _ => exhausted = true,
            }
            self.probe_images.push(image);
        }
        self.probes.extend(probes);
        let images = in_turn(operator, &self.range[known..])?;
        self.range_images.extend(images);
        // uᵀA²w = (Au)ᵀ(Aw).
        let left = match self.power {
            Power::One => &self.range,
            Power::Two => &self.range_images,
        };
        complete(&mut self.inner, left, &self.range_images);
        complete(&mut self.mixed, left, &self.probe_images);
        complete(&mut self.cross, &self.range, &self.probes);
        Ok(exhausted)
    }

    /// tr(QᵀBQ)
    fn inside(&self) -> f64 {
        (0..self.range.len()).map(|i| self.inner[i][i]).sum()
    }

    /// The trace where Q spans A's range.
    pub(super) fn exact(&self) -> Estimate {
        let size: f64 = (0..self.range.len()).map(|i| self.inner[i][i].abs()).sum();
        Estimate {
            value: self.inside(),
            standard_error: rounding(self.probes[0].len(), size),
            samples: self.probes.len(),
            products: self.products(),
            converged: true,
        }
    }

    /// The mean over i of the estimate whose range leaves ωᵢ out and whose sample is ωᵢ.
    ///
    /// Without the i-th column, Y spans what Q does but for Qs, where s is the unit vector that R's other columns
    /// are orthogonal to: s ∝ R⁻ᵀeᵢ.
    pub(super) fn estimate(&self) -> Estimate {
        let (n, m, inside) = (self.probes[0].len(), self.range.len(), self.inside());
        let column =
            |table: &[Vec<f64>], i: usize| -> Vec<f64> { table.iter().map(|row| row[i]).collect() };
        let times = |v: &[f64]| -> Vec<f64> { self.inner.iter().map(|row| dot(row, v)).collect() };
        let sample = |i: usize| {
            let (probe, image) = (&self.probes[i], &self.probe_images[i]);
            let s = self.left_out(i);
            let mut x = column(&self.cross, i);
            axpy(-dot(&s, &x), &s, &mut x);
            // (ω − Qx)ᵀB(ω − Qx), scaled to what a vector on the sphere of the rest of the space would give.
            let whole = match self.power {
                Power::One => dot(probe, image),
                Power::Two => dot(image, image),
            };
            let rest = whole - 2.0 * dot(&x, &column(&self.mixed, i)) + dot(&x, &times(&x));
            let left = dot(probe, probe) - dot(&x, &x);
            inside - dot(&s, &times(&s)) + rest * (n - m + 1) as f64 / left
        };
        Estimate {
            products: self.products(),
            ..Estimate::of(&(0..m).map(sample).collect::<Vec<f64>>())
        }
    }

    /// R⁻ᵀeᵢ, of length 1, by forward substitution.
    fn left_out(&self, i: usize) -> Vec<f64> {
        let m = self.triangle.len();
        let mut s = vec![0.0; m];
        for j in i..m {
            let column = &self.triangle[j];
            let right = f64::from(u8::from(i == j));
            s[j] = (right - dot(&column[..j], &s[..j])) / column[j];
        }
        let length = norm(&s);
        scale(&mut s, 1.0 / length);
        s
    }
}

/// Fills in what is missing of the table of products aᵢᵀbⱼ.
fn complete(table: &mut Vec<Vec<f64>>, a: &[Vec<f64>], b: &[Vec<f64>]) {
    let (rows, columns) = (table.len(), table.first().map_or(0, Vec::len));
    for (row, more) in table.iter_mut().zip(products(&a[..rows], &b[columns..])) {
        row.extend(more);
    }
    table.extend(products(&a[rows..], b));
}
