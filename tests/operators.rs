//! Compares each operator with the dense matrix from automatic differentiation.

mod common;

use std::sync::Arc;

use common::{OnDiagonal, assert_close, dot, numbers, with_eigenvalues};
use loss_landscape::model::LayerKind;
use loss_landscape::ndarray::Array2;
use loss_landscape::operator::{Block, Distributed, Scaled, Shifted};
use loss_landscape::prelude::*;
use loss_landscape::ranks::Ranks;

const CPU: Device = Device::Cpu;

type BoxedOperator = Box<dyn LinearOperator + Send + Sync>;

struct Case {
    name: String,
    operator: BoxedOperator,
    /// The matrix, computed by another method.
    expected: Array2<f64>,
    /// Largest error, relative to the largest entry.
    tolerance: f64,
    is_positive_semidefinite: bool,
}

fn dataset(samples: usize, outputs: usize, loss: &Loss, dtype: DType) -> Dataset {
    let x = Tensor::from_vec(numbers(samples * 5, 1), (samples, 5), &CPU).unwrap();
    let data = match loss {
        Loss::Mse => {
            let y = Tensor::from_vec(numbers(samples * outputs, 2), (samples, outputs), &CPU);
            Dataset::regression(&x, &y.unwrap())
        }
        Loss::CrossEntropy => {
            let classes = (outputs as u32).max(2);
            let labels: Vec<u32> = (0..samples as u32)
                .map(|i| (i * i + i / 3) % classes)
                .collect();
            Dataset::classification(&x, &Tensor::from_vec(labels, samples, &CPU).unwrap())
        }
        other => unreachable!("{other:?}"),
    };
    data.unwrap().to_dtype(dtype).unwrap()
}

fn objective(
    (activation, widths, loss): &(Activation, &[usize], Loss),
    samples: usize,
    dtype: DType,
) -> Objective {
    let model = Mlp::new(widths, *activation, 3, &CPU)
        .unwrap()
        .to_dtype(dtype)
        .unwrap();
    let data = dataset(samples, *widths.last().unwrap(), loss, dtype);
    Objective::of(&model, &data, loss.clone())
        .unwrap()
        .with_l2(0.01)
        .unwrap()
}

/// The second moment of the per-sample gradients, each from an objective with one sample.
fn second_moment(
    objective: &Objective,
    net: &(Activation, &[usize], Loss),
    samples: usize,
) -> Array2<f64> {
    let theta = objective.parameters().to_flat().unwrap();
    let n = theta.len();
    let mut moment = Array2::zeros((n, n));
    for i in 0..samples {
        let one = objective.data().select(&[i]).unwrap();
        let model = Mlp::new(net.1, net.0, 3, &CPU)
            .unwrap()
            .to_dtype(DType::F64)
            .unwrap();
        model.parameters().set_flat(&theta).unwrap();
        let one = Objective::of(&model, &one, net.2.clone())
            .unwrap()
            .by_autograd();
        let g = one.gradient().unwrap();
        for (a, b) in (0..n).flat_map(|a| (0..n).map(move |b| (a, b))) {
            moment[[a, b]] += g[a] * g[b] / samples as f64;
        }
    }
    moment
}

