use super::super::checks::{Tile, check, close, evaluate};
use super::{BatchNorm, GroupNorm};

/// γ at 1.. of θ and β after it, with numbers of other layers around.
fn group_norm(image: [usize; 3], groups: usize, epsilon: f64) -> GroupNorm {
    let c = image[0];
    GroupNorm::new(image, groups, epsilon, 1..c + 1, c + 1..2 * c + 1).unwrap()
}

/// γ and β at the same places, and so many statistics after the numbers around.
fn batch_norm(
    image: [usize; 3],
    [means, variances]: [usize; 2],
    epsilon: f64,
) -> Option<BatchNorm> {
    let (c, start) = (image[0], 2 * image[0] + 2);
    let statistics = [
        start..start + means,
        start + means..start + means + variances,
    ];
    BatchNorm::new(
        image,
        [1..c + 1, c + 1..2 * c + 1],
        statistics,
        [epsilon, 0.1],
    )
}

fn tile([c, h, w]: [usize; 3], samples: usize, k: usize) -> Tile {
    Tile::random([c * h * w, c * h * w, 2 * c + 2], samples, k, 5)
}

/// Each number less the mean of its group, over the deviation of its group, then with the scale and shift
/// of its channel.
fn by_definition(tile: &Tile, [c, h, w]: [usize; 3], groups: usize, epsilon: f64) -> Vec<f64> {
    let size = c / groups * h * w;
    let normal = tile.x.chunks(size).flat_map(|x| {
        let n = size as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        x.iter()
            .map(move |x| (x - mean) / (variance + epsilon).sqrt())
    });
    let scaled = normal.enumerate().map(|(i, x)| {
        let channel = i / (h * w) % c;
        tile.theta[1 + channel] * x + tile.theta[1 + c + channel]
    });
    scaled.collect()
}

#[test]
fn group_normalisation_is_its_formula_and_derivatives_are_its_own() {
    let shapes = [
        ([6, 3, 5], 2, 3, 2),
        ([4, 2, 2], 4, 2, 1),
        ([5, 4, 3], 1, 1, 3),
        ([1, 5, 7], 1, 2, 2),
        // Vectors: layer normalisation.
        ([7, 1, 1], 1, 3, 2),
        ([8, 1, 1], 2, 1, 2),
        // Longer than the vector lanes, and than a block of their sums.
        ([3, 33, 35], 1, 1, 1),
        ([37, 1, 1], 1, 2, 1),
        ([18, 2, 3], 1, 1, 2),
        ([2, 6, 3], 2, 2, 2),
    ];
    for (image, groups, samples, k) in shapes {
        for epsilon in [1e-5, 0.3] {
            let (layer, tile) = (group_norm(image, groups, epsilon), tile(image, samples, k));
            let y = evaluate::<f64>(&layer, &tile).y;
            close(
                "y",
                &y,
                &by_definition(&tile, image, groups, epsilon),
                1e-13,
            );
            check(&layer, &tile, 1e-9);
            check(&layer, &Tile { rx: None, ..tile }, 1e-9);
        }
    }
}

#[test]
fn a_constant_group_has_derivatives_too() {
    let image = [4, 2, 3];
    let mut tile = tile(image, 2, 2);
    tile.x.fill(0.7);
    check(&group_norm(image, 2, 0.5), &tile, 1e-9);
    let found = evaluate::<f64>(&group_norm(image, 2, 1e-5), &tile);
    close("y", &found.y, &by_definition(&tile, image, 2, 1e-5), 1e-10);
    assert!(found.rdx.iter().flatten().all(|v| v.is_finite()));
    // A single number is its own mean.
    let (one, image) = (group_norm([3, 1, 1], 3, 1e-5), [3, 1, 1]);
    let tile = self::tile(image, 2, 2);
    let found = evaluate::<f64>(&one, &tile);
    close("y", &found.y, &by_definition(&tile, image, 3, 1e-5), 1e-13);
    close("dx", &found.dx, &[0.0; 6], 1e-12);
    check(&group_norm(image, 3, 0.5), &tile, 1e-9);
}

