//! [`CentralFlow`]: the path of the mean of gradient descent at the edge of stability.

use serde::{Deserialize, Serialize};

use super::edge_covariance::edge_covariance;
use crate::error::{Error, Result, check_positive};
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::progress::Progress;
use crate::spectral::{Following, Lanczos, Which};
use crate::vector::{axpy, dot, minus, norm};

/// Steps of the flow per step of gradient descent. With one, gradient flow itself would be unstable at 2/η.
const PARTS: usize = 4;

/// Eigenvalues above this fraction of 2/η can reach it in a part of a step.
const NEAR: f64 = 0.9;

/// Central flow of gradient descent beside its iterates (Cohen et al., "Understanding Optimization in Deep Learning with Central Flows",
/// 2024):
///
/// dw/dt = −η (∇L(w) + ½ ∇⟨H(w), Σ⟩)
///
/// At the edge of stability gradient descent oscillates around w along the eigenvectors of H whose eigenvalues are at 2/η. Σ is the
/// covariance of the oscillation: the positive semidefinite matrix on these eigenvectors that keeps all eigenvalues at or below 2/η and is
/// zero where they fall below it. Time is in steps. The mean loss of gradient descent is predicted as L(w) + ½⟨H, Σ⟩.
///
/// Each quarter of a step takes one gradient, a few products, and with m eigenvalues near the edge 2m products with m vectors for the
/// third derivatives, by central differences.
///
/// ```
/// use loss_landscape::landscape::CentralFlow;
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² with λ_max = 8: below the edge it is gradient flow, w = exp(−8 η t).
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 1.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let flow = CentralFlow::new(0.001).with_interval(1).with_pairs(1);
/// let report = flow.run(&objective, 11)?;
/// let last = &report.points[10];
/// let exact = 4.0 * (-2.0 * 8.0 * 0.001 * 10.0f64).exp();
/// assert!((last.flow_loss - exact).abs() < 0.01 * exact && last.variance == 0.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CentralFlow {
    /// Learning rate η.
    pub learning_rate: f64,
    /// Number of steps over which the points of the report are means.
    pub interval: usize,
    /// Largest number of eigenvalues at the edge.
    pub pairs: usize,
    /// Search for the eigenvalues.
    pub lanczos: Lanczos,
}

impl CentralFlow {
    /// The flow for this learning rate: means over 20 steps, at most 4 eigenvalues at the edge, to a residual of 10⁻³.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            interval: 20,
            pairs: 4,
            lanczos: Lanczos::default().with_tolerance(1e-3),
        }
    }

    /// Sets the number of steps over which the points of the report are means [default: 20].
    #[must_use]
    pub fn with_interval(mut self, steps: usize) -> Self {
        self.interval = steps;
        self
    }

    /// Sets the largest number of eigenvalues at the edge [default: 4].
    #[must_use]
    pub fn with_pairs(mut self, pairs: usize) -> Self {
        self.pairs = pairs;
        self
    }

    /// Computes `steps` steps of full-batch gradient descent and of the flow, both from the model's current parameters, which do not
    /// change.
    ///
    /// # Errors
    /// A learning rate that is not a finite number above 0; an interval or number of pairs of 0, or more pairs than parameters; samples
    /// distributed over ranks; a loss, gradient or product that is not finite, as when gradient descent diverges; more eigenvalues reach
    /// the edge than `pairs`.
    pub fn run(&self, objective: &Objective, steps: usize) -> Result<CentralFlowReport> {
        let rate = self.learning_rate;
        check_positive(rate, "the learning rate")?;
        let n = objective.dim();
        if self.interval == 0 || self.pairs == 0 || self.pairs > n {
            return Err(Error::invalid(format!(
                "{} eigenvalues and means over {} steps: give 1 to {n} eigenvalues and at least 1 step",
                self.pairs, self.interval
            )));
        }
        objective.needs_one_rank("the central flow")?;
        let start = objective.parameters().to_flat()?;
        let (mut descent, mut flow) = (start.clone(), start);
        let lanczos = self.lanczos.clone().with_which(Which::Largest);
        let mut following = Following::new(lanczos, self.pairs);
        let mut progress = Progress::start("central flow");
        let mut points = Vec::with_capacity(steps.div_ceil(self.interval));
        let mut means = Means::new(n);
        for step in 0..steps {
            let (loss, gradient) = objective.gradient_at(&descent)?;
            let before = (loss, descent.clone());
            axpy(-rate, &gradient, &mut descent);
            let mut first = None;
            for _ in 0..PARTS {
                let moved = self.part(objective, &mut following, &mut flow)?;
                first.get_or_insert(moved);
            }
            if let Some(at) = first {
                means.add(&before, &at);
            }
            if (step + 1).is_multiple_of(self.interval) || step + 1 == steps {
                points.push(means.point(step + 1));
                means = Means::new(n);
            }
            progress.part(step + 1, steps);
        }
        Ok(CentralFlowReport {
            learning_rate: rate,
            points,
        })
    }

    /// Moves the flow by a part of a step. Returns its state before.
    fn part(
        &self,
        objective: &Objective,
        following: &mut Following,
        flow: &mut [f64],
    ) -> Result<FlowState> {
        let edge = 2.0 / self.learning_rate;
        let time = self.learning_rate / PARTS as f64;
        let (loss, gradient) = objective.gradient_at(flow)?;
        let hessian = objective.hessian().at(flow.to_vec())?;
        let pairs = following.next(&hessian)?.spectrum.pairs;
        let mut velocity: Vec<f64> = gradient.iter().map(|g| -time * g).collect();
        let mut state = FlowState {
            point: flow.to_vec(),
            loss,
            rise: 0.0,
            sharpness: pairs[0].value,
            variance: 0.0,
            at_edge: 0,
        };
        let near = pairs.iter().filter(|pair| pair.value > NEAR * edge);
        let (values, vectors): (Vec<f64>, Vec<Vec<f64>>) =
            near.map(|pair| (pair.value, pair.vector.clone())).unzip();
        if !values.is_empty() {
            let bends = third_derivatives(objective, flow, &vectors)?;
            let drift = |i: usize, j: usize| dot(&bends[i][j], &velocity);
            let excess = |i: usize, j: usize| match i == j {
                true => values[i] - edge + drift(i, j),
                false => drift(i, j),
            };
            let covariance = edge_covariance(&bends, excess, 0.5 * time)?;
            let m = values.len();
            for i in 0..m {
                state.rise += 0.5 * covariance[i][i] * values[i];
                state.variance += covariance[i][i];
            }
            let is_at_edge = |i: &usize| covariance[*i][*i] > 1e-6 * state.variance;
            state.at_edge = (0..m).filter(is_at_edge).count();
            if state.at_edge == self.pairs && self.pairs < objective.dim() {
                return Err(Error::invalid(format!(
                    "all {} followed eigenvalues are at the edge, so that others can be: use more pairs",
                    self.pairs
                )));
            }
            for (row, bends) in covariance.iter().zip(&bends) {
                for (entry, bend) in row.iter().zip(bends) {
                    axpy(-0.5 * time * entry, bend, &mut velocity);
                }
            }
        }
        axpy(1.0, &velocity, flow);
        Ok(state)
    }
}