fn entries(operator: &impl LinearOperator) -> Array2<f64> {
    operator.dense().unwrap().matrix().clone()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String,
                   operator: BoxedOperator,
                   expected: &Array2<f64>,
                   tolerance: f64,
                   is_positive_semidefinite: bool| {
        cases.push(Case {
            name,
            operator,
            expected: expected.clone(),
            tolerance,
            is_positive_semidefinite,
        });
    };
    for activation in Activation::ALL {
        for (widths, loss) in [
            (&[5, 4, 3][..], Loss::CrossEntropy),
            (&[5, 3, 4, 1], Loss::CrossEntropy),
            (&[5, 4, 2], Loss::Mse),
        ] {
            let net = (activation, widths, loss.clone());
            let samples = 23;
            let exact = objective(&net, samples, DType::F64);
            let plain = exact.clone().by_autograd();
            let single = objective(&net, samples, DType::F32);
            assert!(exact.is_hand_derived() && single.is_hand_derived());
            let name =
                |operator: &str| format!("{operator} of {widths:?}, {activation:?}, {loss:?}");

            let hessian = entries(&plain.hessian());
            let gauss_newton = entries(&plain.gauss_newton());
            let fisher = entries(&plain.fisher());
            let moment = second_moment(&exact, &net, samples);
            let mean = exact.clone().with_l2(0.0).unwrap().gradient().unwrap();
            let outer = Array2::from_shape_fn(moment.dim(), |(i, j)| mean[i] * mean[j]);
            for (objective, tolerance, how) in [(&exact, 1e-10, ""), (&single, 1e-5, "f32 ")] {
                let name = |operator: &str| name(&format!("{how}{operator}"));
                add(
                    name("Hessian"),
                    Box::new(objective.hessian()),
                    &hessian,
                    tolerance,
                    false,
                );
                let operator = Box::new(objective.gauss_newton());
                add(
                    name("GaussNewton"),
                    operator,
                    &gauss_newton,
                    tolerance,
                    true,
                );
                add(
                    name("Fisher"),
                    Box::new(objective.fisher()),
                    &fisher,
                    tolerance,
                    true,
                );
                let operator = Box::new(objective.empirical_fisher());
                add(name("EmpiricalFisher"), operator, &moment, tolerance, true);
                let operator = Box::new(objective.gradient_covariance().unwrap());
                add(
                    name("GradientCovariance"),
                    operator,
                    &(&moment - &outer),
                    tolerance,
                    true,
                );
            }
            let operator = Box::new(plain.empirical_fisher());
            add(
                name("EmpiricalFisher by autograd"),
                operator,
                &moment,
                1e-10,
                true,
            );
        }
    }

    let hessian = objective(
        &(Activation::Tanh, &[5, 4, 3], Loss::CrossEntropy),
        23,
        DType::F64,
    );
    let whole = entries(&hessian.clone().by_autograd().hessian());
    let shifted = &whole + &(Array2::<f64>::eye(whole.nrows()) * 0.7);
    let operator = Box::new(Shifted::new(hessian.hessian(), 0.7).unwrap());
    add("Shifted".into(), operator, &shifted, 1e-10, false);
    let range = hessian.parameters().range("layers.1.weight").unwrap();
    assert_eq!(range.len(), 12);
    let part = whole.slice(loss_landscape::ndarray::s![range.clone(), range.clone()]);
    let operator = Box::new(Block::new(hessian.hessian(), range).unwrap());
    add("Block".into(), operator, &part.to_owned(), 1e-10, false);
    let dense = with_eigenvalues(&[3.0, 1.0, 0.0, -2.0, 1e-3], 4);
    add(
        "Dense".into(),
        Box::new(dense.clone()),
        dense.matrix(),
        1e-14,
        false,
    );
    cases
}

