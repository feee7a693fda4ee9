use candle_core::{D, DType, Device, Module, Tensor};
use ndarray::{Array1, Array2, Axis};

use super::*;
use crate::data::Dataset;
use crate::model::{Activation, Mlp, Model};
use crate::objective::{CrossEntropy, Loss};
use crate::operator::LinearOperator;
use crate::prelude::Spectral;

/// A network with 3 inputs, and samples with these labels.
fn network(outputs: usize, labels: &[u32], loss: impl Into<Loss>) -> Result<Objective> {
    let n = labels.len();
    let x = crate::vector::gaussian(3 * n, 5);
    let x = Tensor::from_vec(x, (n, 3), &Device::Cpu)?;
    let data = Dataset::classification(&x, &Tensor::new(labels, &Device::Cpu)?)?;
    let model = Mlp::new(&[3, 4, outputs], Activation::Tanh, 2, &Device::Cpu)?;
    Objective::of(&model.to_dtype(DType::F64)?, &data, loss)
}

/// The class, cross-class, within-class and own-class part from their definitions, for weights of the samples, whose mean is 1.
fn direct(objective: &Objective, weights: &[f64]) -> Result<[Array2<f64>; 4]> {
    let (data, d) = (objective.data(), objective.dim());
    let labels = data.labels()?;
    let n = labels.len();
    let jacobian = objective.jacobian()?; // (n · outputs, d)
    let outputs = jacobian.nrows() / n;
    let theta = objective.parameters().to_flat()?;
    let model = Mlp::new(&[3, 4, outputs], Activation::Tanh, 0, &Device::Cpu)?;
    let model = model.to_dtype(DType::F64)?;
    model.parameters().set_flat(&theta)?;
    let z = model.forward(data.inputs())?;
    let z = match outputs {
        1 => Tensor::cat(&[&z.zeros_like()?, &z], D::Minus1)?, // the classes 0 and 1
        _ => z,
    };
    let p = candle_nn::ops::softmax(&z, D::Minus1)?.to_vec2::<f64>()?;
    let classes = p[0].len();
    let gradient = |i: usize, class: usize| {
        let mut g = Array1::<f64>::zeros(d);
        for (j, p) in p[i].iter().enumerate().skip(classes - outputs) {
            let u = f64::from(u8::from(j == class)) - p;
            let row = i * outputs + j + outputs - classes;
            g = g + u * &jacobian.index_axis(Axis(0), row);
        }
        g
    };
    let outer = |g: &Array1<f64>| {
        let column = g.view().insert_axis(Axis(1));
        column.dot(&column.t())
    };
    let weight = |i: usize, class: usize| weights[i] * p[i][class] / n as f64;
    let [mut class_part, mut cross, mut within, mut own] =
        [0; 4].map(|_| Array2::<f64>::zeros((d, d)));
    for class in 0..classes {
        let samples = (0..n).filter(|i| labels[*i] as usize == class && weights[*i] > 0.0);
        let samples: Vec<usize> = samples.collect();
        if samples.is_empty() {
            continue;
        }
        for i in &samples {
            own = own + weight(*i, class) * outer(&gradient(*i, class));
        }
        let others: Vec<usize> = (0..classes).filter(|other| *other != class).collect();
        let mut means = Vec::new();
        for other in &others {
            let total: f64 = samples.iter().map(|i| weight(*i, *other)).sum();
            let weighted = samples
                .iter()
                .map(|i| weight(*i, *other) / total * gradient(*i, *other));
            let mean = weighted.fold(Array1::zeros(d), |sum, g| sum + g);
            for i in &samples {
                within = within + weight(*i, *other) * outer(&(gradient(*i, *other) - &mean));
            }
            means.push((total, mean));
        }
        let total: f64 = means.iter().map(|(weight, _)| weight).sum();
        let weighted = means.iter().map(|(weight, mean)| *weight / total * mean);
        let center = weighted.fold(Array1::zeros(d), |sum, g| sum + g);
        class_part = class_part + total * outer(&center);
        for (weight, mean) in &means {
            cross = cross + *weight * outer(&(mean - &center));
        }
    }
    Ok([class_part, cross, within, own])
}

fn assert_close(a: &Array2<f64>, b: &Array2<f64>, what: &str) {
    let largest = b.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    let error = (a - b).iter().fold(0f64, |m, x| m.max(x.abs()));
    assert!(error < 1e-11 * largest, "{what}: {error} of {largest}");
}

