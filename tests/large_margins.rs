//! Loss and derivatives of samples classified with large margins, compared with closed forms, in both dtypes and by both engines.

mod common;

use common::{Opaque, dot, numbers};
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

/// Cross-entropy of one sample as a function of its outputs, without cancellation.
struct Exact {
    loss: f64,
    gradient: Vec<f64>,
    hessian: Vec<Vec<f64>>,
}

impl Exact {
    fn new(z: &[f64], label: usize) -> Self {
        let (n, z) = match z {
            [z] => (2, [0.0, *z].to_vec()),
            _ => (z.len(), z.to_vec()),
        };
        let others = |i: usize| (0..n).filter(move |j| *j != i);
        let p: Vec<f64> = z
            .iter()
            .map(|a| 1.0 / z.iter().map(|b| (b - a).exp()).sum::<f64>())
            .collect();
        let rest = |i: usize| others(i).map(|j| p[j]).sum::<f64>();
        let gradient = |i: usize| if i == label { -rest(i) } else { p[i] };
        let entry = |i: usize, j: usize| match i == j {
            true => p[i] * rest(i),
            false => -p[i] * p[j],
        };
        Self {
            loss: others(label)
                .map(|j| (z[j] - z[label]).exp())
                .sum::<f64>()
                .ln_1p(),
            gradient: (0..n).map(gradient).collect(),
            hessian: (0..n)
                .map(|i| (0..n).map(|j| entry(i, j)).collect())
                .collect(),
        }
    }

    /// Reduces two outputs (0, z) to the single output z of a binary classifier.
    fn reduced(self, outputs: usize) -> Self {
        match outputs {
            1 => Self {
                gradient: vec![self.gradient[1]],
                hessian: vec![vec![self.hessian[1][1]]],
                ..self
            },
            _ => self,
        }
    }
}