#[test]
fn every_operator_matches_its_matrix() {
    for case in cases() {
        let Case {
            name,
            operator,
            expected,
            tolerance,
            ..
        } = &case;
        let n = operator.dim();
        assert_eq!(n, expected.nrows(), "{name}");
        let scale = expected.iter().fold(0.0, |m: f64, a| m.max(a.abs()));
        let close = |found: &[f64], expected: &[f64], what: &str| {
            for (f, e) in found.iter().zip(expected) {
                assert!(
                    (f - e).abs() <= tolerance * scale,
                    "{name}: {what}: {f} is not {e}"
                );
            }
        };

        // Columns of the matrix, one by one and as a block.
        let unit = |j: usize| {
            (0..n)
                .map(|i| f64::from(u8::from(i == j)))
                .collect::<Vec<f64>>()
        };
        let columns: Vec<Vec<f64>> = (0..n).map(|j| operator.apply(&unit(j)).unwrap()).collect();
        let together = operator
            .apply_block(&(0..n).map(unit).collect::<Vec<_>>())
            .unwrap();
        for (j, column) in columns.iter().enumerate() {
            close(column, &expected.column(j).to_vec(), "column");
            close(&together[j], column, "block");
        }
        assert!(operator.apply_block(&[]).unwrap().is_empty(), "{name}");

        // Products are linear and symmetric.
        let (u, v) = (numbers(n, 7), numbers(n, 8));
        let (hu, hv) = (operator.apply(&u).unwrap(), operator.apply(&v).unwrap());
        let mixed: Vec<f64> = u.iter().zip(&v).map(|(u, v)| 2.0 * u - 0.5 * v).collect();
        let sum: Vec<f64> = hu.iter().zip(&hv).map(|(u, v)| 2.0 * u - 0.5 * v).collect();
        let slack = tolerance * scale * n as f64;
        for (a, b) in operator.apply(&mixed).unwrap().iter().zip(&sum) {
            assert!((a - b).abs() <= slack, "{name}: not linear");
        }
        assert!(
            (dot(&u, &hv) - dot(&v, &hu)).abs() <= slack,
            "{name}: not symmetric"
        );
        assert!(
            operator
                .apply(&vec![0.0; n])
                .unwrap()
                .iter()
                .all(|x| *x == 0.0),
            "{name}"
        );
        if case.is_positive_semidefinite {
            assert!(
                dot(&u, &hu) >= -slack && dot(&v, &hv) >= -slack,
                "{name}: not positive"
            );
        }

        // A second call gives the same bits.
        assert_eq!(operator.apply(&u).unwrap(), hu, "{name}");

        // Vectors with a wrong length or non-finite entries are refused.
        for (wrong, words) in [
            (
                vec![1.0; n + 1],
                &*format!("the vector has {} entries but the", n + 1),
            ),
            (vec![], "the vector has 0 entries but the"),
            ([vec![f64::NAN], vec![0.0; n - 1]].concat(), "not finite"),
            (
                [vec![0.0; n - 1], vec![f64::INFINITY]].concat(),
                "not finite",
            ),
        ] {
            let message = operator.apply(&wrong).unwrap_err().to_string();
            assert!(message.contains(words), "{name}: {message}");
            assert!(operator.apply_block(&[u.clone(), wrong]).is_err(), "{name}");
        }
    }
}

/// More samples than fit in a tile or in a group of tiles, and an incomplete last tile, in both dtypes.
#[test]
fn many_samples_and_any_number_of_threads() {
    let net = (Activation::Softplus, &[5, 7, 3][..], Loss::CrossEntropy);
    for samples in [1, 2, 255, 256, 257, 512, 513, 1_300] {
        let exact = objective(&net, samples, DType::F64);
        let plain = exact.clone().by_autograd();
        let v = numbers(exact.dim(), 9);
        let threads = |n: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(n)
                .build()
                .unwrap()
        };
        let hv = exact.hvp(&v).unwrap();
        assert_close(&hv, &plain.hvp(&v).unwrap(), 1e-10);
        let gradient = exact.gradient().unwrap();
        assert_close(&gradient, &plain.gradient().unwrap(), 1e-10);
        assert!((exact.loss().unwrap() - plain.loss().unwrap()).abs() < 1e-12);
        assert_eq!(exact.accuracy().unwrap(), plain.accuracy().unwrap());
        for n in [1, 3] {
            assert_eq!(threads(n).install(|| exact.hvp(&v).unwrap()), hv);
            assert_eq!(threads(n).install(|| exact.gradient().unwrap()), gradient);
        }
        let single = objective(&net, samples, DType::F32);
        assert_close(&single.hvp(&v).unwrap(), &hv, 1e-5);
        assert_close(&single.gradient().unwrap(), &gradient, 1e-5);
    }
}

#[test]
fn products_by_autograd_do_not_depend_on_the_block() {
    for loss in [Loss::CrossEntropy, Loss::Mse] {
        let by_hand = objective(&(Activation::Gelu, &[5, 6, 3], loss), 23, DType::F64);
        let n = by_hand.dim();
        let by_graph = by_hand.clone().by_autograd().with_batch_size(10).unwrap();
        let vectors: Vec<_> = (0..4).map(|seed| numbers(n, 40 + seed)).collect();
        let operators = |of: &Objective| -> [BoxedOperator; 4] {
            [
                Box::new(of.hessian()),
                Box::new(of.gauss_newton()),
                Box::new(of.fisher()),
                Box::new(of.gradient_covariance().unwrap()),
            ]
        };
        for (one, other) in operators(&by_graph).iter().zip(&operators(&by_hand)) {
            let together = one.apply_block(&vectors).unwrap();
            for (v, product) in vectors.iter().zip(&together) {
                assert_eq!(&one.apply(v).unwrap(), product);
                assert_close(product, &other.apply(v).unwrap(), 1e-12);
            }
        }
    }
}