fn check(objective: &Objective, weights: &[f64], what: &str) -> Result<()> {
    let expected = direct(objective, weights)?;
    for objective in [objective.clone(), objective.clone().by_autograd()] {
        let parts = ClassParts::new(&objective)?;
        let whole = objective.fisher().dense()?.matrix().to_owned();
        let mut sum = Array2::zeros(whole.dim());
        let found = [&parts.class, &parts.cross, &parts.within, &parts.own];
        for (i, (part, expected)) in found.into_iter().zip(&expected).enumerate() {
            let matrix = part.dense()?.matrix().to_owned();
            assert_close(&matrix, expected, &format!("{what}, part {i}"));
            sum = sum + matrix;
        }
        assert_close(&sum, &whole, &format!("{what}, sum"));
    }
    Ok(())
}

#[test]
fn parts_are_those_of_the_definition_and_add_up() -> Result<()> {
    let ones = [1.0; 12];
    // Imbalanced, with a class without samples.
    let labels = [0, 0, 0, 0, 0, 0, 0, 1, 1, 3, 3, 3];
    check(
        &network(4, &labels, Loss::CrossEntropy)?,
        &ones,
        "imbalanced",
    )?;
    // Two classes, with two outputs and with one.
    let binary = [0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1];
    check(
        &network(2, &binary, Loss::CrossEntropy)?,
        &ones,
        "2 outputs",
    )?;
    check(&network(1, &binary, Loss::CrossEntropy)?, &ones, "1 output")?;
    // A sample per class: nothing is within the classes.
    let objective = network(3, &[2, 0, 1], Loss::CrossEntropy)?;
    check(&objective, &ones[..3], "a sample per class")?;
    let within = ClassParts::new(&objective)?
        .within
        .dense()?
        .matrix()
        .to_owned();
    assert!(within.iter().all(|x| x.abs() < 1e-15));
    // Class 1 has weight 0, label 9 is ignored, and class 0 counts twice.
    let loss = CrossEntropy::default()
        .with_class_weights(vec![2.0, 0.0, 1.0])
        .with_ignored_label(9);
    let labels = [0, 0, 0, 1, 1, 2, 2, 9, 9, 2, 0, 2];
    let weights = labels.map(|label: u32| match label {
        0 => 2.0 * 12.0 / 12.0, // Σ w_y = 4 · 2 + 4 · 1
        2 => 12.0 / 12.0,
        _ => 0.0,
    });
    check(&network(3, &labels, loss)?, &weights, "weights")
}

/// Each number of the report, at default settings, against the dense matrices.
#[test]
fn the_report_is_that_of_dense_matrices() -> Result<()> {
    let labels: Vec<u32> = (0..40).map(|i| [0, 0, 1, 2, 2, 2, 3][i % 7]).collect();
    let objective = network(4, &labels, Loss::CrossEntropy)?.with_l2(0.01)?;
    let found = ClassStructure::default().run(&objective)?;
    let parts = direct(&objective, &[1.0; 40])?;
    let whole = objective.fisher().dense()?;
    let close = |a: f64, b: f64, what: &str| assert!((a - b).abs() < 1e-9, "{what}: {a}, {b}");
    assert_eq!(found.counts, [12, 6, 17, 5]);

    let traces = &found.traces;
    let named = [traces.class, traces.cross, traces.within, traces.own];
    for (trace, part) in named.iter().zip(&parts) {
        close(trace.value, part.diag().sum(), "trace");
    }
    close(traces.total.value, whole.matrix().diag().sum(), "tr G");

    let eigen = |matrix: &Array2<f64>| crate::operator::Dense::new(matrix.clone())?.eigen();
    let all = [&found.class_eigenvalues, &found.cross_eigenvalues];
    for ((values, part), count) in all.into_iter().zip(&parts).zip([4, 8]) {
        let dense = eigen(part)?.values();
        assert_eq!(values.len(), count);
        assert!(dense[count].abs() < 1e-15); // the rank
        for (value, dense) in values.iter().zip(dense) {
            assert!(value.low <= dense + 1e-15 && dense <= value.high + 1e-15);
            close(value.value, dense, "eigenvalue");
        }
    }
    close(
        found.within_largest.value,
        eigen(&parts[2])?.values()[0],
        "within",
    );
    close(
        found.own_largest.value,
        eigen(&parts[3])?.values()[0],
        "own",
    );

    let spectrum = whole.eigen()?;
    assert_eq!(found.num_explained(3), 3);
    for (explained, pair) in found.eigenvalues.iter().zip(&spectrum.pairs).take(10) {
        close(explained.eigenvalue.value, pair.value, "λ");
        let v = Array1::from_vec(pair.vector.clone());
        for (share, part) in [explained.class, explained.cross].iter().zip(&parts) {
            let expected = v.dot(&part.dot(&v)) / pair.value;
            assert!(
                share.low <= expected && expected <= share.high,
                "{share} {expected}"
            );
            assert!((share.value - expected).abs() < 1e-6, "{share} {expected}");
        }
        // The spans of the class part, and of the class and the cross-class part.
        let between = &parts[0] + &parts[1];
        for (share, (part, rank)) in [explained.class_span, explained.mean_span]
            .iter()
            .zip([(&parts[0], 4), (&between, 12)])
        {
            let vectors = eigen(part)?.pairs;
            let squares = vectors[..rank]
                .iter()
                .map(|u| crate::vector::dot(&u.vector, &pair.vector).powi(2));
            let expected: f64 = squares.sum();
            assert!((share.value - expected).abs() < 1e-6, "{share} {expected}");
            assert!(share.low <= expected && expected <= share.high);
        }
    }
    let gradient = objective.clone().with_l2(0.0)?.gradient()?;
    let overlap = found.gradient_overlap.unwrap();
    close(
        overlap.value,
        spectrum.overlap(&gradient, 4)?.value,
        "overlap",
    );
    for rank in 1..=4 {
        let entries = found
            .participation
            .iter()
            .filter(|entry| entry.rank == rank);
        let (total, blocks): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.block == "all");
        close(total[0].share, 1.0, "share");
        close(blocks.iter().map(|b| b.share).sum::<f64>(), 1.0, "shares");
        let v = &spectrum.pairs[rank - 1].vector;
        let ratio = 1.0 / v.iter().map(|v| v.powi(4)).sum::<f64>();
        assert!((total[0].entries - ratio).abs() < 1e-4, "{ratio}");
    }

    let hessian = objective.hessian().dense()?;
    let gauss_newton = objective.gauss_newton().dense()?;
    let difference = eigen(&(hessian.matrix() - gauss_newton.matrix()))?.values();
    let (first, last) = (difference[0], difference[difference.len() - 1]);
    close(found.difference.largest.value, first, "largest of H − G");
    close(found.difference.smallest.value, last, "smallest of H − G");
    close(
        found.difference.trace.value,
        difference.iter().sum(),
        "tr(H − G)",
    );
    let norm = found.difference.norm();
    close(norm.value, first.max(-last), "norm");
    assert!(norm.low <= norm.value && norm.value <= norm.high);
    Ok(())
}

