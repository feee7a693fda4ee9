//! Embeddings: PCA against dense algebra and theory, UMAP and the autoencoder on planted shapes, quality measures against
//! closed forms and scikit-learn.

mod common;

use common::{assert_close, dot, numbers};
use faer::Mat;
use loss_landscape::embedding::{Distances, Points, Umap};
use loss_landscape::ndarray::{Array2, Axis, concatenate, s};
use loss_landscape::prelude::*;

fn random(n: usize, d: usize, seed: u64) -> Array2<f64> {
    Array2::from_shape_vec((n, d), numbers(n * d, seed)).unwrap()
}

/// `count` points with `rank` coordinates along orthonormal directions in `dim` dimensions, away from the origin.
fn planted(count: usize, dim: usize, rank: usize) -> Array2<f64> {
    let coordinates = random(count, rank, 3);
    let directions = Pca::fit(&random(rank + 1, dim, 4), rank)
        .unwrap()
        .components;
    let directions = Array2::from_shape_fn((rank, dim), |(i, j)| directions[i][j]);
    coordinates.dot(&directions) + 0.5
}

fn bits(coordinates: &Array2<f64>) -> Vec<u64> {
    coordinates.iter().map(|c| c.to_bits()).collect()
}

/// Point i has all entries equal to i, computed on demand.
struct Diagonal {
    count: usize,
    dim: usize,
}