/// Values cached at one θ are not used at another.
#[test]
fn products_follow_the_model() {
    let exact = objective(
        &(Activation::Tanh, &[5, 4, 3], Loss::CrossEntropy),
        40,
        DType::F64,
    );
    let v = numbers(exact.dim(), 10);
    let (first, theta) = (
        exact.hvp(&v).unwrap(),
        exact.parameters().to_flat().unwrap(),
    );
    let moved: Vec<f64> = theta.iter().map(|t| t + 0.1).collect();
    exact.parameters().set_flat(&moved).unwrap();
    let second = exact.hvp(&v).unwrap();
    assert_close(
        &second,
        &exact.clone().by_autograd().hvp(&v).unwrap(),
        1e-10,
    );
    assert_ne!(first, second);
    exact.parameters().set_flat(&theta).unwrap();
    assert_eq!(exact.hvp(&v).unwrap(), first);
}

/// At zero residual the Hessian of squared error is the Gauss–Newton matrix, and all gradients are zero.
#[test]
fn a_perfect_fit() {
    let model = Mlp::new(&[5, 4, 2], Activation::Tanh, 3, &CPU)
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap();
    let inputs = dataset(12, 2, &Loss::Mse, DType::F64).inputs().clone();
    let data = Dataset::regression(&inputs, &model.forward(&inputs).unwrap()).unwrap();
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    assert!(objective.loss().unwrap() < 1e-30 && objective.gradient_norm().unwrap() < 1e-14);
    let (h, g) = (
        entries(&objective.hessian()),
        entries(&objective.gauss_newton()),
    );
    assert_close(h.as_slice().unwrap(), g.as_slice().unwrap(), 1e-12);
    assert!(
        entries(&objective.empirical_fisher())
            .iter()
            .all(|x| x.abs() < 1e-28)
    );

    // Its nonzero eigenvalues are those of the tangent kernel JJᵀ, times 2 / (n · outputs).
    let n = 12 * 2;
    let theta = objective.parameters().to_flat().unwrap();
    let step = 1e-6;
    let at = |i: usize, sign: f64| {
        let mut moved = theta.clone();
        moved[i] += sign * step;
        model.parameters().set_flat(&moved).unwrap();
        model
            .forward(&inputs)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f64>()
            .unwrap()
    };
    let rows: Vec<Vec<f64>> = (0..theta.len())
        .map(|i| {
            at(i, 1.0)
                .iter()
                .zip(at(i, -1.0))
                .map(|(a, b)| (a - b) / (2.0 * step))
                .collect()
        })
        .collect();
    model.parameters().set_flat(&theta).unwrap();
    let jacobian = objective.jacobian().unwrap();
    assert_eq!(jacobian.dim(), (n, theta.len()));
    assert_close(
        jacobian.t().as_standard_layout().as_slice().unwrap(),
        &rows.concat(),
        1e-8,
    );
    let kernel = Array2::from_shape_fn((n, n), |(a, b)| {
        rows.iter().map(|row| row[a] * row[b]).sum::<f64>() * 2.0 / n as f64
    });
    let exact = objective.tangent_kernel().unwrap().eigen().unwrap();
    let exact: Vec<f64> = exact.values().iter().map(|v| v * 2.0 / n as f64).collect();
    let kernel = Dense::new(kernel).unwrap().eigen().unwrap().values();
    assert_close(&exact, &kernel, 1e-7);
    let found = Dense::new(g).unwrap().eigen().unwrap().values();
    assert_close(&found[..n], &kernel, 1e-7);
    assert!(found[n..].iter().all(|x| x.abs() < 1e-12 * found[0]));
}

#[test]
fn non_finite_parameters_are_named() {
    let exact = objective(
        &(Activation::Relu, &[5, 4, 3], Loss::CrossEntropy),
        9,
        DType::F64,
    );
    let theta = exact.parameters().to_flat().unwrap();
    let overflowing: Vec<f64> = theta.iter().map(|t| t * 1e200).collect();
    exact.parameters().set_flat(&overflowing).unwrap();
    let v = numbers(exact.dim(), 11);
    for error in [exact.hvp(&v).unwrap_err(), exact.gradient().unwrap_err()] {
        assert!(
            error
                .to_string()
                .contains("of parameter `layers.0.bias` is not finite"),
            "{error}"
        );
    }
    assert!(exact.hessian().top(2).is_err() && exact.loss().is_err());
}