#[test]
fn a_mean_far_from_zero_costs_no_more_than_its_rounding() {
    let image = [4, 8, 8];
    let mut tile = tile(image, 2, 1);
    tile.x
        .iter_mut()
        .for_each(|x| *x = f64::from((*x + 1000.0) as f32));
    let layer = group_norm(image, 2, 1e-5);
    let (single, double) = (
        evaluate::<f32>(&layer, &tile),
        evaluate::<f64>(&layer, &tile),
    );
    // Half a unit in the last place of 1000 is 3·10⁻⁵.
    close("y", &single.y, &double.y, 4e-5);
    close("dx", &single.dx, &double.dx, 1e-4);
    close("rdx", &single.rdx[0], &double.rdx[0], 2e-4);
}

#[test]
fn a_large_constant_is_its_own_mean_in_single_precision() {
    let image = [3, 33, 35];
    let mut tile = tile(image, 1, 1);
    tile.x.fill(f64::from(12_345.678_f32));
    let layer = group_norm(image, 1, 1e-5);
    let (single, double) = (
        evaluate::<f32>(&layer, &tile),
        evaluate::<f64>(&layer, &tile),
    );
    close("y", &single.y, &double.y, 1e-6);
    close("dx", &single.dx, &double.dx, 1e-5);
}

#[test]
fn frozen_batch_normalisation_is_its_formula_and_derivatives_are_its_own() {
    for (image, samples, k) in [([3, 4, 5], 3, 2), ([1, 1, 1], 1, 1), ([5, 1, 1], 2, 3)] {
        let [c, h, w] = image;
        let mut tile = tile(image, samples, k);
        let means: Vec<f64> = (0..c).map(|i| 0.3 * i as f64 - 0.5).collect();
        let variances: Vec<f64> = (0..c).map(|i| i as f64).collect();
        tile.theta.extend(means.iter().chain(&variances));
        for v in &mut tile.directions {
            v.resize(tile.theta.len(), 0.0);
        }
        let layer = batch_norm(image, [c, c], 0.1).unwrap();
        let expected = tile.x.iter().enumerate().map(|(i, x)| {
            let channel = i / (h * w) % c;
            let normal = (x - means[channel]) / (variances[channel] + 0.1).sqrt();
            tile.theta[1 + channel] * normal + tile.theta[1 + c + channel]
        });
        let expected: Vec<f64> = expected.collect();
        close("y", &evaluate::<f64>(&layer, &tile).y, &expected, 1e-13);
        check(&layer, &tile, 1e-10);
        check(&layer, &Tile { rx: None, ..tile }, 1e-10);
    }
}

#[test]
fn shapes_that_do_not_fit_are_none() {
    let group = |image, groups, epsilon, weight, bias| {
        GroupNorm::new(image, groups, epsilon, weight, bias).is_none()
    };
    assert!(group([6, 2, 2], 4, 1e-5, 0..6, 6..12));
    assert!(group([6, 2, 2], 0, 1e-5, 0..6, 6..12));
    assert!(group([6, 0, 2], 2, 1e-5, 0..6, 6..12));
    assert!(group([0, 2, 2], 2, 1e-5, 0..0, 0..0));
    assert!(group([6, 2, 2], 2, 1e-5, 0..5, 6..12));
    assert!(group([6, 2, 2], 2, 1e-5, 0..6, 6..13));
    assert!(group([6, 2, 2], 2, -1e-5, 0..6, 6..12));
    assert!(group([6, 2, 2], 2, f64::NAN, 0..6, 6..12));
    assert!(!group([6, 2, 2], 2, 0.0, 0..6, 6..12));
    let batch = |statistics, epsilon| batch_norm([2, 3, 3], statistics, epsilon).is_none();
    assert!(batch([1, 2], 0.0));
    assert!(batch([2, 3], 0.0));
    assert!(batch([2, 2], -0.1));
    assert!(batch([2, 2], f64::NAN));
    assert!(!batch([2, 2], 0.0));
}
