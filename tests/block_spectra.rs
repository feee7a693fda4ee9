//! Spectra of diagonal blocks: closed forms, dense matrices, attention heads, the coverage of stated errors, and resumption.

mod common;

use std::cell::Cell;
use std::ops::Range;

use common::{OnDiagonal, numbers, with_eigenvalues};
use loss_landscape::layers::Linear;
use loss_landscape::ndarray::{self, Array2};
use loss_landscape::operator::Blocks;
use loss_landscape::prelude::*;
use loss_landscape::spectral::{BlockSettings, Bracket, Estimate};
use tempfile::tempdir;

const CPU: Device = Device::Cpu;

/// Named blocks of consecutive rows.
fn consecutive(sizes: &[usize]) -> Vec<(String, Vec<Range<usize>>)> {
    let mut start = 0;
    let named = sizes.iter().enumerate().map(|(i, size)| {
        start += size;
        let rows = start - size..start;
        (format!("block {i}"), vec![rows])
    });
    named.collect()
}

/// A matrix with these diagonal blocks and zeros elsewhere.
fn block_diagonal(blocks: &[Dense]) -> Dense {
    let sizes: Vec<usize> = blocks.iter().map(Dense::dim).collect();
    let mut matrix = Array2::zeros((sizes.iter().sum(), sizes.iter().sum()));
    for ((_, ranges), block) in consecutive(&sizes).iter().zip(blocks) {
        let rows = ranges[0].clone();
        matrix
            .slice_mut(ndarray::s![rows.clone(), rows])
            .assign(block.matrix());
    }
    Dense::new(matrix).unwrap()
}

/// A symmetric matrix of random entries.
fn random_symmetric(n: usize, seed: u64) -> Array2<f64> {
    let entries = Array2::from_shape_vec((n, n), numbers(n * n, seed)).unwrap();
    (&entries + &entries.t()) / 2.0
}