impl Points for Diagonal {
    fn count(&self) -> usize {
        self.count
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn point(&self, i: usize) -> Result<Vec<f64>, Error> {
        Ok(vec![i as f64; self.dim])
    }
}

#[test]
fn distances_do_not_depend_on_the_blocks() {
    // The second set needs more than one block.
    for (count, dim) in [(11, 1037), (70, 1 << 20)] {
        let distances = Distances::new(&Diagonal { count, dim }).unwrap();
        for i in 0..count {
            for j in 0..count {
                let expected = (dim as f64).sqrt() * i.abs_diff(j) as f64;
                let found = distances.between(i, j).unwrap();
                assert!(
                    (found - expected).abs() < 1e-12 * expected.max(1.0),
                    "{i} {j}"
                );
            }
        }
        assert!(distances.between(0, count).is_err());
    }
}

#[test]
fn coordinates_in_the_span_preserve_distances() {
    let points = random(20, 300, 1) + 100.0;
    let distances = Distances::new(&points).unwrap();
    let coordinates = distances.coordinates().unwrap();
    assert_eq!(coordinates.dim(), (20, 19));
    let again = Distances::new(&coordinates).unwrap();
    for i in 0..20 {
        for j in 0..20 {
            let (a, b) = (
                distances.between(i, j).unwrap(),
                again.between(i, j).unwrap(),
            );
            assert!((a - b).abs() < 1e-12 * a.max(1.0), "{a} is not {b}");
        }
    }
}

#[test]
fn pca_is_the_singular_value_decomposition() {
    for (n, d) in [(12, 40), (40, 12), (15, 15), (2, 9), (9, 1)] {
        let points = random(n, d, 7 + n as u64) + 3.0;
        let mean = points.mean_axis(Axis(0)).unwrap();
        let centered = &points - &mean;
        let svd = Mat::from_fn(n, d, |i, j| centered[[i, j]]).svd().unwrap();
        let count = (n - 1).min(d);
        let pca = Pca::fit(&points, usize::MAX).unwrap();
        assert_eq!(pca.components.len(), count);
        assert_close(&pca.mean, mean.as_slice().unwrap(), 1e-14);

        let singular = svd.S().column_vector();
        let variance: Vec<f64> = (0..count)
            .map(|k| singular[k].powi(2) / (n - 1) as f64)
            .collect();
        let total: f64 = variance.iter().sum();
        assert_close(&pca.explained_variance, &variance, 1e-12);
        assert!((pca.total_variance - total).abs() < 1e-12 * total);
        assert!((pca.explained_ratio.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(pca.reconstruction_error < 1e-14);
        for (k, component) in pca.components.iter().enumerate() {
            let expected: Vec<f64> = svd.V().col(k).iter().copied().collect();
            let sign = dot(component, &expected).signum();
            let expected: Vec<f64> = expected.iter().map(|v| sign * v).collect();
            assert_close(component, &expected, 1e-10);
            let largest = component
                .iter()
                .max_by(|a, b| a.abs().total_cmp(&b.abs()))
                .unwrap();
            assert!(*largest > 0.0);
            for (l, other) in pca.components.iter().enumerate() {
                let expected = f64::from(u8::from(k == l));
                assert!((dot(component, other) - expected).abs() < 1e-13);
            }
            let along = centered.dot(&loss_landscape::ndarray::arr1(component));
            let found = pca.coordinates.column(k).to_vec();
            assert_close(&found, along.as_slice().unwrap(), 1e-12);
        }
    }
}

/// The Gram matrix squares the spreads: 10⁻⁶ of the largest becomes 10⁻¹².
#[test]
fn weak_components_are_found_and_rounding_is_ignored() {
    for (n, d) in [(30, 200), (200, 30)] {
        let turn = Pca::fit(&random(n.min(d), d, 9), 3).unwrap().components;
        let spreads = [1.0, 1e-3, 1e-6];
        let coordinates = random(n, 3, 10);
        let points = Array2::from_shape_fn((n, d), |(i, j)| {
            let terms = (0..3).map(|k| spreads[k] * coordinates[[i, k]] * turn[k][j]);
            terms.sum()
        });
        let pca = Pca::fit(&points, 10).unwrap();
        assert_eq!(pca.components.len(), 3, "{:?}", pca.explained_variance);
        for (k, component) in pca.components.iter().enumerate() {
            let inside: f64 = turn.iter().map(|t| dot(t, component).powi(2)).sum();
            assert!((inside - 1.0).abs() < 1e-12, "component {k}: {inside}");
            for other in &pca.components[..k] {
                assert!(dot(component, other).abs() < 1e-13);
            }
        }
        assert!(pca.reconstruction_error < 1e-14);
    }
}

/// Antognini and Sohl-Dickstein, "PCA of high dimensional random walks with comparison to neural network
/// training", 2018.
#[test]
fn a_random_walk_explains_six_over_pi_k_squared() {
    let (n, d) = (100, 50_000);
    let mut position = vec![0.0; d];
    let walk: Vec<Vec<f64>> = (0..n)
        .map(|step| {
            // Uniform steps replace Gaussian ones, because there are many entries.
            let steps = numbers(d, step + 1);
            position.iter_mut().zip(steps).for_each(|(p, s)| *p += s);
            position.clone()
        })
        .collect();
    let pca = Pca::fit(&walk, 4).unwrap();
    for (k, ratio) in (1..).zip(&pca.explained_ratio) {
        let expected = 6.0 / (std::f64::consts::PI * f64::from(k)).powi(2);
        // Five relative standard deviations, √(2/d), of an eigenvalue of a mean of d outer products.
        let tolerance = 5.0 * (2.0 / d as f64).sqrt();
        let found = ratio / expected - 1.0;
        assert!(
            found.abs() < tolerance,
            "component {k}: {ratio}, not {expected}"
        );
    }
}

#[test]
fn points_on_a_plane_have_two_components() {
    let points = planted(40, 50, 2);
    let pca = Pca::fit(&points, 5).unwrap();
    assert_eq!(pca.components.len(), 2);
    assert_eq!(pca.coordinates.dim(), (40, 2));
    assert!(pca.reconstruction_error < 1e-14);
    for (i, point) in points.rows().into_iter().enumerate() {
        let coordinates = pca.project(&point.to_vec()).unwrap();
        assert_close(&coordinates, &pca.coordinates.row(i).to_vec(), 1e-13);
        let back = pca.reconstruct(&coordinates).unwrap();
        assert_close(&back, &point.to_vec(), 1e-13);
    }
    let one = Pca::fit(&points, 1).unwrap();
    let residual = (1.0 - one.explained_ratio[0]).sqrt();
    assert!((one.reconstruction_error - residual).abs() < 1e-12);
    assert_eq!(one.table().unwrap().shape(), (1, 4));
    assert_eq!(pca, Pca::fit(&points, 5).unwrap());
    let rows: Vec<Vec<f64>> = points.rows().into_iter().map(|r| r.to_vec()).collect();
    assert_eq!(pca, Pca::fit(&rows, 5).unwrap());
}

#[test]
fn points_without_variance_have_no_components() {
    for points in [vec![vec![1.0, 2.0, 3.0]], vec![vec![0.1, 0.2, 0.7]; 9]] {
        let pca = Pca::fit(&points, 2).unwrap();
        assert!(pca.components.is_empty(), "{pca:?}");
        assert_eq!(pca.coordinates.dim(), (points.len(), 0));
        assert_eq!(pca.reconstruction_error, 0.0);
        assert_close(&pca.reconstruct(&[]).unwrap(), &points[0], 1e-15);
        assert_eq!(pca.table().unwrap().height(), 0);
    }
}

/// Points xᵢⱼ = (i²(j + 3) + 17ij + j³ + 5i) mod 1009 for i < 40, j < 6, and a two-dimensional embedding of sums of columns.
fn arithmetic() -> (Array2<f64>, Array2<f64>) {
    let points = Array2::from_shape_fn((40, 6), |(i, j)| {
        ((i * i * (j + 3) + 17 * i * j + j * j * j + 5 * i) % 1009) as f64
    });
    let first = points.slice(s![.., ..4]).sum_axis(Axis(1));
    let second = points.slice(s![.., 4..]).sum_axis(Axis(1));
    let picture = concatenate![
        Axis(1),
        first.insert_axis(Axis(1)),
        second.insert_axis(Axis(1))
    ];
    (points, picture)
}

/// Reference values from scikit-learn 1.9.1: sklearn.manifold.trustworthiness(points, picture, n_neighbors=k), and with the
/// arguments exchanged.
#[test]
fn trustworthiness_matches_scikit_learn() {
    let (points, picture) = arithmetic();
    let distances = Distances::new(&points).unwrap();
    for (k, trustworthiness, continuity) in [
        (1, 0.6822368421052631, 0.8164473684210527),
        (2, 0.7047945205479452, 0.8082191780821918),
        (5, 0.7246874999999999, 0.83078125),
        (10, 0.730204081632653, 0.8235714285714286),
        (19, 0.6930622009569378, 0.7450956937799043),
    ] {
        let found = distances.trustworthiness(&picture, k).unwrap();
        assert!((found - trustworthiness).abs() < 1e-12, "{k}: {found}");
        let found = distances.continuity(&picture, k).unwrap();
        assert!((found - continuity).abs() < 1e-12, "{k}: {found}");
    }
    for k in [0, 20] {
        assert!(distances.trustworthiness(&picture, k).is_err());
        assert!(distances.continuity(&picture, k).is_err());
    }
}

#[test]
fn the_identity_is_a_perfect_embedding() {
    let (points, _) = arithmetic();
    let twice = concatenate![Axis(0), points, points];
    for points in [points, twice, random(21, 3, 5), random(3, 8, 6)] {
        let distances = Distances::new(&points).unwrap();
        for k in 1..points.nrows().div_ceil(2) {
            assert_eq!(distances.trustworthiness(&points, k).unwrap(), 1.0);
            assert_eq!(distances.continuity(&points, k).unwrap(), 1.0);
        }
    }
}

/// Reference values from numpy: the norm of the points minus the means of their neighbours.
#[test]
fn the_neighbour_error_matches_numpy() {
    let (points, picture) = arithmetic();
    let distances = Distances::new(&points).unwrap();
    // The mean of all others is further from the point than the mean of all, by the factor n / (n − 1).
    for (k, expected) in [
        (1, 1.1847821403871264),
        (5, 0.8794610709741144),
        (39, 40.0 / 39.0),
    ] {
        let found = distances.neighbor_error(&picture, k).unwrap();
        assert!((found - expected).abs() < 1e-12, "{k}: {found}");
    }
    assert!(distances.neighbor_error(&picture, 40).is_err());
    assert!(distances.neighbor_error(&picture, 0).is_err());
    // Each point has a duplicate.
    let twice = concatenate![Axis(0), points, points];
    let distances = Distances::new(&twice).unwrap();
    assert_eq!(distances.neighbor_error(&twice, 1).unwrap(), 0.0);
}

/// Two balls of 25 points in ten dimensions, 40 radii apart.
fn clusters() -> Array2<f64> {
    let mut points = random(50, 10, 2);
    points
        .slice_mut(s![25.., ..])
        .mapv_inplace(|x| x + 40.0 / 10f64.sqrt());
    points
}

/// Returns the largest distance within a half of the rows, and the smallest between the halves.
fn apart(picture: &Array2<f64>) -> (f64, f64) {
    let distances = Distances::new(picture).unwrap();
    let (mut within, mut between) = (0.0f64, f64::INFINITY);
    for i in 0..50 {
        for j in 0..50 {
            let d = distances.between(i, j).unwrap();
            if (i < 25) == (j < 25) {
                within = within.max(d);
            } else {
                between = between.min(d);
            }
        }
    }
    (within, between)
}

#[test]
fn umap_keeps_clusters_apart_and_neighbours_together() {
    let points = clusters();
    let umap = Umap::default();
    let picture = umap.run(&points).unwrap();
    assert_eq!(picture.dim(), (50, 2));
    let (within, between) = apart(&picture);
    assert!(between > 4.0 * within, "{within} within, {between} between");

    // A curve in many dimensions keeps its order.
    let curve = Array2::from_shape_fn((120, 30), |(i, j)| {
        (0.05 * (i * (j + 1)) as f64 / 6.0).sin()
    });
    let picture = umap.run(&curve).unwrap();
    let found = Distances::new(&curve)
        .unwrap()
        .trustworthiness(&picture, 5)
        .unwrap();
    assert!(found > 0.99, "{found}");
}

#[test]
fn the_same_seed_gives_the_same_embedding() {
    let points = clusters();
    let short = Umap::default().with_epochs(60).with_seed(1);
    let first = short.run(&points).unwrap();
    assert_eq!(bits(&first), bits(&short.run(&points).unwrap()));
    let other = short.with_seed(2).run(&points).unwrap();
    assert_ne!(bits(&first), bits(&other));
    // One thread gives the same bits.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let on_one_thread = pool.unwrap().install(|| short.run(&points).unwrap());
    assert_eq!(bits(&first), bits(&on_one_thread));

    let short = Autoencoder::default().with_epochs(30).with_seed(1);
    let first = short.run(&points).unwrap();
    assert_eq!(
        bits(&first.coordinates),
        bits(&short.run(&points).unwrap().coordinates)
    );
    let other = short.with_seed(2).run(&points).unwrap();
    assert_ne!(bits(&first.coordinates), bits(&other.coordinates));
}

#[test]
fn a_larger_minimum_distance_spreads_the_points() {
    let points = random(80, 5, 11);
    let nearest = |min_distance: f64| {
        let umap = Umap::default().with_min_distance(min_distance);
        let picture = umap.run(&points).unwrap();
        let distances = Distances::new(&picture).unwrap();
        let mut nearest: Vec<f64> = (0..80)
            .map(|i| {
                let others = (0..80).filter(|j| *j != i);
                let all = others.map(|j| distances.between(i, j).unwrap());
                all.fold(f64::INFINITY, f64::min)
            })
            .collect();
        nearest.sort_by(f64::total_cmp);
        nearest[40]
    };
    let (tight, loose) = (nearest(0.0), nearest(0.8));
    assert!(loose > 2.0 * tight, "{tight} and {loose}");
}

#[test]
fn umap_handles_few_and_equal_points() {
    for points in [
        random(3, 4, 1),
        random(4, 4, 1),
        Array2::ones((10, 3)),
        concatenate![Axis(0), random(4, 3, 1), Array2::ones((20, 3))],
        random(6, 3, 1) * 1e100,
        random(6, 3, 1) * 1e-100,
    ] {
        let picture = Umap::default().run(&points).unwrap();
        assert_eq!(picture.dim(), (points.nrows(), 2));
        assert!(picture.iter().all(|c| c.is_finite()), "{points} {picture}");
        // Equal points repel each other.
        let distances = Distances::new(&picture).unwrap();
        for i in 1..points.nrows() {
            assert!((0..i).all(|j| distances.between(i, j).unwrap() > 1e-3));
        }
    }
    // More components than the points span.
    let umap = Umap::default().with_components(5);
    assert_eq!(umap.run(&random(4, 2, 1)).unwrap().dim(), (4, 5));
}

/// An arc of 270° in a plane of five dimensions needs one curved coordinate.
#[test]
fn an_autoencoder_fits_a_curve_that_pca_cannot() {
    let directions = Pca::fit(&random(3, 5, 4), 2).unwrap().components;
    let arc = Array2::from_shape_fn((60, 5), |(i, j)| {
        let angle = 1.5 * std::f64::consts::PI * i as f64 / 59.0;
        7.0 * (angle.cos() * directions[0][j] + angle.sin() * directions[1][j]) + 2.0
    });
    let line = Pca::fit(&arc, 1).unwrap();
    for seed in 0..3 {
        let encoded = Autoencoder::default().with_components(1).with_seed(seed);
        let encoded = encoded.run(&arc).unwrap();
        assert!(
            encoded.reconstruction_error < 0.1 * line.reconstruction_error,
            "seed {seed}: {} where PCA has {}",
            encoded.reconstruction_error,
            line.reconstruction_error
        );
        // `rms_error` has the units of the points.
        let total = (line.total_variance * 59.0 / 60.0).sqrt();
        let relative = encoded.rms_error / total;
        assert!((relative - encoded.reconstruction_error).abs() < 1e-12 * relative);
    }
}

/// The autoencoder depends only on coordinates in the points' span.
#[test]
fn an_autoencoder_does_not_depend_on_the_ambient_dimension() {
    let few = random(12, 11, 1);
    let directions = Pca::fit(&random(12, 3000, 2), 11).unwrap().components;
    let turn = Array2::from_shape_fn((11, 3000), |(i, j)| directions[i][j]);
    let many = few.dot(&turn) + 1.0;
    let coordinates = Distances::new(&few).unwrap().coordinates().unwrap();
    let short = Autoencoder::default().with_epochs(50);
    let found = short.run(&many).unwrap();
    // The sign of each axis is arbitrary.
    let other = Distances::new(&many).unwrap().coordinates().unwrap();
    for (a, b) in coordinates.columns().into_iter().zip(other.columns()) {
        let sign = a.dot(&b).signum();
        assert_close(&(&b * sign).to_vec(), &a.to_vec(), 1e-10);
    }
    assert_eq!(found.coordinates, short.run(&other).unwrap().coordinates);
}

#[test]
fn a_comparison_measures_all_methods() {
    let points = planted(40, 300, 2);
    let comparison = Comparison::new(&points, 0).unwrap();
    let names: Vec<&str> = comparison
        .embeddings
        .iter()
        .map(|e| e.name.as_str())
        .collect();
    assert_eq!(names, ["PCA", "UMAP", "autoencoder"]);
    assert_eq!(comparison.neighbors, 5);
    assert_eq!(comparison.table().unwrap().shape(), (3, 8));
    let distances = Distances::new(&points).unwrap();
    for embedding in &comparison.embeddings {
        assert_eq!(embedding.coordinates.dim(), (40, 2));
        let direct = distances
            .trustworthiness(&embedding.coordinates, 5)
            .unwrap();
        assert_eq!(embedding.trustworthiness, direct);
        let direct = distances.neighbor_error(&embedding.coordinates, 5).unwrap();
        assert!((embedding.neighbor_error - direct).abs() < 1e-9);
        assert!(
            embedding.trustworthiness > 0.9,
            "{}",
            comparison.table().unwrap()
        );
    }
    let pca = &comparison.embeddings[0];
    assert_eq!(pca.trustworthiness, 1.0);
    assert!(pca.reconstruction_error.unwrap() < 1e-7);
    assert!(pca.held_out_error.unwrap().value < 1e-7);
    assert_eq!(comparison.embeddings[1].reconstruction_error, None);
    assert!(comparison.embeddings[2].reconstruction_error.unwrap() < 0.2);

    let again = Comparison::new(&points, 0).unwrap();
    for (a, b) in comparison.embeddings.iter().zip(&again.embeddings) {
        assert_eq!(bits(&a.coordinates), bits(&b.coordinates));
        assert_eq!(a.held_out_error, b.held_out_error);
    }
    // The smallest set that can be compared, and points on a line.
    for points in [random(3, 9, 1), planted(12, 20, 1)] {
        let comparison = Comparison::new(&points, 1).unwrap();
        for embedding in comparison.embeddings {
            assert_eq!(embedding.coordinates.dim(), (points.nrows(), 2));
        }
    }
}

#[test]
fn invalid_points_are_errors() {
    let all = |points: Vec<Vec<f64>>| -> Vec<String> {
        [
            Pca::fit(&points, 2).map(|_| ()),
            Distances::new(&points).map(|_| ()),
            Umap::default().run(&points).map(|_| ()),
            Autoencoder::default().run(&points).map(|_| ()),
            Comparison::new(&points, 0).map(|_| ()),
        ]
        .into_iter()
        .map(|result| result.unwrap_err().to_string())
        .collect()
    };
    for (point, problem) in [
        (vec![1.0], "1 entry"),
        (vec![1.0, 2.0, 3.0], "3 entries"),
        (vec![f64::NAN, 1.0], "not finite"),
        (vec![1.0, f64::INFINITY], "not finite"),
        (vec![1e200, -1e200], "overflow"),
    ] {
        for tall in [false, true] {
            let mut points = vec![vec![0.5, 0.25]; if tall { 8 } else { 3 }];
            points[2] = point.clone();
            for message in all(points) {
                assert!(message.contains(problem), "{message}");
            }
        }
    }
    // More entries than points.
    for message in all(vec![vec![1e200; 9], vec![-1e200; 9], vec![0.0; 9]]) {
        assert!(message.contains("overflow"), "{message}");
    }
    all(Vec::new());
    all(vec![Vec::new(); 4]);

    for few in [random(1, 4, 0), random(2, 4, 0)] {
        assert!(Umap::default().run(&few).is_err());
        assert!(Comparison::new(&few, 0).is_err());
    }
    let same = Array2::ones((7, 3));
    assert!(Autoencoder::default().run(&same).is_err());
    assert!(Comparison::new(&same, 0).is_err());
    let distances = Distances::new(&same).unwrap();
    assert!(distances.neighbor_error(&same, 2).is_err());
    for picture in [
        random(6, 2, 0),
        Array2::zeros((7, 0)),
        Array2::from_elem((7, 2), f64::NAN),
    ] {
        assert!(distances.trustworthiness(&picture, 2).is_err());
    }
    // The table of all pairs would be too large; no point is read.
    let (count, dim) = (Distances::MAX_COUNT + 1, usize::MAX);
    let message = Distances::new(&Diagonal { count, dim })
        .unwrap_err()
        .to_string();
    assert!(message.contains("one point in 2"), "{message}");
}

#[test]
fn invalid_settings_are_errors() {
    let points = random(10, 3, 0);
    assert!(Pca::fit(&points, 0).is_err());
    let pca = Pca::fit(&points, 2).unwrap();
    assert!(pca.project(&[1.0, 2.0]).is_err());
    assert!(pca.project(&[1.0, 2.0, f64::NAN]).is_err());
    assert!(pca.reconstruct(&[1.0]).is_err());
    assert!(pca.reconstruct(&[1.0, f64::INFINITY]).is_err());

    let umap = Umap::default();
    for umap in [
        umap.with_neighbors(1),
        umap.with_components(0),
        umap.with_epochs(0),
        umap.with_min_distance(-0.1),
        umap.with_min_distance(1.1),
        umap.with_min_distance(f64::NAN),
    ] {
        assert!(umap.run(&points).is_err(), "{umap:?}");
    }
    let autoencoder = Autoencoder::default();
    for autoencoder in [
        autoencoder.with_components(0),
        autoencoder.with_hidden(0),
        autoencoder.with_epochs(0),
        autoencoder.with_learning_rate(0.0),
        autoencoder.with_learning_rate(f64::NAN),
        autoencoder.with_learning_rate(1e200),
    ] {
        assert!(autoencoder.run(&points).is_err(), "{autoencoder:?}");
    }
}

#[test]
fn a_figure_connects_its_points_in_order() {
    let picture = random(5, 2, 1);
    let json = figure::embedding(&picture, "five points").json();
    let traces = json["data"].as_array().unwrap();
    assert_eq!(traces[0]["x"].as_array().unwrap().len(), 5);
    assert_eq!(traces[1]["marker"]["color"].as_array().unwrap().len(), 5);
    assert_eq!(traces[2]["x"][0], traces[1]["x"][0]);
    assert_eq!(traces[3]["y"][0], traces[1]["y"][4]);
    // Embeddings with one column, and without points.
    let line = figure::embedding(&random(5, 1, 1), "line").json();
    assert_eq!(line["data"][1]["y"][3], 0.0);
    figure::embedding(&Array2::zeros((0, 2)), "nothing").json();
    let shown = Comparison::new(&random(9, 3, 1), 0).bundle().unwrap();
    assert!(shown.get("text/html").unwrap().contains("trustworthiness"));
    let shown = Pca::fit(&picture, 2).bundle().unwrap();
    assert!(shown.get("text/html").unwrap().contains("cumulative"));
}

/// Isotropic noise has no structure: on unseen points both methods are about as good as the mean, and the autoencoder is
/// worse than PCA, although it is better on the points it was fitted to.
#[test]
fn fitting_noise_does_not_help_on_unseen_points() {
    for seed in 0..2 {
        let noise = random(50, 30, 20 + seed);
        let found = Comparison::new(&noise, seed).unwrap().embeddings;
        let [pca, encoder] = [&found[0], &found[2]];
        let in_sample = [pca, encoder].map(|e| e.reconstruction_error.unwrap());
        assert!(in_sample[1] < 0.9 * in_sample[0], "{in_sample:?}");
        let [pca, encoder] = [pca, encoder].map(|e| e.held_out_error.unwrap());
        assert!((0.95..1.05).contains(&pca.value), "{pca}");
        assert!(
            encoder.value > pca.value + 2.0 * encoder.standard_error,
            "{encoder} and {pca}"
        );
        assert_eq!(encoder.samples, 5);
        assert_eq!(found[1].held_out_error, None);
    }
}

/// On a curved surface the autoencoder is better than PCA, also on unseen points.
#[test]
fn fitting_a_curved_surface_helps_on_unseen_points() {
    // A spherical cap of 120° in three of eight dimensions.
    let coordinates = random(80, 2, 31);
    let cap = Array2::from_shape_fn((80, 8), |(i, j)| {
        let [x, y] = [0, 1].map(|k| coordinates[[i, k]]);
        match j {
            0 => (1.5 * x).sin(),
            1 => (1.5 * y).sin(),
            2 => 2.0 * (1.5 * x).cos() * (1.5 * y).cos(),
            _ => 0.0,
        }
    });
    let found = Comparison::new(&cap, 0).unwrap().embeddings;
    let [pca, encoder] = [&found[0], &found[2]].map(|e| e.held_out_error.unwrap());
    assert!(encoder.value < 0.7 * pca.value, "{encoder} and {pca}");
}

/// The held-out error of PCA with two components, computed independently.
#[test]
fn the_held_out_error_is_the_mean_over_five_fits() {
    let points = random(13, 5, 9);
    let found = Comparison::new(&points, 0).unwrap().embeddings[0].held_out_error;
    let errors = (0..5).map(|fold| {
        let (mut seen, mut unseen) = (Vec::new(), Vec::new());
        for (i, row) in points.rows().into_iter().enumerate() {
            match i % 5 == fold {
                true => unseen.push(row.to_vec()),
                false => seen.push(row.to_vec()),
            }
        }
        let pca = Pca::fit(&seen, 2).unwrap();
        let (mut residual, mut total) = (0.0, 0.0);
        for point in &unseen {
            let offset: Vec<f64> = point.iter().zip(&pca.mean).map(|(x, m)| x - m).collect();
            let inside: f64 = pca.components.iter().map(|c| dot(c, &offset).powi(2)).sum();
            total += dot(&offset, &offset);
            residual += dot(&offset, &offset) - inside;
        }
        (residual / total).sqrt()
    });
    let errors: Vec<f64> = errors.collect();
    let mean = errors.iter().sum::<f64>() / 5.0;
    let squares: f64 = errors.iter().map(|e| (e - mean).powi(2)).sum();
    let found = found.unwrap();
    assert!((found.value - mean).abs() < 1e-12);
    assert!((found.standard_error - (squares / 20.0).sqrt()).abs() < 1e-12);

    // With four equal points out of five, one of the fits has no variance.
    let mut equal = Array2::ones((5, 3));
    equal[[2, 0]] = 4.0;
    for embedding in Comparison::new(&equal, 0).unwrap().embeddings {
        assert_eq!(embedding.held_out_error, None, "{}", embedding.name);
    }
}