/// One sample x = 1 with a label, for a linear model whose weights are 0 and whose biases are the outputs.
fn classifier(z: &[f64], label: usize, dtype: DType) -> (Mlp, Dataset) {
    let model = Mlp::new(&[1, z.len()], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(dtype).unwrap();
    let theta = [z, &vec![0.0; z.len()]].concat();
    model.parameters().set_flat(&theta).unwrap();
    let x = Tensor::ones((1, 1), dtype, &CPU).unwrap();
    let label = Tensor::new(&[label as u32], &CPU).unwrap();
    (model, Dataset::classification(&x, &label).unwrap())
}

fn both_engines(model: &Mlp, data: &Dataset, loss: Loss) -> [Objective; 2] {
    let by_hand = Objective::of(model, data, loss.clone()).unwrap();
    let by_graph = Objective::of(&Opaque(model.clone()), data, loss).unwrap();
    assert!(by_hand.is_hand_derived() && !by_graph.is_hand_derived());
    [by_hand, by_graph]
}

/// Outputs and labels with this margin, positive or negative.
fn cases(margin: f64) -> Vec<(Vec<f64>, usize)> {
    let wide = |m: f64| (0..10).map(|j| if j == 3 { m } else { 0.0 }).collect();
    let uneven: Vec<f64> = (0..10).map(|j| -margin * f64::from(j)).collect();
    vec![
        (vec![margin], 1),
        (vec![margin], 0),
        (vec![-margin], 1),
        (vec![-margin], 0),
        (vec![margin, 0.0], 0),
        (vec![margin, 0.0], 1),
        (wide(margin), 3),
        (wide(margin), 4),
        (wide(-margin), 3),
        (uneven.clone(), 0),
        (uneven, 1),
    ]
}

#[track_caller]
fn assert_relative(found: f64, expected: f64, size: f64, tolerance: f64, what: &str) {
    assert!(
        (found - expected).abs() <= tolerance * size,
        "{what}: {found:e} is not {expected:e}"
    );
}

#[test]
fn losses_and_derivatives_at_large_margins() {
    for margin in [0, 1, 5, 8, 11, 14, 17, 18, 20, 25, 30, 36, 50, 80] {
        for (z, label) in cases(f64::from(margin)) {
            let exact = Exact::new(&z, label).reduced(z.len());
            let k = z.len();
            for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-12)] {
                let (model, data) = classifier(&z, label, dtype);
                for objective in both_engines(&model, &data, Loss::CrossEntropy) {
                    let what = format!(
                        "{dtype:?}, z = {z:?}, label {label}, by hand: {}",
                        objective.is_hand_derived()
                    );
                    // Values below the dtype's range may be 0.
                    let smallest = match dtype {
                        DType::F32 => f64::from(f32::MIN_POSITIVE) / tolerance,
                        _ => f64::MIN_POSITIVE / tolerance,
                    };
                    let size = |numbers: &mut dyn Iterator<Item = f64>| {
                        numbers.map(f64::abs).sum::<f64>().max(smallest)
                    };
                    let loss = objective.loss().unwrap();
                    let loss_size = size(&mut [exact.loss].into_iter());
                    assert_relative(loss, exact.loss, loss_size, tolerance, &what);
                    let (with_gradient, gradient) = objective
                        .gradient_at(&model.parameters().to_flat().unwrap())
                        .unwrap();
                    assert_relative(with_gradient, exact.loss, loss_size, tolerance, &what);
                    let v = numbers(2 * k, 5);
                    let products = [
                        objective.hvp(&v).unwrap(),
                        objective.gauss_newton().apply(&v).unwrap(),
                        objective.fisher().apply(&v).unwrap(),
                    ];
                    let moment = objective.empirical_fisher().apply(&v).unwrap();
                    let rz: Vec<f64> = (0..k).map(|j| v[j] + v[k + j]).collect();
                    let along = dot(&exact.gradient, &rz);
                    for i in 0..2 * k {
                        let slope = exact.gradient[i % k];
                        let slope_size = size(&mut [slope].into_iter());
                        assert_relative(gradient[i], slope, slope_size, tolerance, &what);
                        let row = &exact.hessian[i % k];
                        let terms = row.iter().zip(&rz).map(|(h, v)| h * v);
                        let row_size = size(&mut terms.clone());
                        for product in &products {
                            let sum = terms.clone().sum();
                            assert_relative(product[i], sum, row_size, tolerance, &what);
                        }
                        let terms = exact.gradient.iter().zip(&rz).map(|(g, v)| slope * g * v);
                        let moment_size = size(&mut terms.into_iter());
                        assert_relative(moment[i], slope * along, moment_size, tolerance, &what);
                    }
                }
            }
        }
    }
}

/// Compares the reference with textbook formulas.
#[test]
fn the_reference_matches_closed_forms() {
    for m in 5..=30 {
        let m = f64::from(m);
        let binary = Exact::new(&[m], 1).reduced(1);
        let e = (-m).exp();
        for (found, expected) in [
            (binary.loss, e.ln_1p()),
            (binary.gradient[0], -1.0 / (1.0 + m.exp())),
            (binary.hessian[0][0], e / ((1.0 + e) * (1.0 + e))),
            (Exact::new(&[m, 0.0], 0).loss, e.ln_1p()),
            (Exact::new(&[0.0, m, 0.0, 0.0], 1).loss, (3.0 * e).ln_1p()),
        ] {
            assert_relative(found, expected, expected.abs(), 1e-14, "closed form");
        }
    }
}

/// The graph's terms max(z, 0) and |z| have a kink at z = 0; the loss does not.
#[test]
fn derivatives_at_an_output_of_zero() {
    for label in [0, 1] {
        let (model, data) = classifier(&[0.0], label, DType::F32);
        for objective in both_engines(&model, &data, Loss::CrossEntropy) {
            let sign = if label == 1 { -1.0 } else { 1.0 };
            assert_eq!(objective.gradient().unwrap(), [0.5 * sign; 2]);
            assert_eq!(objective.hvp(&[1.0, 0.0]).unwrap(), [0.25; 2]);
        }
    }
}