/// A language model with one block of two heads, and its tokens.
fn gpt() -> (Layered, Objective) {
    let architecture = Architecture::Gpt {
        layers: 1,
        heads: 2,
        width: 4,
        context: 3,
    };
    let model = architecture.build(&[3], 5, 1, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let tokens = Tensor::new(&[[0u32, 1, 2], [3, 4, 0], [2, 2, 1]], &CPU).unwrap();
    let labels = Tensor::new(&[[1u32, 2, 3], [4, 0, 1], [2, 1, 0]], &CPU).unwrap();
    let data = Dataset::classification(&tokens, &labels).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    (model, objective)
}

/// Asserts that a number lies within an interval with some room for rounding.
#[track_caller]
fn assert_within(x: f64, low: f64, high: f64, what: &str) {
    assert!(
        low <= x && x <= high,
        "{what}: {x} is not between {low} and {high}"
    );
}

#[test]
fn spectra_of_a_network_are_those_of_its_dense_blocks() {
    let (_, objective) = gpt();
    let hessian = objective.hessian();
    let dense = hessian.dense().unwrap();
    let blocks = hessian.clone().by_block("blocks.*.*,**").unwrap();
    let spectra = BlockSettings::default()
        .with_probes(30)
        .run(&blocks)
        .unwrap();
    assert_eq!(spectra.blocks.len(), 9);
    for (block, (name, ranges)) in spectra.blocks.iter().zip(blocks.ranges()) {
        assert_eq!(block.name, *name);
        let rows: Vec<usize> = ranges.iter().cloned().flatten().collect();
        let part = dense.matrix().select(ndarray::Axis(0), &rows);
        let part = part.select(ndarray::Axis(1), &rows);
        let exact = Dense::new(part.clone()).unwrap().eigen().unwrap().values();
        let size = exact[0].max(-exact[rows.len() - 1]);
        let (largest, smallest) = (block.largest, block.smallest);
        let rounding = 1e-10 * size;
        assert_within(
            exact[0],
            largest.low - rounding,
            largest.high + rounding,
            name,
        );
        let last = exact[rows.len() - 1];
        assert_within(
            last,
            smallest.low - rounding,
            smallest.high + rounding,
            name,
        );
        for (found, exact) in [
            (block.trace(), part.diag().sum()),
            (block.frobenius_squared(), part.iter().map(|x| x * x).sum()),
        ] {
            let error = (found.value - exact).abs();
            assert!(
                error <= 4.0 * found.standard_error + rounding,
                "{name}: {found}, {exact}"
            );
        }
    }
    let all = 0..objective.dim();
    let whole = Blocks::new(&hessian, vec![("all".into(), vec![all])]).unwrap();
    let whole = BlockSettings::default()
        .with_probes(30)
        .run(&whole)
        .unwrap();
    assert_eq!(spectra.whole.density, whole.blocks[0].density);
}

#[test]
fn a_density_of_a_block_is_that_of_the_block_alone() {
    let (_, objective) = gpt();
    let blocks = objective.hessian().by_block("blocks.0.mlp.*").unwrap();
    let settings = BlockSettings::default()
        .with_probes(3)
        .with_steps(9)
        .with_seed(4);
    let spectra = settings.run(&blocks).unwrap();
    let alone = DensitySettings::default()
        .with_probes(3)
        .with_steps(9)
        .with_seed(4);
    for block in &spectra.blocks {
        let block_alone = objective.hessian().block(&[&block.name]).unwrap();
        assert_eq!(block.density, alone.run(&block_alone).unwrap());
    }
    assert_eq!(spectra.products(), 3 * 3 * 9);
}

#[test]
fn heads_are_rows_of_queries_keys_and_values_and_columns_of_outputs() {
    let (model, objective) = gpt();
    let whole = objective.hessian().dense().unwrap();
    let blocks = objective.hessian().by_head("blocks.*.attention").unwrap();
    let attention = "blocks.0.attention";
    assert_eq!(
        blocks.names(),
        [
            format!("{attention}.head0"),
            format!("{attention}.head1"),
            attention.to_owned()
        ]
    );
    let start = |part: &str| {
        let name = format!("{attention}.{part}");
        model.parameters().range(&name).unwrap().start
    };
    for head in 0..2 {
        // Features 2 · head and 2 · head + 1 of 4.
        let mut expected = Vec::new();
        for part in ["key", "query", "value"] {
            let [bias, weight] = ["bias", "weight"].map(|kind| start(&format!("{part}.{kind}")));
            expected.extend((0..2).map(|i| bias + 2 * head + i));
            expected.extend((0..8).map(|i| weight + 8 * head + i));
        }
        let output = start("output.weight");
        expected.extend((0..4).flat_map(|row| [0, 1].map(|i| output + 4 * row + 2 * head + i)));
        expected.sort_unstable();
        let name = format!("{attention}.head{head}");
        let block = blocks.get(&name).unwrap();
        let found: Vec<usize> = block.ranges().iter().cloned().flatten().collect();
        assert_eq!(found, expected);
        // The product computes only the block, and is the block of the whole matrix.
        let dense = block.dense().unwrap();
        for (i, row) in expected.iter().enumerate() {
            for (j, column) in expected.iter().enumerate() {
                let [found, expected] = [dense.matrix()[[i, j]], whole.matrix()[[*row, *column]]];
                assert!(
                    (found - expected).abs() < 1e-13,
                    "{found} is not {expected}"
                );
            }
        }
    }
    let rest: Vec<Range<usize>> = vec![
        model
            .parameters()
            .range(&format!("{attention}.output.bias"))
            .unwrap(),
    ];
    assert_eq!(blocks.get(attention).unwrap().ranges(), rest);

    // A head whose output nobody reads has no gradient; the other has.
    let theta = model.parameters().to_flat().unwrap();
    let mut cut = theta.clone();
    let output = start("output.weight");
    for row in 0..4 {
        cut[output + 4 * row + 2] = 0.0;
        cut[output + 4 * row + 3] = 0.0;
    }
    let gradient = objective.gradient_at(&cut).unwrap().1;
    let size = |part: &str| {
        let blocks = objective
            .hessian()
            .by_head(&format!("{attention}.{part}"))
            .unwrap();
        let sizes = blocks.ranges().iter().map(|(_, ranges)| {
            let rows = ranges.iter().cloned().flatten();
            rows.map(|row| gradient[row].abs()).fold(0.0, f64::max)
        });
        sizes.collect::<Vec<f64>>()
    };
    for part in ["query", "value"] {
        let sizes = size(part);
        assert!(sizes[0] > 1e-8 && sizes[1] < 1e-15, "{part}: {sizes:?}");
    }
}

/// How often an exact value lies in the 95 % intervals of estimates with different seeds.
fn coverage(exact: f64, seeds: u64, estimate: impl Fn(u64) -> Estimate) -> f64 {
    let covered = (0..seeds).filter(|seed| {
        let [low, high] = estimate(*seed).interval(0.95).unwrap();
        low - 1e-12 <= exact && exact <= high + 1e-12
    });
    covered.count() as f64 / seeds as f64
}

#[test]
fn the_share_outside_the_blocks_has_its_coverage() {
    let sizes = [30, 50, 40];
    let mut matrix = random_symmetric(130, 3); // the last 10 rows are in no block
    let rows = ndarray::s![..60, ..60];
    matrix.slice_mut(rows).mapv_inplace(|x| 3.0 * x);
    let all: f64 = matrix.iter().map(|x| x * x).sum();
    let inside = consecutive(&sizes).into_iter().map(|(_, ranges)| {
        let rows = ranges[0].clone();
        let block = matrix.slice(ndarray::s![rows.clone(), rows]);
        block.iter().map(|x| x * x).sum::<f64>()
    });
    let exact = 1.0 - inside.sum::<f64>() / all;
    let blocks = Blocks::new(Dense::new(matrix).unwrap(), consecutive(&sizes)).unwrap();
    let share = |seed| {
        let settings = BlockSettings::default().with_steps(3).with_seed(seed);
        settings.run(&blocks).unwrap().outside_share().unwrap()
    };
    let found = coverage(exact, 100, share);
    assert!(found >= 0.88, "{found}");
    let shares: Vec<f64> = (0..100).map(|seed| share(seed).value).collect();
    let mean = shares.iter().sum::<f64>() / 100.0;
    let squares = shares.iter().map(|share| (share - mean).powi(2));
    let error = (squares.sum::<f64>() / 99.0 / 100.0).sqrt();
    assert!(error < 0.005, "{error}");
    assert!((mean - exact).abs() < 4.0 * error, "{mean} is not {exact}");
}

#[test]
fn a_block_diagonal_matrix_has_nothing_outside_its_blocks() {
    let values: Vec<f64> = (0..60).map(|i| (0.7 * f64::from(i)).sin()).collect();
    let parts = [1, 2].map(|seed| with_eigenvalues(&values, seed));
    let blocks = Blocks::new(block_diagonal(&parts), consecutive(&[60, 60])).unwrap();
    let found = coverage(0.0, 50, |seed| {
        let settings = BlockSettings::default().with_seed(seed);
        settings.run(&blocks).unwrap().outside_share().unwrap()
    });
    assert!(found >= 0.86, "{found}");
    let zero = Blocks::new(OnDiagonal(vec![0.0; 20]), consecutive(&[10, 10])).unwrap();
    let zero = zero.spectra().unwrap();
    assert_eq!(zero.outside_share(), None);
    assert_eq!(zero.js_distances().unwrap().values, [[0.0; 2]; 2]);
}

/// Forty different eigenvalues, each eleven times: more rows than a density of 10 probes × 40 steps has products.
fn repeated(value: impl Fn(f64) -> f64) -> Vec<f64> {
    (0..440).map(|i| value(f64::from(i / 11))).collect()
}

#[test]
fn js_distances_have_their_coverage() {
    let [a, b] = [
        repeated(|i| (0.3 * i).sin()),
        repeated(|i| 0.2 + 1.3 * (0.2 * i).sin()),
    ];
    for width in [0.05, 0.2] {
        let density = |values: &[f64]| OnDiagonal(values.to_vec()).density().unwrap();
        let exact = density(&a).js_distance(&density(&b), width).unwrap();
        assert!(exact.standard_error < 1e-3, "{exact}");
        assert_within(exact.value, 0.1, 0.9, "the exact distance");
        let [a, b] = [with_eigenvalues(&a, 1), with_eigenvalues(&b, 2)];
        let found = coverage(exact.value, 60, |seed| {
            let settings = DensitySettings::default().with_steps(40);
            let [a, b] = [
                settings.clone().with_seed(seed).run(&a),
                settings.with_seed(seed + 1_000).run(&b),
            ];
            a.unwrap().js_distance(&b.unwrap(), width).unwrap()
        });
        assert!(found >= 0.88, "{width}: {found}");
    }
}

/// Two blocks with the same eigenvalues and different eigenvectors, at the default settings of blocks, with more rows than
/// products: a semicircle, and a bulk near zero with outliers as a Hessian has.
#[test]
fn equal_spectra_have_distance_zero_within_the_error() {
    let semicircle: Vec<f64> = (0..520).map(|i| (0.006 * f64::from(i)).cos()).collect();
    let bulk = (0..520).map(|i| 0.01 * f64::from(i % 97).sin() + 10f64.powi(-(i / 3) / 10));
    for values in [semicircle, bulk.collect()] {
        let [a, b] = [with_eigenvalues(&values, 1), with_eigenvalues(&values, 2)];
        let found = coverage(0.0, 40, |seed| {
            let settings = DensitySettings::default().with_steps(50);
            let [a, b] = [
                settings.clone().with_seed(seed).run(&a).unwrap(),
                settings.with_seed(seed + 1_000).run(&b).unwrap(),
            ];
            let width = 0.1 * a.moment(2).value.sqrt();
            let distance = a.js_distance(&b, width).unwrap();
            assert!(
                distance.value < 0.2 && distance.standard_error < 0.15,
                "{distance}"
            );
            distance
        });
        assert!(found >= 0.86, "{found}");
    }
}

#[test]
fn the_distance_is_symmetric_and_independent_of_the_unit() {
    let parts = [1.0, 3.0].map(|size| {
        let values: Vec<f64> = (0..60).map(|i| size * (0.1 * f64::from(i)).cos()).collect();
        with_eigenvalues(&values, size as u64)
    });
    let matrix = block_diagonal(&parts);
    let distances = |unit: f64| {
        let scaled = Dense::new(matrix.matrix() * unit).unwrap();
        let blocks = Blocks::new(scaled, consecutive(&[60, 60])).unwrap();
        blocks.spectra().unwrap().js_distances().unwrap()
    };
    let found = distances(1.0);
    assert_eq!(found.values[0][1], found.values[1][0]);
    assert_eq!(found.mean().unwrap().value, found.values[0][1]);
    assert_eq!(
        found.mean().unwrap().standard_error,
        found.standard_errors[0][1]
    );
    assert_within(found.values[0][1], 0.3, 1.0, "the distance");
    let milli = distances(1e-3);
    assert!((milli.values[0][1] - found.values[0][1]).abs() < 1e-6);
}

/// The error of an extreme eigenvalue covers the exact one, also where the spectrum has no gap.
#[test]
fn extreme_eigenvalues_lie_in_their_brackets() {
    let n = 400;
    let shapes: [fn(f64) -> f64; 4] = [
        |x| 2.0 * x - 1.0,
        |x| (std::f64::consts::PI * x).cos(),
        |x| x.powi(4),
        |x| 1.0 / (1.0 + 50.0 * x) - 0.1 * x,
    ];
    let mut widest = 0.0f64;
    for (seed, shape) in shapes.iter().enumerate() {
        let values: Vec<f64> = (0..n).map(|i| shape(i as f64 / (n - 1) as f64)).collect();
        let matrix = with_eigenvalues(&values, seed as u64);
        let highest = values.iter().fold(f64::MIN, |m, v| m.max(*v));
        let lowest = values.iter().fold(f64::MAX, |m, v| m.min(*v));
        let blocks = Blocks::new(matrix, consecutive(&[n])).unwrap();
        for seed in 0..10 {
            let settings = BlockSettings::default().with_seed(seed);
            let block = &settings.run(&blocks).unwrap().blocks[0];
            let room = 1e-12;
            assert_within(
                highest,
                block.largest.low - room,
                block.largest.high + room,
                "largest",
            );
            let smallest = block.smallest;
            assert_within(
                lowest,
                smallest.low - room,
                smallest.high + room,
                "smallest",
            );
            let range = highest - lowest;
            widest = widest.max((block.largest.high - block.largest.low) / range);
        }
    }
    assert!(widest < 0.05, "{widest}");
}

/// Counts products, and fails after some of them.
struct Limited<'a> {
    operator: &'a Dense,
    left: Cell<usize>,
}