/// `layers()` must describe the network that `forward()` computes.
#[test]
fn wrong_layers_are_detected() {
    #[derive(Clone)]
    struct Mislabelled(Mlp, Vec<LayerKind>);
    impl Module for Mislabelled {
        fn forward(&self, x: &Tensor) -> loss_landscape::candle::Result<Tensor> {
            self.0.forward(x)
        }
    }
    impl Model for Mislabelled {
        fn parameters(&self) -> &Parameters {
            self.0.parameters()
        }
        fn layers(&self) -> Option<Vec<LayerKind>> {
            Some(self.1.clone())
        }
    }
    let model = Mlp::new(&[5, 4, 3], Activation::Tanh, 3, &CPU).unwrap();
    let data = dataset(9, 3, &Loss::CrossEntropy, DType::F32);
    let objective = |layers: Vec<LayerKind>| {
        Objective::of(
            &Mislabelled(model.clone(), layers),
            &data,
            Loss::CrossEntropy,
        )
    };
    let mut layers = model.layers().unwrap();
    assert!(objective(layers.clone()).unwrap().is_hand_derived());
    let is_activation = |layer: &LayerKind| matches!(layer, LayerKind::Activation(_));
    let activation = layers.iter().position(is_activation).unwrap();
    layers[activation] = LayerKind::Activation(Activation::Relu);
    let message = objective(layers.clone()).unwrap_err().to_string();
    assert!(
        message.contains("the model's layers() describe a different network from its forward()"),
        "{message}"
    );
    // Layers that fit no network fall back to autograd.
    layers.drain(..activation);
    assert!(!objective(layers).unwrap().is_hand_derived());
    assert!(!objective(Vec::new()).unwrap().is_hand_derived());
}

#[test]
fn invalid_operators_are_refused() {
    let diagonal = || OnDiagonal(vec![1.0; 4]);
    assert!(Shifted::new(diagonal(), f64::NAN).is_err());
    for range in [0..0, 3..5, 9..12] {
        let message = Block::new(diagonal(), range).err().unwrap().to_string();
        assert!(message.contains("not a block"), "{message}");
    }
    for ranges in [vec![], vec![2..3, 0..1], vec![0..2, 1..3]] {
        let message = Block::from_ranges(diagonal(), ranges).err().unwrap();
        assert!(message.to_string().contains("not a block"), "{message}");
    }
    let model = Mlp::new(&[5, 4, 3], Activation::Relu, 3, &CPU).unwrap();
    assert!(model.parameters().range("layers.7.weight").is_err());
}

/// The kernel depends on the outputs alone, not on loss, targets or L2 term.
#[test]
fn a_tangent_kernel_does_not_depend_on_the_loss() {
    let net = |loss| (Activation::Tanh, &[5, 4, 3][..], loss);
    let [kernel, with_squared_error] = [Loss::CrossEntropy, Loss::Mse].map(|loss| {
        let objective = objective(&net(loss), 7, DType::F64);
        objective.tangent_kernel().unwrap()
    });
    assert_eq!(kernel, with_squared_error);
    assert_eq!(kernel.dim(), 21);
    let single = objective(&net(Loss::Mse), 7, DType::F32).tangent_kernel();
    let [single, exact] =
        [&single.unwrap(), &kernel].map(|k| k.matrix().as_slice().unwrap().to_vec());
    assert_close(&single, &exact, 1e-5);
}

#[test]
fn jacobians_that_are_too_large_are_refused() {
    let model = Mlp::new(&[784, 128, 10], Activation::Relu, 3, &CPU).unwrap();
    let inputs = Tensor::zeros((3000, 784), DType::F32, &CPU).unwrap();
    let labels = Tensor::zeros(3000, DType::U32, &CPU).unwrap();
    let data = Dataset::classification(&inputs, &labels).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let message = objective.tangent_kernel().unwrap_err().to_string();
    assert!(message.contains("fewer samples"), "{message}");
}

