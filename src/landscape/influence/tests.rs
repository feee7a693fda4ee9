use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::data::synthetic::{teacher_student, two_moons};
use crate::landscape::Influence;
use crate::model::{Activation, Mlp, Model};
use crate::objective::Loss;
use crate::spectral::Spectral;
use crate::vector::{axpy, dot, gaussian};

const CPU: Device = Device::Cpu;

/// A point with ‖∇L‖ ≤ 10⁻¹¹ by Newton's method from `start`, damped where the Hessian is not positive definite.
fn minimise(objective: &Objective, start: &[f64]) -> Vec<f64> {
    let (mut theta, mut damping) = (start.to_vec(), 0.0);
    let (mut loss, mut gradient) = objective.gradient_at(&theta).unwrap();
    let cg = ConjugateGradients::default().with_tolerance(1e-8);
    for _ in 0..500 {
        if norm(&gradient) <= 1e-11 {
            return theta;
        }
        let hessian = objective.hessian().at(theta.clone()).unwrap();
        let step = cg.solve(&Shifted::new(hessian, damping).unwrap(), &gradient);
        let mut next = theta.clone();
        let moved = step.is_ok_and(|step| {
            axpy(-1.0, &step.x, &mut next);
            let (next_loss, next_gradient) = objective.gradient_at(&next).unwrap();
            let is_lower = next_loss < loss || norm(&next_gradient) < 0.5 * norm(&gradient);
            if is_lower {
                (loss, gradient) = (next_loss, next_gradient);
            }
            is_lower
        });
        match moved {
            true => {
                theta = next;
                damping = if damping < 1e-5 { 0.0 } else { damping / 10.0 };
            }
            false => damping = (10.0 * damping).max(1e-5),
        }
    }
    panic!("‖∇L‖ = {:e}", norm(&gradient));
}

/// The change of the test loss after a new training without each of some samples, starting from the trained θ. Other samples keep the
/// weight 1/n, so the L2 term is n/(n − 1) times as strong beside their mean.
fn leave_outs(
    objective: &Objective,
    test: &Objective,
    theta: &[f64],
    left_out: Range<usize>,
) -> Vec<f64> {
    let n = objective.samples();
    let before = test.loss_at(theta).unwrap();
    let changes = left_out.map(|i| {
        let rest: Vec<usize> = (0..n).filter(|j| *j != i).collect();
        let rest = objective.data().select(&rest).unwrap();
        let l2 = objective.l2() * n as f64 / (n - 1) as f64;
        let without = objective.with_data(&rest).unwrap().with_l2(l2).unwrap();
        test.loss_at(&minimise(&without, theta)).unwrap() - before
    });
    changes.collect()
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|i, j| values[*i].total_cmp(&values[*j]));
    let mut ranks = vec![0.0; values.len()];
    for (rank, i) in order.into_iter().enumerate() {
        ranks[i] = rank as f64;
    }
    ranks
}

fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let centred = |values: &[f64]| -> Vec<f64> {
        let ranks = ranks(values);
        let mean = ranks.iter().sum::<f64>() / ranks.len() as f64;
        ranks.iter().map(|rank| rank - mean).collect()
    };
    let (a, b) = (centred(a), centred(b));
    dot(&a, &b) / (norm(&a) * norm(&b))
}

fn removals(report: &InfluenceReport) -> Vec<f64> {
    report.values.iter().map(|value| -value).collect()
}