impl LinearOperator for Limited<'_> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let left = self.left.get().checked_sub(1);
        self.left
            .set(left.ok_or_else(|| Error::Invalid("no products are left".into()))?);
        self.operator.apply(v)
    }
}

#[test]
fn interrupted_work_resumes_with_the_same_bits() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("blocks");
    let matrix = Dense::new(random_symmetric(60, 1)).unwrap();
    let settings = BlockSettings::default().with_probes(3).with_steps(10);
    let named = consecutive(&[20, 15, 25]);
    let expected = settings
        .run(&Blocks::new(&matrix, named.clone()).unwrap())
        .unwrap();
    let saved = settings.clone().with_checkpoint(&path);
    let run = |settings: &BlockSettings, products: usize| {
        let limited = Limited {
            operator: &matrix,
            left: Cell::new(products),
        };
        let found = settings.run(&Blocks::new(&limited, named.clone()).unwrap());
        (found, limited.left.get())
    };
    // One product identifies the matrix. Three blocks take a product per row and are finished, the whole matrix takes 30.
    assert!(run(&saved, 80).0.is_err());
    let (found, left) = run(&saved, 1_000);
    assert_eq!(found.unwrap(), expected);
    assert_eq!(left, 1_000 - 1 - 30);
    let (found, left) = run(&saved, 1);
    assert_eq!(found.unwrap(), expected);
    assert_eq!(left, 0);
    for other in [
        saved.clone().with_probes(4),
        saved.clone().with_steps(9),
        saved.clone().with_seed(1),
    ] {
        let error = run(&other, 1_000).0.unwrap_err().to_string();
        assert!(error.contains("checkpoint of other work"), "{error}");
    }
    for (matrix, sizes) in [
        (random_symmetric(60, 2), [20, 15, 25]),
        (random_symmetric(60, 1), [15, 20, 25]),
    ] {
        let blocks = Blocks::new(Dense::new(matrix).unwrap(), consecutive(&sizes)).unwrap();
        let error = saved.run(&blocks).unwrap_err().to_string();
        assert!(error.contains("checkpoint of other work"), "{error}");
    }
}