/// Blocks of several parameters are the matching parts of the matrix, also through wrappers and pointers.
#[test]
fn blocks_are_parts_of_the_matrix() {
    let net = (Activation::Tanh, &[5, 4, 3][..], Loss::CrossEntropy);
    for objective in [
        objective(&net, 23, DType::F64),
        objective(&net, 23, DType::F64).by_autograd(),
    ] {
        let parameters = objective.parameters();
        let range = |name: &str| parameters.range(name).unwrap();
        // A whole parameter, and a part of another.
        let weight = range("layers.1.weight");
        let ranges = vec![range("layers.0.bias"), weight.start + 2..weight.end - 1];
        let rows: Vec<usize> = ranges.iter().cloned().flatten().collect();
        let mut operators = operators_of(&objective);
        operators.retain(|(name, _)| *name != "Block");
        for (name, operator) in operators {
            let whole = entries(&operator);
            let block = Block::from_ranges(&operator, ranges.clone()).unwrap();
            assert_eq!(block.ranges(), ranges);
            let found = block.dense().unwrap();
            let expected =
                Array2::from_shape_fn((rows.len(), rows.len()), |(i, j)| whole[[rows[i], rows[j]]]);
            let expected = expected.as_slice().unwrap();
            assert_close(found.matrix().as_slice().unwrap(), expected, 1e-12);
            let error = block.apply(&vec![1.0; rows.len() + 1]).unwrap_err();
            assert!(
                error.to_string().contains("the vector has"),
                "{name}: {error}"
            );
        }

        let hessian = || objective.hessian();
        let layer = hessian().block(&["layers.1"]).unwrap();
        assert_eq!(
            layer.ranges(),
            [range("layers.1.bias"), range("layers.1.weight")]
        );
        let error = hessian().block(&["layers.2"]).unwrap_err().to_string();
        assert!(
            error.contains("`layers.2`") && error.contains("layers.1.bias"),
            "{error}"
        );
        assert!(hessian().block(&["layer"]).is_err() && hessian().block(&[]).is_err());
    }
}

/// An operator whose methods all differ from the defaults.
struct Unusual;

impl LinearOperator for Unusual {
    fn dim(&self) -> usize {
        2
    }

    fn apply(&self, _: &[f64]) -> Result<Vec<f64>, Error> {
        Ok(vec![1.0; 2])
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, Error> {
        Ok(vec![vec![2.0; 2]; vectors.len()])
    }

    fn apply_restricted(
        &self,
        ranges: &[std::ops::Range<usize>],
        vectors: &[Vec<f64>],
    ) -> Result<Vec<Vec<f64>>, Error> {
        Ok(vec![vec![3.0; ranges[0].len()]; vectors.len()])
    }

    fn state(&self) -> Result<u64, Error> {
        Ok(4)
    }

    fn dtype(&self) -> Option<DType> {
        Some(DType::F32)
    }

    fn cancellation(&self) -> Result<f64, Error> {
        Ok(5.0)
    }
}

#[test]
fn pointers_and_wrappers_forward_every_method() {
    fn check(name: &str, operator: impl LinearOperator) {
        let v = vec![0.0; 2];
        assert_eq!(operator.dim(), 2, "{name}");
        assert_eq!(operator.apply(&v).unwrap(), [1.0; 2], "{name}");
        assert_eq!(operator.apply_block(&[v]).unwrap(), [[2.0; 2]], "{name}");
        let restricted = operator.apply_restricted(std::slice::from_ref(&(1..2)), &[vec![0.0]]);
        assert_eq!(restricted.unwrap(), [[3.0]], "{name}");
        assert_eq!(operator.state().unwrap(), 4, "{name}");
        assert_eq!(operator.dtype(), Some(DType::F32), "{name}");
        assert_eq!(operator.cancellation().unwrap(), 5.0, "{name}");
    }
    check("&A", &Unusual);
    check("Box", Box::new(Unusual));
    check("Arc", Arc::new(Unusual));
    check("Arc<dyn>", Arc::new(Unusual) as Arc<dyn LinearOperator>);
    check("Shifted", Shifted::new(Unusual, 0.0).unwrap());
    check("Scaled", Scaled::new(Unusual, vec![1.0; 2]).unwrap());
    let block = Block::new(Unusual, 1..2).unwrap();
    assert_eq!(block.apply(&[0.0]).unwrap(), [3.0]);
    assert_eq!(block.apply_block(&[vec![0.0]]).unwrap(), [[3.0]]);
    assert_eq!(
        (block.state().unwrap(), block.cancellation().unwrap()),
        (4, 5.0)
    );
}

/// A single rank.
struct SingleRank;

impl Ranks for SingleRank {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f64]) -> Result<(), Error> {
        Ok(())
    }

    fn begin(&self) -> u64 {
        0
    }

    fn claim(&self, _: u64, _: usize) -> Result<Option<usize>, Error> {
        Ok(None)
    }
}

