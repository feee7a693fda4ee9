//! [`Curve`]: a path between two models in parameter space.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check_finite};
use crate::vector::{axpy, dot, minus, norm};

/// A path φ(t), 0 ≤ t ≤ 1, between two fixed endpoints in parameter space.
///
/// ```
/// use loss_landscape::landscape::Curve;
/// use loss_landscape::prelude::*;
///
/// let corner = Curve::chain(vec![vec![0.0, 0.0], vec![3.0, 0.0], vec![3.0, 4.0]])?;
/// assert_eq!(corner.at(0.75)?, [3.0, 2.0]);
/// assert_eq!(corner.length(), 7.0);
/// let straight = Curve::linear(&[0.0, 0.0], &[3.0, 4.0])?;
/// assert_eq!(straight.length(), 5.0);
/// let bent = Curve::bezier(&[0.0, 0.0], &[3.0, 0.0], &[3.0, 4.0])?;
/// assert_eq!(bent.at(0.5)?, [2.25, 1.0]); // ¼a + ½m + ¼b
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    #[serde(rename = "shape")]
    kind: CurveKind,
    points: Vec<Vec<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum CurveKind {
    Bezier,
    Chain,
}

/// A flat piece of a path: all its points are o + αd₁ + βd₂.
pub(super) struct Frame {
    pub(super) origin: Vec<f64>,
    pub(super) d1: Vec<f64>,
    pub(super) d2: Vec<f64>,
}

impl Curve {
    /// Creates the straight line φ(t) = (1 − t)a + tb.
    ///
    /// # Errors
    /// The points differ in length or have entries that are not finite.
    pub fn linear(a: &[f64], b: &[f64]) -> Result<Self> {
        Self::chain(vec![a.to_vec(), b.to_vec()])
    }

    /// Creates the quadratic Bézier curve φ(t) = (1 − t)²a + 2t(1 − t)m + t²b with the bend m (Garipov et al., "Loss
    /// Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", 2018).
    ///
    /// # Errors
    /// As [`Curve::linear`].
    pub fn bezier(a: &[f64], bend: &[f64], b: &[f64]) -> Result<Self> {
        Self::new(
            CurveKind::Bezier,
            vec![a.to_vec(), bend.to_vec(), b.to_vec()],
        )
    }

    /// Creates a polygonal chain through `points`. Each segment takes the same share of t.
    ///
    /// # Errors
    /// `points` has fewer than two entries; as [`Curve::linear`].
    pub fn chain(points: Vec<Vec<f64>>) -> Result<Self> {
        Self::new(CurveKind::Chain, points)
    }

    fn new(kind: CurveKind, points: Vec<Vec<f64>>) -> Result<Self> {
        if points.len() < 2 {
            return Err(Error::invalid(format!(
                "a path needs at least 2 points, its ends, found {}",
                points.len()
            )));
        }
        for (i, point) in points.iter().enumerate() {
            if point.len() != points[0].len() {
                return Err(Error::invalid(format!(
                    "point {i} of the path has {} entries, the first has {}: all points of a path must be parameters of \
                     one architecture",
                    point.len(),
                    points[0].len()
                )));
            }
            check_finite(point, &format!("point {i} of the path"))?;
        }
        Ok(Self { kind, points })
    }

    /// Control points: the two ends and the bends between them.
    pub fn points(&self) -> &[Vec<f64>] {
        &self.points
    }

    /// Returns φ(t), shape `(d,)`.
    ///
    /// # Errors
    /// `t` is not between 0 and 1.
    pub fn at(&self, t: f64) -> Result<Vec<f64>> {
        if !(0.0..=1.0).contains(&t) {
            return Err(Error::invalid(format!(
                "t = {t} is not on the path: use 0 ≤ t ≤ 1"
            )));
        }
        let mut point = vec![0.0; self.points[0].len()];
        for (weight, control) in self.weights(t).iter().zip(&self.points) {
            if *weight != 0.0 {
                axpy(*weight, control, &mut point);
            }
        }
        Ok(point)
    }

    /// Returns the weight of each control point in φ(t), which is also the derivative of φ(t) by that point.
    pub(super) fn weights(&self, t: f64) -> Vec<f64> {
        match self.kind {
            CurveKind::Bezier => {
                let s = 1.0 - t;
                vec![s * s, 2.0 * s * t, t * t]
            }
            CurveKind::Chain => {
                let (segment, s) = self.segment(t);
                let mut weights = vec![0.0; self.points.len()];
                weights[segment] = 1.0 - s;
                weights[segment + 1] = s;
                weights
            }
        }
    }

    /// Returns the length ∫‖φ'(t)‖dt. For a Bézier curve it is computed by the midpoint rule, to about eight digits.
    pub fn length(&self) -> f64 {
        const STEPS: usize = 10_000;
        match self.kind {
            CurveKind::Chain => {
                let segments = self.points.windows(2);
                segments.map(|ends| norm(&minus(&ends[1], &ends[0]))).sum()
            }
            CurveKind::Bezier => {
                // φ' = 2(1 − t)u + 2tv, where u and v are the sides of the control polygon.
                let [u, v] = [0, 1].map(|i| minus(&self.points[i + 1], &self.points[i]));
                let turn = minus(&v, &u);
                let [uu, ut, tt] = [dot(&u, &u), dot(&u, &turn), dot(&turn, &turn)];
                let speed = |t: f64| 2.0 * (uu + 2.0 * t * ut + t * t * tt).max(0.0).sqrt();
                let middles = (0..STEPS).map(|i| (i as f64 + 0.5) / STEPS as f64);
                middles.map(speed).sum::<f64>() / STEPS as f64
            }
        }
    }

    /// Returns the flat piece that φ(t) lies on, and its α and β in the piece's [`Frame`].
    pub(super) fn position(&self, t: f64) -> (usize, [f64; 2]) {
        match self.kind {
            CurveKind::Bezier => (0, [2.0 * t * (1.0 - t), t * t]),
            CurveKind::Chain => {
                let (segment, s) = self.segment(t);
                (segment, [s, 0.0])
            }
        }
    }

    /// Returns the frame of a flat piece: the plane of a Bézier curve or the line of a chain's segment.
    pub(super) fn frame(&self, piece: usize) -> Frame {
        let origin = &self.points[piece];
        let d1 = minus(&self.points[piece + 1], origin);
        let d2 = match self.kind {
            CurveKind::Bezier => minus(&self.points[2], origin),
            CurveKind::Chain => vec![0.0; origin.len()],
        };
        Frame {
            origin: origin.clone(),
            d1,
            d2,
        }
    }

    /// Returns the segment of a chain at t, and the position within it, from 0 to 1.
    fn segment(&self, t: f64) -> (usize, f64) {
        let segments = self.points.len() - 1;
        let position = t * segments as f64;
        let segment = (position as usize).min(segments - 1);
        (segment, position - segment as f64)
    }
}