/// The loss does not depend on the biases of keys. Products with their blocks are rounding.
#[test]
fn blocks_that_are_zero_up_to_rounding_say_so() {
    let architecture = Architecture::Gpt {
        layers: 2,
        heads: 2,
        width: 32,
        context: 8,
    };
    let model = architecture.build(&[8], 5, 1, &CPU).unwrap();
    let tokens = |step: u32| {
        let tokens = (0..32).map(|i| (i * i + step * i) % 5);
        let tokens = Tensor::from_iter(tokens, &CPU).unwrap();
        tokens.reshape((4, 8)).unwrap()
    };
    let data = Dataset::classification(&tokens(1), &tokens(2)).unwrap();
    let hessian = Objective::of(&model, &data, Loss::CrossEntropy)
        .unwrap()
        .hessian();
    let blocks = hessian.by_block("blocks.*.attention.*.bias").unwrap();
    let spectra = blocks.spectra().unwrap();
    let mut keys = Vec::new();
    for (i, block) in spectra.blocks.iter().enumerate() {
        let zero = |bracket: Bracket| bracket.low <= 0.0 && bracket.high >= 0.0;
        let is_key = block.name.contains("key");
        assert_eq!(
            zero(block.largest),
            is_key,
            "{}: {}",
            block.name,
            block.largest
        );
        if is_key {
            keys.push(i);
            let trace = block.trace();
            assert!(zero(block.smallest) && trace.value.abs() <= 4.0 * trace.standard_error);
        }
    }
    let distances = spectra.js_distances().unwrap();
    assert_eq!(distances.values[keys[0]][keys[1]], 0.0);
}