/// Every operator of an objective, and every wrapper, with their names.
fn operators_of(objective: &Objective) -> Vec<(&'static str, BoxedOperator)> {
    let n = objective.dim();
    let covariance = objective.gradient_covariance().unwrap();
    let halves = vec![0.5; n];
    let distributed = Distributed::new(covariance.clone(), Arc::new(SingleRank));
    vec![
        ("Hessian", Box::new(objective.hessian())),
        ("GaussNewton", Box::new(objective.gauss_newton())),
        ("Fisher", Box::new(objective.fisher())),
        ("EmpiricalFisher", Box::new(objective.empirical_fisher())),
        ("GradientCovariance", Box::new(covariance.clone())),
        (
            "Shifted",
            Box::new(Shifted::new(covariance.clone(), 0.5).unwrap()),
        ),
        (
            "Scaled",
            Box::new(Scaled::new(covariance.clone(), halves).unwrap()),
        ),
        (
            "Block",
            Box::new(Block::new(covariance.clone(), 1..n - 1).unwrap()),
        ),
        ("Distributed", Box::new(distributed)),
        ("Box", Box::new(Box::new(covariance))),
    ]
}

/// After the model has moved, an operator equals one that is created at the new point.
#[test]
fn every_operator_follows_the_model() {
    let net = (Activation::Tanh, &[5, 4, 3][..], Loss::CrossEntropy);
    for by_hand in [true, false] {
        let objective = match by_hand {
            true => objective(&net, 23, DType::F64),
            false => objective(&net, 23, DType::F64).by_autograd(),
        };
        let early = operators_of(&objective);
        let start = objective.parameters().to_flat().unwrap();
        let at_start: Vec<_> = early.iter().map(|(_, a)| entries(a)).collect();
        let states: Vec<_> = early.iter().map(|(_, a)| a.state().unwrap()).collect();
        for move_by in [0.3, -0.2, 0.0] {
            let moved: Vec<f64> = start.iter().map(|t| t + move_by).collect();
            objective.parameters().set_flat(&moved).unwrap();
            let late = operators_of(&objective);
            for (((name, old), (_, new)), state) in early.iter().zip(&late).zip(&states) {
                assert_eq!(entries(old), entries(new), "{name} after the move");
                assert_eq!(old.state().unwrap(), new.state().unwrap(), "{name}");
                assert_eq!(old.state().unwrap() != *state, move_by != 0.0, "{name}");
            }
        }
        for (((name, a), entries_at_start), state) in early.iter().zip(&at_start).zip(&states) {
            assert_eq!(&entries(a), entries_at_start, "{name} back at the start");
            assert_eq!(a.state().unwrap(), *state, "{name}");
        }
    }
}

/// An operator at a fixed θ does not follow the model.
#[test]
fn an_operator_at_a_fixed_point_stays_there() {
    let net = (Activation::Tanh, &[5, 4, 3][..], Loss::CrossEntropy);
    let objective = objective(&net, 23, DType::F64);
    let theta = objective.parameters().to_flat().unwrap();
    let at_theta = || -> Vec<(&'static str, BoxedOperator)> {
        let at = || theta.clone();
        let covariance = objective.gradient_covariance().unwrap();
        vec![
            (
                "Hessian",
                Box::new(objective.hessian().at(at()).unwrap()) as BoxedOperator,
            ),
            (
                "GaussNewton",
                Box::new(objective.gauss_newton().at(at()).unwrap()),
            ),
            ("Fisher", Box::new(objective.fisher().at(at()).unwrap())),
            (
                "EmpiricalFisher",
                Box::new(objective.empirical_fisher().at(at()).unwrap()),
            ),
            ("GradientCovariance", Box::new(covariance.at(at()).unwrap())),
        ]
    };
    let fixed = at_theta();
    let before: Vec<_> = operators_of(&objective)
        .iter()
        .map(|(_, a)| entries(a))
        .collect();
    objective
        .parameters()
        .set_flat(&vec![0.1; theta.len()])
        .unwrap();
    for ((name, a), (late, before)) in fixed.iter().zip(at_theta().iter().zip(&before)) {
        assert_eq!(&entries(a), before, "{name}");
        assert_eq!(&entries(&late.1), before, "{name} created after the move");
        assert_eq!(a.state().unwrap(), late.1.state().unwrap(), "{name}");
    }
}