/// One step of gradient descent from a margin of 20 by both engines. The gradient must not underflow.
#[test]
fn a_training_step_at_a_large_margin() {
    let slope = 1.0 / (1.0 + 20f64.exp());
    for (z, label) in [(vec![20.0], 1), (vec![-20.0], 0), (vec![20.0, 0.0], 0)] {
        let step = |by_hand: bool| {
            let (model, data) = classifier(&z, label, DType::F32);
            // The step moves the first bias, and the weight next to it, by 1.
            let trainer = Trainer::sgd(1.0 / slope).with_epochs(1).with_batch_size(1);
            let history = match by_hand {
                true => trainer.fit(&model, &data, &data),
                false => trainer.fit(&Opaque(model.clone()), &data, &data),
            };
            (model.parameters().to_flat().unwrap(), history.unwrap())
        };
        for by_hand in [true, false] {
            let (theta, _) = step(by_hand);
            let moved = (theta[0] - z[0]).abs();
            assert!((moved - 1.0).abs() < 1e-5, "z = {z:?}: moved by {moved}");
        }
    }
}

/// Loss along a line by shared first-layer products, and by the moved model.
#[test]
fn a_line_across_large_margins() {
    let (model, data) = classifier(&[20.0, 0.0], 0, DType::F32);
    for objective in both_engines(&model, &data, Loss::CrossEntropy) {
        let line = Line::along(&objective, &[1.0, 0.0, 0.0, 0.0], 4.0, 9).unwrap();
        for (alpha, loss) in line.alphas.iter().zip(&line.losses) {
            let exact = (-(20.0 + alpha)).exp().ln_1p();
            assert_relative(*loss, exact, exact, 1e-5, "on the line");
        }
        assert_relative(line.slope, -(-20f64).exp(), 2e-9, 1e-5, "slope");
        assert_relative(line.curvature, (-20f64).exp(), 2e-9, 1e-5, "curvature");
    }
}

/// Many samples with tiny losses next to one with a large loss. At most 512 samples are summed in `f32`, the rest in `f64`.
#[test]
fn small_losses_survive_next_to_large_ones() {
    let (n, m) = (3_000, 12.0);
    let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &CPU).unwrap();
    model.parameters().set_flat(&[0.0, m]).unwrap();
    let x: Vec<f32> = (0..n).map(|i| if i == 7 { 0.0 } else { 1.0 }).collect();
    let x = Tensor::from_vec(x, (n, 1), &CPU).unwrap();
    let labels = Tensor::ones(n, DType::U32, &CPU).unwrap();
    let data = Dataset::classification(&x, &labels).unwrap();
    let (small, n) = (Exact::new(&[m], 1).reduced(1), n as f64);
    let rounding = 512.0 * 0.5 * f64::from(f32::EPSILON);
    let [loss, slope, curvature] = [small.loss, small.gradient[0], small.hessian[0][0]];
    for objective in both_engines(&model, &data, Loss::CrossEntropy) {
        let loss = (2f64.ln() + (n - 1.0) * loss) / n;
        assert_relative(objective.loss().unwrap(), loss, loss, 1e-7, "loss");
        let gradient = objective.gradient().unwrap();
        let expected = (-0.5 + (n - 1.0) * slope) / n;
        assert_relative(gradient[0], expected, -expected, rounding, "bias");
        let expected = (n - 1.0) * slope / n;
        assert_relative(gradient[1], expected, -expected, rounding, "weight");
        let product = objective.hvp(&[1.0, 0.0]).unwrap();
        let expected = (0.25 + (n - 1.0) * curvature) / n;
        assert_relative(product[0], expected, expected, rounding, "product");
    }
}

/// Targets that differ from the outputs by a few units in the last place.
#[test]
fn squared_error_near_zero_residual() {
    let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &CPU).unwrap();
    model.parameters().set_flat(&[3.0, 0.0]).unwrap();
    let x = Tensor::ones((1, 1), DType::F32, &CPU).unwrap();
    for units in [1, 2, 5, 1_000] {
        let target = 3.0 + f64::from(units) * 2.0 * f64::from(f32::EPSILON);
        let y = Tensor::new(&[[target as f32]], &CPU).unwrap();
        let data = Dataset::regression(&x, &y).unwrap();
        let residual = 3.0 - target;
        for objective in both_engines(&model, &data, Loss::Mse) {
            let (loss, slope) = (residual * residual, 2.0 * residual);
            assert_relative(objective.loss().unwrap(), loss, loss, 1e-6, "loss");
            let gradient = objective.gradient().unwrap();
            assert_relative(gradient[0], slope, slope.abs(), 1e-6, "gradient");
            assert_eq!(objective.hvp(&[1.0, 0.0]).unwrap(), [2.0, 2.0]);
        }
    }
}