#[test]
fn invalid_blocks_and_settings_are_errors() {
    let diagonal: Vec<f64> = (0..9).map(f64::from).collect();
    let matrix = Dense::new(Array2::from_diag(&ndarray::arr1(&diagonal))).unwrap();
    let named = |name: &str, range: Range<usize>| (name.to_owned(), vec![range]);
    let cases = [
        (vec![], "no blocks"),
        (
            vec![named("a", 0..3), named("b", 2..4)],
            "`a` and `b` overlap in row 2",
        ),
        (
            vec![named("a", 4..6), named("b", 0..5)],
            "`b` and `a` overlap in row 4",
        ),
        (
            vec![named("a", 0..3), named("a", 3..4)],
            "two blocks are called `a`",
        ),
        (vec![named("a", 0..10)], "rows [0..10]"),
        (vec![("a".into(), vec![])], "rows []"),
    ];
    for (blocks, expected) in cases {
        let error = Blocks::new(&matrix, blocks).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let blocks = Blocks::new(&matrix, consecutive(&[4, 5])).unwrap();
    let error = blocks.get("block 2").unwrap_err().to_string();
    assert!(
        error.contains("`block 2`; the blocks are block 0, block 1"),
        "{error}"
    );
    for settings in [
        BlockSettings::default().with_probes(1),
        BlockSettings::default().with_steps(1),
    ] {
        assert!(settings.run(&blocks).is_err());
    }
    let density = |probes| {
        DensitySettings::default()
            .with_probes(probes)
            .with_steps(2)
            .run(&matrix)
            .unwrap()
    };
    for width in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = density(2)
            .js_distance(&density(2), width)
            .unwrap_err()
            .to_string();
        assert!(error.contains("the smoothing width is"), "{error}");
    }
    let error = density(2)
        .js_distance(&density(3), 0.1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("2 and 3 probes"), "{error}");

    let (_, objective) = gpt();
    let error = objective
        .hessian()
        .by_block("blocks.*.attention.keys")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`blocks.*.attention.keys`") && error.contains("tokens.weight"),
        "{error}"
    );
    let error = objective
        .hessian()
        .by_head("blocks.*.mlp")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no parameters of attention heads"),
        "{error}"
    );
    let names = [("lm.head.weight", vec![2, 3]), ("lm.head.bias", vec![2])];
    let vars = names.map(|(name, shape)| {
        let values = numbers(shape.iter().product(), 4);
        (name.to_owned(), Var::from_vec(values, shape, &CPU).unwrap())
    });
    let layers = vec![Linear::new("lm.head.weight", "lm.head.bias").into()];
    let linear = Layered::new(layers, Parameters::new(vars).unwrap());
    let inputs = Tensor::from_vec(numbers(12, 5), (4, 3), &CPU).unwrap();
    let labels = Tensor::new(&[0u32, 1, 1, 0], &CPU).unwrap();
    let data = Dataset::classification(&inputs, &labels).unwrap();
    let objective = Objective::of(&linear, &data, Loss::CrossEntropy).unwrap();
    assert!(objective.hessian().by_head("**").is_err());

    let data = two_moons(20, 0.1, 0, &CPU).unwrap();
    let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let network = model.clone();
    let own = Objective::from_fn(
        model.parameters().clone(),
        &data,
        Loss::CrossEntropy,
        move |x| network.forward(x),
    );
    let error = own
        .unwrap()
        .hessian()
        .by_head("layers.*")
        .unwrap_err()
        .to_string();
    assert!(error.contains("a model that lists its layers"), "{error}");
}