/// A network, trained on 200 samples until the gradient is zero, and the loss of other samples.
fn trained(widths: &[usize], l2: f64) -> (Mlp, Objective, Objective) {
    let model = Mlp::new(widths, Activation::Tanh, 1, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let data = two_moons(200, 0.25, 0, &CPU).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let objective = objective.with_l2(l2).unwrap();
    let theta = minimise(&objective, &model.parameters().to_flat().unwrap());
    model.parameters().set_flat(&theta).unwrap();
    let test = objective.with_data(&two_moons(100, 0.25, 1, &CPU).unwrap());
    (model, objective, test.unwrap().with_l2(0.0).unwrap())
}

/// The test sample with the largest loss.
fn hardest(test: &Objective) -> Dataset {
    let data = test.data();
    let one = |i: usize| data.select(&[i]).unwrap();
    let loss = |i: &usize| test.with_data(&one(*i)).unwrap().loss().unwrap();
    let samples = 0..data.len();
    one(samples.max_by(|i, j| loss(i).total_cmp(&loss(j))).unwrap())
}

/// G is the Hessian here, so the first-order change is exact.
#[test]
fn logistic_regression_has_its_leave_one_out_changes() {
    let (model, objective, test) = trained(&[2, 1], 1e-3);
    let theta = model.parameters().to_flat().unwrap();
    let test = test.with_data(&hardest(&test)).unwrap();
    let exact = leave_outs(&objective, &test, &theta, 0..200);
    let settings = Influence::default().with_damping(0.0).with_tolerance(1e-10);
    let found = settings.run(&objective, test.data()).unwrap();
    assert!(found.converged && found.gradient_norm < 1e-11, "{found}");
    let predicted = removals(&found);
    let correlation = spearman(&predicted, &exact);
    let error = norm(&minus(&predicted, &exact)) / norm(&exact);
    println!("logistic regression: Spearman {correlation:.5}, relative error {error:.4}");
    assert!(correlation > 0.999, "{correlation}");
    assert!(error < 0.05, "{error}");

    // One of 50 copies of a sample changes θ less, and the error of first order is smaller by that.
    let copies: Vec<usize> = (0..50).flat_map(|_| 0..200).collect();
    let copied = objective.data().select(&copies).unwrap();
    let copied = objective.with_data(&copied).unwrap();
    let exact = leave_outs(&copied, &test, &theta, 0..20);
    let found = settings.run(&copied, test.data()).unwrap();
    let predicted = &removals(&found)[..20];
    let error = norm(&minus(predicted, &exact)) / norm(&exact);
    println!("one of 50 copies: relative error {error:.5}");
    assert!(error < 1e-3, "{error}");
}

#[test]
fn a_small_network_has_its_leave_one_out_changes() {
    let (model, objective, test) = trained(&[2, 6, 1], 1e-3);
    let theta = model.parameters().to_flat().unwrap();
    let hardest = test.with_data(&hardest(&test)).unwrap();
    for (name, test, least) in [
        ("mean test loss", test, 0.95),
        ("hardest test sample", hardest, 0.8),
    ] {
        let exact = leave_outs(&objective, &test, &theta, 0..200);
        let run = |damping: Option<f64>, solver| {
            let mut settings = Influence::default()
                .with_solver(solver)
                .with_tolerance(1e-8);
            settings.damping = damping;
            let found = settings.run(&objective, test.data()).unwrap();
            let predicted = removals(&found);
            let correlation = spearman(&predicted, &exact);
            let error = norm(&minus(&predicted, &exact)) / norm(&exact);
            println!(
                "{name}, {solver:?}, λ = {:.1e}: Spearman {correlation:.4}, relative error {error:.3}, {} products",
                found.damping, found.products
            );
            correlation
        };
        let correlation = run(Some(0.0), InfluenceSolver::Preconditioned);
        assert!(correlation > least, "{name}: {correlation}");
        let damped = run(None, InfluenceSolver::Preconditioned);
        assert!(damped > least, "{name}: {damped}");
        let plain = run(Some(0.0), InfluenceSolver::Plain);
        assert!((plain - correlation).abs() < 1e-3);
        run(Some(0.0), InfluenceSolver::Ekfac);
        run(None, InfluenceSolver::Ekfac);
    }
}

/// All solvers against the dense formula, within the stated errors.
#[test]
fn influences_are_those_of_the_dense_matrix() {
    let model = Mlp::new(&[2, 5, 3], Activation::Tanh, 1, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let x = Tensor::from_vec(gaussian(60, 1), (30, 2), &CPU).unwrap();
    let labels = Tensor::from_iter((0..30u32).map(|i| i * i % 3), &CPU).unwrap();
    let data = Dataset::classification(&x, &labels).unwrap();
    let (train, test) = (data.first(20).unwrap(), data.select(&[20, 25, 29]).unwrap());
    let objective = Objective::of(&model, &train, Loss::CrossEntropy).unwrap();
    let objective = objective.with_l2(0.01).unwrap();
    let gradient = objective.with_data(&test).unwrap().with_l2(0.0).unwrap();
    let gradient = gradient.gradient().unwrap();
    let spectrum = objective.gauss_newton().dense().unwrap().eigen().unwrap();
    let damping = 0.05;
    let mut x = vec![0.0; objective.dim()];
    for pair in &spectrum.pairs {
        let along = dot(&pair.vector, &gradient) / (pair.value + damping);
        axpy(along, &pair.vector, &mut x);
    }
    let exact = (0..20).map(|i| {
        let one = objective.with_data(&train.select(&[i]).unwrap()).unwrap();
        let one = one.with_l2(0.0).unwrap().gradient().unwrap();
        -dot(&one, &x) / 20.0
    });
    let exact: Vec<f64> = exact.collect();
    let mut products = Vec::new();
    for solver in [
        InfluenceSolver::Preconditioned,
        InfluenceSolver::Plain,
        InfluenceSolver::Ekfac,
    ] {
        let settings = Influence::default()
            .with_damping(damping)
            .with_solver(solver);
        let found = settings.run(&objective, &test).unwrap();
        assert_eq!(found.converged, solver != InfluenceSolver::Ekfac, "{found}");
        for ((value, error), exact) in found.values.iter().zip(&found.errors).zip(&exact) {
            assert!(
                (value - exact).abs() <= *error,
                "{solver:?}: {value} {exact} {error}"
            );
        }
        products.push(found.products);
    }
    assert_eq!(products[2], 1);
}

/// Inputs of different sizes make G ill-conditioned, and the factors know their covariance.
#[test]
fn the_preconditioner_saves_products() {
    let model = Mlp::new(&[20, 5], Activation::Tanh, 1, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let x = gaussian(20 * 300, 1).into_iter().zip((0..20).cycle());
    let x: Vec<f64> = x.map(|(x, j)| 3.0 * x * 0.7f64.powi(j)).collect();
    let x = Tensor::from_vec(x, (300, 20), &CPU).unwrap();
    let labels = Tensor::from_iter((0..300u32).map(|i| i * i % 5), &CPU).unwrap();
    let data = Dataset::classification(&x, &labels).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let test = data.first(3).unwrap();
    let products = [InfluenceSolver::Preconditioned, InfluenceSolver::Plain].map(|solver| {
        let settings = Influence::default().with_damping(1e-5).with_solver(solver);
        let found = settings.run(&objective, &test).unwrap();
        assert!(found.converged, "{found}");
        found.products
    });
    println!("products with a preconditioner and without: {products:?}");
    assert!(4 * products[0] < products[1], "{products:?}");
}

#[test]
fn what_cannot_be_computed_is_said() {
    let set = teacher_student(10, &[2, 3, 1], 0.1, 0, &CPU).unwrap();
    let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let objective = Objective::of(&model, &set.data, Loss::Mse).unwrap();
    let message = |settings: Influence, objective: &Objective| {
        let found = settings.run(objective, &set.data);
        found.unwrap_err().to_string()
    };
    let usual = Influence::default;
    for (settings, part) in [
        (usual().with_damping(-1.0), "the damping is -1"),
        (usual().with_damping(f64::NAN), "the damping is NaN"),
        (usual().with_damping(0.0), "set a damping"),
        (usual().with_tolerance(0.0), "the tolerance is 0"),
        (usual().with_tolerance(2.0), "give a number below 1"),
        (usual().with_max_products(0), "max_products is 0"),
    ] {
        let found = message(settings, &objective);
        assert!(found.contains(part), "{found}");
    }
    let graph = message(usual(), &objective.clone().by_autograd());
    assert!(graph.contains("hand-derived rules"), "{graph}");
    // One sample, and a test loss that is at its minimum: no influence.
    let one = objective.with_data(&set.data.first(1).unwrap()).unwrap();
    assert_eq!(usual().run(&one, &set.data).unwrap().values.len(), 1);
    model.parameters().set_flat(&set.teacher).unwrap();
    let clean = teacher_student(10, &[2, 3, 1], 0.0, 0, &CPU).unwrap().data;
    let found = usual().run(&objective, &clean).unwrap();
    assert!(found.converged && found.values.iter().all(|value| value.abs() < 1e-12));
}