/// At the minimum of L = b² + 4w², both gradients are 0, no matter where the operator was created.
#[test]
fn a_gradient_covariance_has_no_negative_eigenvalues_after_a_move() {
    let x = Tensor::new(&[[-2.0], [2.0]], &CPU).unwrap();
    let data = Dataset::regression(&x, &x.zeros_like().unwrap()).unwrap();
    let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &CPU)
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap();
    line.parameters().set_flat(&[1.0, 0.5]).unwrap();
    let objective = Objective::of(&line, &data, Loss::Mse).unwrap();
    let covariance = objective.gradient_covariance().unwrap();
    line.parameters().set_flat(&[0.0, 0.0]).unwrap();
    assert_eq!(entries(&covariance), Array2::<f64>::zeros((2, 2)));
    let found = covariance.dense().unwrap().eigen().unwrap().values();
    assert_eq!(found, [0.0, 0.0]);
}

/// All products in a file are at one θ, also for wrappers. An operator at a fixed θ can continue.
#[test]
fn a_record_is_refused_after_the_model_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let net = (Activation::Tanh, &[5, 4, 3][..], Loss::CrossEntropy);
    let objective = objective(&net, 23, DType::F64);
    let theta = objective.parameters().to_flat().unwrap();
    let few = Lanczos::default().with_max_products(4);
    let file = |name: &str| directory.path().join(name);
    let plain = objective.hessian().with_checkpoint(file("plain")).unwrap();
    let shifted = Shifted::new(objective.hessian(), 1.0).unwrap();
    let shifted = shifted.with_checkpoint(file("shifted")).unwrap();
    let fixed = objective.hessian().at(theta.clone()).unwrap();
    let fixed = fixed.with_checkpoint(file("fixed")).unwrap();
    let before = few.run(&fixed, 2).unwrap();
    few.run(&plain, 2).unwrap();
    few.run(&shifted, 2).unwrap();
    // A change too small to be seen in a single product.
    let near: Vec<f64> = theta.iter().map(|t| t + 1e-9).collect();
    objective.parameters().set_flat(&near).unwrap();
    for moved in [few.run(&plain, 2), few.run(&shifted, 2)] {
        let message = moved.unwrap_err().to_string();
        assert!(message.contains("the model has changed"), "{message}");
    }
    assert_eq!(few.run(&fixed, 2).unwrap(), before);
    objective.parameters().set_flat(&theta).unwrap();
    assert_eq!(few.run(&plain, 2).unwrap(), before);
}

/// The loss −(z − y)² is concave in its output: −G is the Gauss–Newton matrix of squared error, and there is no Fisher matrix.
#[test]
fn gauss_newton_of_a_concave_loss_is_negative() {
    let net = (Activation::Tanh, &[5, 4, 1][..], Loss::Mse);
    let convex = objective(&net, 23, DType::F64).with_l2(0.0).unwrap();
    let model = Mlp::new(net.1, net.0, 3, &CPU)
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap();
    let network = model.clone();
    let concave = Objective::from_loss(
        model.parameters().clone(),
        convex.data(),
        move |x| network.forward(x),
        |z, targets| {
            let Targets::Values(y) = targets else {
                candle::bail!("expected values")
            };
            (z - y)?.sqr()?.neg()?.squeeze(1)
        },
    )
    .unwrap();
    let expected = entries(&convex.gauss_newton()).mapv(|g| -g);
    let found = entries(&concave.gauss_newton());
    assert_close(
        found.as_slice().unwrap(),
        expected.as_slice().unwrap(),
        1e-12,
    );
    let values = concave.gauss_newton().dense().unwrap().eigen().unwrap();
    assert!(values.values().last().unwrap() < &-0.1);
    let refused = concave.fisher().apply(&numbers(concave.dim(), 1));
    assert!(refused.unwrap_err().to_string().contains("distribution"));
}
