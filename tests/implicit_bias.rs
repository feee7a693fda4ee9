//! The modified loss of SGD compared with the exact mean over all orders of the samples, on a quadratic loss.

use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

/// Linear regression with loss mean (wxᵢ − yᵢ)².
struct LinearRegression {
    x: Vec<f64>,
    y: Vec<f64>,
}

impl LinearRegression {
    fn new(samples: usize) -> Self {
        let x = [0.6, -1.4, 1.1, 0.3, -0.8, 1.7];
        let y = [0.2, 0.9, -1.0, 0.5, 1.3, -0.4];
        Self {
            x: x[..samples].to_vec(),
            y: y[..samples].to_vec(),
        }
    }

    fn objective(&self) -> Objective {
        let n = self.x.len();
        let column = |v: &[f64]| Tensor::from_slice(v, (n, 1), &CPU).unwrap();
        let data = Dataset::regression(&column(&self.x), &column(&self.y)).unwrap();
        let w = Var::zeros((1, 1), DType::F64, &CPU).unwrap();
        let parameters = Parameters::new([("w".to_owned(), w.clone())]).unwrap();
        Objective::from_fn(parameters, &data, Loss::Mse, move |x| x.matmul(&w)).unwrap()
    }

    /// Returns a and c of a batch's gradient aw + c.
    fn gradient(&self, batch: &[usize]) -> [f64; 2] {
        let size = batch.len() as f64;
        let slopes = batch.iter().map(|i| 2.0 * self.x[*i].powi(2) / size);
        let offsets = batch.iter().map(|i| -2.0 * self.x[*i] * self.y[*i] / size);
        [slopes.sum(), offsets.sum()]
    }

    /// Returns the mean over all orders of the affine map of (w, b, 1) in an epoch: b ← βb + g, w ← w − ηb.
    fn epoch(&self, rate: f64, batch: usize, momentum: f64) -> [[f64; 3]; 3] {
        let orders = permutations(self.x.len());
        let mut mean = [[0.0; 3]; 3];
        for order in &orders {
            let mut map = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
            for rows in order.chunks(batch) {
                let [a, c] = self.gradient(rows);
                let b = [0, 1, 2].map(|j| momentum * map[1][j] + a * map[0][j] + c * map[2][j]);
                let w = [0, 1, 2].map(|j| map[0][j] - rate * b[j]);
                (map[0], map[1]) = (w, b);
            }
            for (mean, row) in mean.as_flattened_mut().iter_mut().zip(map.as_flattened()) {
                *mean += row / orders.len() as f64;
            }
        }
        mean
    }

    /// Returns the rate at which the mean over all orders approaches its fixed point, and this point. A step takes the time
    /// η/(1 − β).
    fn exact(&self, rate: f64, batch: usize, momentum: f64) -> [f64; 2] {
        let [[ww, wb, w], [bw, bb, b], _] = self.epoch(rate, batch, momentum);
        let (trace, determinant) = (ww + bb, ww * bb - wb * bw);
        let slow = match momentum {
            0.0 => ww,
            _ => 0.5 * (trace + (trace * trace - 4.0 * determinant).sqrt()),
        };
        let steps = self.x.len().div_ceil(batch) as f64;
        let time = steps * rate / (1.0 - momentum);
        // (1 − M)(w, b) is the constant part.
        let (a, d) = (1.0 - ww, 1.0 - bb);
        let fixed_point = (d * w + wb * b) / (a * d - wb * bw);
        [-slow.ln() / time, fixed_point]
    }

    /// Returns the same for the gradient flow of the modified loss, a parabola.
    fn modified(&self, rate: f64, batch: usize, momentum: f64) -> [f64; 2] {
        let objective = self.objective();
        let bias = ImplicitBias::new(rate, batch).with_momentum(momentum);
        let at = |w: f64| {
            objective.parameters().set_flat(&[w]).unwrap();
            bias.run(&objective).unwrap().total().value
        };
        let [before, here, after] = [-1.0, 0.0, 1.0].map(at);
        let curvature = after - 2.0 * here + before;
        [curvature, -0.5 * (after - before) / curvature]
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(n - 1).into_iter();
    shorter
        .flat_map(|p| {
            (0..n).map(move |at| {
                let mut longer = p.clone();
                longer.insert(at, n - 1);
                longer
            })
        })
        .collect()
}

/// The errors of the flow's rate and fixed point are of second order: half the learning rate leaves a quarter.
#[test]
fn the_flow_is_right_to_second_order() {
    let mut checked = 0;
    for samples in [2, 5, 6] {
        for batch in 1..=samples {
            // Batches of equal and unequal sizes, such as 5 = 2 + 2 + 1 = 3 + 2 = 4 + 1.
            for momentum in [0.0, 0.5, 0.8] {
                let regression = LinearRegression::new(samples);
                let errors = [2e-3, 1e-3].map(|rate| {
                    let rate = rate * (1.0 - momentum);
                    let exact = regression.exact(rate, batch, momentum);
                    let flow = regression.modified(rate, batch, momentum);
                    [0, 1].map(|i| flow[i] - exact[i])
                });
                for i in [0, 1] {
                    let [coarse, fine] = [errors[0][i], errors[1][i]];
                    let what = format!(
                        "{samples} samples, batches of {batch}, β = {momentum}: {coarse:e}, {fine:e}"
                    );
                    assert!(coarse.abs() < 1e-2, "{what}");
                    // Above the rounding of ln and of the parabola's differences.
                    if coarse.abs() > 1e-9 {
                        let ratio = coarse / fine;
                        assert!((3.5..4.5).contains(&ratio), "{what}");
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 40, "{checked}");
}

/// All terms against closed forms.
#[test]
fn the_terms_match_closed_forms() {
    let regression = LinearRegression::new(5);
    let objective = regression.objective();
    objective.parameters().set_flat(&[0.7]).unwrap();
    let [a, c] = regression.gradient(&[0, 1, 2, 3, 4]);
    let g = 0.7 * a + c;
    let squares = (0..5).map(|i| {
        let [a, c] = regression.gradient(&[i]);
        (0.7 * a + c - g).powi(2) / 5.0
    });
    let variance: f64 = squares.sum();
    // ⌈5/2⌉ = 3 batches: (3 − 1)/(5 − 1), where (N − B)/(B(N − 1)) is 3/8.
    for (batch, factor) in [(1, 1.0), (2, 0.5), (3, 0.25), (4, 0.25), (5, 0.0)] {
        let found = ImplicitBias::new(0.1, batch).run(&objective).unwrap();
        assert!((found.full_batch - 0.025 * g * g).abs() < 1e-14);
        assert!(
            (found.noise.value - 0.025 * factor * variance).abs() < 1e-12,
            "{batch}: {found:?}"
        );
        assert!((found.drift[0] + 0.05 * a * g).abs() < 1e-12);
    }
    // Two batches form one pair: (1 − β)/(2 · 2 (N − 1)(1 − β)).
    let heavy = ImplicitBias::new(0.1, 3)
        .with_momentum(0.9)
        .run(&objective)
        .unwrap();
    assert!((heavy.noise.value - 0.1 * variance / 16.0).abs() < 1e-12);
    assert!((heavy.full_batch - 0.025 * g * g * 1.9 / 0.01).abs() < 1e-12);
    for momentum in [-0.1, 1.0, f64::NAN] {
        let refused = ImplicitBias::new(0.1, 3)
            .with_momentum(momentum)
            .run(&objective);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("from 0 to below 1"), "{message}");
    }
}