/// Sequences: each token is a sample, so a model whose samples are the tokens has the same parts.
#[test]
fn tokens_are_samples() -> Result<()> {
    let labels: [u32; 12] = [0, 2, 1, 1, 0, 2, 2, 0, 0, 1, 2, 0];
    let single = network(3, &labels, Loss::CrossEntropy)?;
    let x = single.data().inputs().reshape((4, 3, 3))?;
    let y = Tensor::from_slice(&labels, (4, 3), &Device::Cpu)?;
    let data = Dataset::classification(&x, &y)?;
    let model = Mlp::new(&[3, 4, 3], Activation::Tanh, 2, &Device::Cpu)?.to_dtype(DType::F64)?;
    let parameters = model.parameters().clone();
    let forward = move |x: &Tensor| {
        let rows = model.forward(&x.reshape(((), 3))?)?;
        rows.reshape(((), 3, 3))
    };
    let objective = Objective::from_fn(parameters, &data, Loss::CrossEntropy, forward)?;
    let [a, b] = [&single, &objective].map(ClassParts::new);
    let (a, b) = (a?, b?);
    for [a, b] in [
        [&a.class, &b.class],
        [&a.cross, &b.cross],
        [&a.within, &b.within],
        [&a.own, &b.own],
    ] {
        assert_close(b.dense()?.matrix(), a.dense()?.matrix(), "tokens");
    }
    Ok(())
}

#[test]
fn what_has_no_class_structure_is_refused() -> Result<()> {
    let objective = network(2, &[0, 1, 1], Loss::CrossEntropy)?;
    let message = |objective: &Objective| ClassParts::new(objective).unwrap_err().to_string();
    let in_parts = objective.with_source(objective.data().clone(), 2)?;
    assert!(message(&in_parts).contains("all samples in memory"));
    let values = objective.data().one_hot(2)?;
    let model = Mlp::new(&[3, 4, 2], Activation::Tanh, 2, &Device::Cpu)?.to_dtype(DType::F64)?;
    let squares = Objective::of(&model, &values, Loss::Mse)?;
    let refused = message(&squares);
    assert!(
        refused.contains("Mse") && refused.contains("use Loss::CrossEntropy"),
        "{refused}"
    );
    let too_many = ClassStructure::default()
        .with_eigenvalues(99)
        .run(&objective);
    assert!(
        too_many
            .unwrap_err()
            .to_string()
            .contains("ask for 1 to 26")
    );
    let short = ClassParts::new(&objective)?.class.apply(&[1.0; 3]);
    assert!(short.is_err());
    Ok(())
}
