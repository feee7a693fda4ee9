//! [`Umap`]: uniform manifold approximation and projection.

use ndarray::Array2;
use rand::Rng;
use serde::{Deserialize, Serialize};
use umap_rs::{GraphParams, ManifoldParams, UmapConfig};

use super::{Distances, Points, check_components};
use crate::error::{Error, Result, counted};
use crate::progress::{self, Progress};
use crate::random::{Purpose, generator, normal};
use crate::vector::{axpy, dot};

/// Settings of UMAP (McInnes, Healy and Melville, 2018): a weighted graph of nearest neighbours, laid out so that connected
/// points attract and random pairs repel each other.
///
/// The graph is computed by the library `umap-rs` from exact neighbours. The layout follows algorithm 5 of the paper: the
/// library's own layout takes no seed and lets its threads race. The same seed gives the same bits.
///
/// ```
/// use loss_landscape::embedding::{Distances, Umap};
/// use loss_landscape::prelude::*;
///
/// // Two distant clusters stay apart.
/// let points: Vec<Vec<f64>> = (0..20)
///     .map(|i| vec![f64::from(i % 10) + 1000.0 * f64::from(i / 10), 0.0])
///     .collect();
/// let embedding = Umap::default().with_neighbors(5).with_epochs(50).run(&points)?;
/// assert_eq!(embedding.dim(), (20, 2));
/// assert!(Distances::new(&points)?.trustworthiness(&embedding, 5)? > 0.9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Umap {
    /// Number of nearest neighbours, the point itself included as in the authors' implementation [default: 15]. At most n − 1
    /// of n points are used.
    pub neighbors: usize,
    /// Minimum distance between points in the embedding, from 0 to 1 [default: 0.1].
    pub min_distance: f64,
    /// Dimension of the embedding [default: 2].
    pub components: usize,
    /// Number of passes over the edges [default: 500].
    pub epochs: usize,
    /// Seed of the repelled pairs and of the initial noise [default: 0].
    pub seed: u64,
}

impl Default for Umap {
    fn default() -> Self {
        Self {
            neighbors: 15,
            min_distance: 0.1,
            components: 2,
            epochs: 500,
            seed: 0,
        }
    }
}

/// A directed edge, which attracts its tail to its head and its head to its tail.
struct Edge {
    head: usize,
    tail: usize,
    /// Epochs between two updates, and the epoch of the next one.
    period: f64,
    next: f64,
}

/// Number of repelled pairs per attracted pair.
const NEGATIVE_SAMPLES: usize = 5;

impl Umap {
    /// Sets the number of nearest neighbours, the point itself included.
    #[must_use]
    pub fn with_neighbors(mut self, neighbors: usize) -> Self {
        self.neighbors = neighbors;
        self
    }
    /// Sets the minimum distance between points in the embedding.
    #[must_use]
    pub fn with_min_distance(mut self, min_distance: f64) -> Self {
        self.min_distance = min_distance;
        self
    }
    /// Sets the dimension of the embedding.
    #[must_use]
    pub fn with_components(mut self, components: usize) -> Self {
        self.components = components;
        self
    }
    /// Sets the number of passes over the edges.
    #[must_use]
    pub fn with_epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }
    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Computes coordinates of `points`, shape `(n, components)`, in arbitrary units. The layout starts from principal
    /// coordinates.
    ///
    /// # Errors
    /// There are fewer than 3 points; a setting is out of its range, or `components` or `epochs` is 0; as [`Distances::new`].
    pub fn run(&self, points: &dyn Points) -> Result<Array2<f64>> {
        check_components(self.components)?;
        if self.neighbors < 2 || self.epochs == 0 || !(0.0..=1.0).contains(&self.min_distance) {
            return Err(Error::invalid(format!(
                "UMAP with {}, minimum distance {} and {}: use at least 2 neighbours, \
                 a distance from 0 to 1, and at least one epoch",
                counted(self.neighbors, "neighbour"),
                self.min_distance,
                counted(self.epochs, "epoch")
            )));
        }
        let n = points.count();
        if n < 3 {
            return Err(Error::invalid(format!(
                "UMAP of {}: it needs at least 3",
                counted(n, "point")
            )));
        }
        let distances = Distances::new(points)?;
        let edges = self.edges(&distances)?;
        let start = self.start(&distances)?;
        self.layout(edges, start)
    }

    /// Returns the edges that are used at least once.
    fn edges(&self, distances: &Distances) -> Result<Vec<Edge>> {
        let n = distances.count();
        let k = self.neighbors.min(n - 1);
        // Ratios of distances fit into f32, whatever their scale.
        let size = (distances.total() / n as f64).sqrt().max(f64::MIN_POSITIVE);
        let mut indices = Array2::zeros((n, k));
        let mut lengths = Array2::zeros((n, k));
        for i in 0..n {
            let nearest = [i].into_iter().chain(distances.neighbors(i)?);
            for (j, neighbor) in nearest.take(k).enumerate() {
                indices[[i, j]] = neighbor as u32;
                lengths[[i, j]] = (distances.between(i, neighbor)? / size) as f32;
            }
        }
        let config = UmapConfig {
            n_components: self.components,
            graph: GraphParams {
                n_neighbors: k,
                ..GraphParams::default()
            },
            // The graph does not use them, and the library would fit them at a cost.
            manifold: ManifoldParams {
                a: Some(1.0),
                b: Some(1.0),
                ..ManifoldParams::default()
            },
            ..UmapConfig::default()
        };
        // The library uses only the number of points.
        let rows = Array2::zeros((n, 0));
        let learned =
            umap_rs::Umap::new(config).learn_manifold(rows.view(), indices.view(), lengths.view());
        let weights = learned.graph().iter();
        let edges = weights.map(|(weight, (head, tail))| (f64::from(*weight), head, tail));
        let edges: Vec<_> = edges.collect();
        let largest = edges
            .iter()
            .fold(0.0, |m: f64, (weight, ..)| m.max(*weight));
        Ok(edges
            .into_iter()
            .map(|(weight, head, tail)| (largest / weight, head as usize, tail as usize))
            .filter(|(period, ..)| *period <= self.epochs as f64)
            .map(|(period, head, tail)| Edge {
                head,
                tail,
                period,
                next: period,
            })
            .collect())
    }

    /// Returns principal coordinates scaled to about 10, with a little noise to separate equal points.
    fn start(&self, distances: &Distances) -> Result<Vec<Vec<f64>>> {
        let coordinates = distances.coordinates()?;
        let largest = coordinates.iter().fold(0.0, |m: f64, c| m.max(c.abs()));
        let scale = 10.0 / largest.max(f64::MIN_POSITIVE);
        let noise = normal(
            distances.count() * self.components,
            Purpose::UmapStart,
            self.seed,
            0,
        );
        let rows = noise.chunks(self.components).enumerate().map(|(i, noise)| {
            let at = |j| coordinates.get((i, j)).map_or(0.0, |c| scale * c);
            let entries = noise.iter().enumerate().map(|(j, e)| at(j) + 1e-4 * e);
            entries.collect()
        });
        Ok(rows.collect())
    }

    fn layout(&self, mut edges: Vec<Edge>, mut points: Vec<Vec<f64>>) -> Result<Array2<f64>> {
        let n = points.len();
        let (a, b) = curve(self.min_distance);
        let mut rng = generator(Purpose::UmapNegatives, self.seed, 0);
        let mut progress = Progress::start("UMAP");
        for epoch in 0..self.epochs {
            progress::check()?;
            let rate = 1.0 - epoch as f64 / self.epochs as f64;
            for edge in &mut edges {
                if edge.next > epoch as f64 {
                    continue;
                }
                edge.next += edge.period;
                let (offset, squared) = difference(&points, edge.head, edge.tail);
                if squared > 0.0 {
                    let power = a * squared.powf(b);
                    let pull = -2.0 * b * power / squared / (1.0 + power);
                    let step = clipped(&offset, pull);
                    axpy(rate, &step, &mut points[edge.head]);
                    axpy(-rate, &step, &mut points[edge.tail]);
                }
                for _ in 0..NEGATIVE_SAMPLES {
                    let other = rng.random_range(0..n);
                    let (offset, squared) = difference(&points, edge.head, other);
                    let power = a * squared.powf(b);
                    let push = 2.0 * b / ((0.001 + squared) * (1.0 + power));
                    axpy(rate, &clipped(&offset, push), &mut points[edge.head]);
                }
            }
            progress.part(epoch + 1, self.epochs);
        }
        Ok(Array2::from_shape_fn((n, self.components), |(i, j)| {
            points[i][j]
        }))
    }
}