/// For each pair of directions uᵢ and uⱼ the gradient of uᵢᵀH(θ)uⱼ, by central differences of products.
fn third_derivatives(
    objective: &Objective,
    theta: &[f64],
    directions: &[Vec<f64>],
) -> Result<Vec<Vec<Vec<f64>>>> {
    let distance = objective.parameters().epsilon().cbrt() * norm(theta).max(1.0);
    let products = |i: usize, sign: f64| {
        let mut moved = theta.to_vec();
        axpy(sign * distance, &directions[i], &mut moved);
        objective.hessian().at(moved)?.apply_block(directions)
    };
    let mut found = Vec::with_capacity(directions.len());
    for i in 0..directions.len() {
        let pairs = products(i, 1.0)?.into_iter().zip(products(i, -1.0)?);
        let quotients = pairs.map(|(ahead, back)| {
            let mut difference = minus(&ahead, &back);
            difference.iter_mut().for_each(|d| *d /= 2.0 * distance);
            difference
        });
        found.push(quotients.collect::<Vec<_>>());
    }
    Ok(found)
}

/// The flow before a part of a step.
struct FlowState {
    point: Vec<f64>,
    loss: f64,
    /// ½⟨H, Σ⟩
    rise: f64,
    sharpness: f64,
    /// tr Σ
    variance: f64,
    /// Number of eigenvalues at the edge.
    at_edge: usize,
}

/// Sums over the steps of a point of the report.
struct Means {
    steps: usize,
    descent_loss: f64,
    flow_loss: f64,
    rise: f64,
    variance: f64,
    difference: Vec<f64>,
    sharpness: f64,
    at_edge: usize,
}

impl Means {
    fn new(n: usize) -> Self {
        Self {
            steps: 0,
            descent_loss: 0.0,
            flow_loss: 0.0,
            rise: 0.0,
            variance: 0.0,
            difference: vec![0.0; n],
            sharpness: 0.0,
            at_edge: 0,
        }
    }

    fn add(&mut self, (loss, descent): &(f64, Vec<f64>), flow: &FlowState) {
        self.steps += 1;
        self.descent_loss += loss;
        self.flow_loss += flow.loss;
        self.rise += flow.rise;
        self.variance += flow.variance;
        axpy(1.0, descent, &mut self.difference);
        axpy(-1.0, &flow.point, &mut self.difference);
        self.sharpness += flow.sharpness;
        self.at_edge = self.at_edge.max(flow.at_edge);
    }

    fn point(&self, end: usize) -> CentralFlowPoint {
        let n = self.steps as f64;
        CentralFlowPoint {
            step: end - self.steps,
            descent_loss: self.descent_loss / n,
            predicted_loss: (self.flow_loss + self.rise) / n,
            flow_loss: self.flow_loss / n,
            sharpness: self.sharpness / n,
            variance: self.variance / n,
            at_edge: self.at_edge,
            distance: norm(&self.difference) / n,
        }
    }
}

/// Means over some steps of gradient descent and of its central flow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CentralFlowPoint {
    /// Number of steps before the first of these.
    pub step: usize,
    /// Mean loss of gradient descent.
    pub descent_loss: f64,
    /// Mean loss of gradient descent as the flow predicts it, L(w) + ½⟨H, Σ⟩.
    pub predicted_loss: f64,
    /// Mean of L(w) along the flow.
    pub flow_loss: f64,
    /// Mean λ_max of the flow.
    pub sharpness: f64,
    /// Mean of tr Σ: the mean squared distance of gradient descent from w.
    pub variance: f64,
    /// Largest number of eigenvalues at the edge.
    pub at_edge: usize,
    /// Distance between the mean θ of gradient descent and the mean w.
    pub distance: f64,
}

/// Gradient descent and its central flow; see [`CentralFlow`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CentralFlowReport {
    /// Learning rate η.
    pub learning_rate: f64,
    /// Means over each interval, in order.
    pub points: Vec<CentralFlowPoint>,
}