/// Equal inputs of one class: H = diag p − ppᵀ on the biases, with the eigenvalues 10pq, q (eight times) and 0.
#[test]
fn eigenvalues_at_a_large_margin() {
    let z: Vec<f64> = (0..10).map(|j| if j == 0 { 16.0 } else { 0.0 }).collect();
    let e = (-16f64).exp();
    let total = 1.0 + 9.0 * e;
    let (p, q) = (1.0 / total, e / total);
    for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-12)] {
        let (model, _) = classifier(&z, 0, dtype);
        let x = Tensor::zeros((20, 1), dtype, &CPU).unwrap();
        let labels = Tensor::zeros(20, DType::U32, &CPU).unwrap();
        let data = Dataset::classification(&x, &labels).unwrap();
        for objective in both_engines(&model, &data, Loss::CrossEntropy) {
            let values = common::hessian_values(&objective);
            assert_relative(values[0], 10.0 * p * q, 10.0 * q, tolerance, "first");
            for value in &values[1..9] {
                assert_relative(*value, q, q, 10.0 * tolerance, "repeated");
            }
            assert!(values[9..].iter().all(|v| v.abs() < 10.0 * tolerance * q));
        }
    }
}

/// The error of sharpness in `f32` is at most a few times the stated rounding plus a relative 10⁻⁵.
#[test]
fn stated_rounding_bounds_the_error_of_f32() {
    let set = teacher_student(40, &[3, 8, 2], 0.0, 0, &CPU).unwrap();
    let network = |theta: Option<&[f64]>| {
        let model = Mlp::new(&[3, 8, 2], Activation::Tanh, 1, &CPU).unwrap();
        let theta = theta.map_or_else(|| model.parameters().to_flat().unwrap(), <[f64]>::to_vec);
        model.parameters().set_flat(&theta).unwrap();
        model
    };
    let fitted = network(Some(&set.teacher));
    let ordinary = network(None);
    let classified = network(None);
    let z = classified
        .forward(&set.data.inputs().to_dtype(DType::F32).unwrap())
        .unwrap();
    let labels = Dataset::classification(set.data.inputs(), &z.argmax(1).unwrap()).unwrap();
    for name in ["layers.1.weight", "layers.1.bias"] {
        let var = classified.parameters().get(name).unwrap();
        var.set(&(var.as_tensor() * 300.0).unwrap()).unwrap();
    }
    for (what, model, data, loss) in [
        ("residuals of zero", fitted, &set.data, Loss::Mse),
        ("ordinary residuals", ordinary, &set.data, Loss::Mse),
        ("large margins", classified, &labels, Loss::CrossEntropy),
    ] {
        let objective = |dtype| {
            let (model, data) = (
                model.to_dtype(dtype).unwrap(),
                data.to_dtype(dtype).unwrap(),
            );
            Objective::of(&model, &data, loss.clone()).unwrap()
        };
        let [single, double] = [DType::F32, DType::F64].map(objective);
        for radius in [1e-5, 1e-3] {
            let ball = Sharpness::new(radius);
            let [found, exact] = [&single, &double].map(|o| ball.average(o).unwrap());
            let error = (found.mean.value - exact.mean.value).abs();
            let relative = 1e-5 * exact.mean.value.abs();
            assert!(
                error <= 3.0 * found.rounding + relative,
                "{what}, radius {radius}: off by {error:e}, rounding {:e}",
                found.rounding
            );
            let error = (found.center - exact.center).abs();
            assert!(
                error <= 3.0 * found.rounding && found.rounding < 1e-4,
                "{what}: loss off by {error:e}, rounding {:e}",
                found.rounding
            );
            assert!(exact.rounding < 1e-12 && found.rounding > f64::EPSILON * found.center);
        }
    }
}