/// Returns the vector from the tail to the head, and its squared norm.
fn difference(points: &[Vec<f64>], head: usize, tail: usize) -> (Vec<f64>, f64) {
    let pairs = points[head].iter().zip(&points[tail]);
    let offset: Vec<f64> = pairs.map(|(x, y)| x - y).collect();
    let squared = dot(&offset, &offset);
    (offset, squared)
}

fn clipped(offset: &[f64], factor: f64) -> Vec<f64> {
    offset
        .iter()
        .map(|x| (factor * x).clamp(-4.0, 4.0))
        .collect()
}

/// Fits a and b such that 1 / (1 + a x²ᵇ) approximates 1 for x below `min_distance` and e^(min_distance − x) above, on 300
/// values of x from 0 to 3: Gauss–Newton steps in ln a and ln b, halved until the error decreases.
fn curve(min_distance: f64) -> (f64, f64) {
    let at = |i: usize| {
        let x = 3.0 * i as f64 / 299.0;
        (x, (min_distance - x).min(0.0).exp())
    };
    let wanted: Vec<(f64, f64)> = (1..300).map(at).collect();
    let value = |x: f64, [a, b]: [f64; 2]| 1.0 / (1.0 + (a + 2.0 * b.exp() * x.ln()).exp());
    let misfit = |p| -> f64 {
        let terms = wanted.iter().map(|(x, y)| (value(*x, p) - y).powi(2));
        terms.sum()
    };
    let mut p = [0.0, 0.0];
    for _ in 0..100 {
        let (mut m, mut r) = ([0.0; 3], [0.0; 2]);
        for (x, y) in &wanted {
            let f = value(*x, p);
            let by_a = -f * (1.0 - f);
            let by_b = by_a * 2.0 * p[1].exp() * x.ln();
            m = [m[0] + by_a * by_a, m[1] + by_a * by_b, m[2] + by_b * by_b];
            r = [r[0] + by_a * (y - f), r[1] + by_b * (y - f)];
        }
        let determinant = m[0] * m[2] - m[1] * m[1];
        let step = [
            (m[2] * r[0] - m[1] * r[1]) / determinant,
            (m[0] * r[1] - m[1] * r[0]) / determinant,
        ];
        let halved = (0..30).map(|i| 0.5f64.powi(i));
        let tried = halved.map(|s| [p[0] + s * step[0], p[1] + s * step[1]]);
        let now = misfit(p);
        match tried.into_iter().find(|tried| misfit(*tried) < now) {
            Some(better) => p = better,
            None => break,
        }
    }
    (p[0].exp(), p[1].exp())
}
