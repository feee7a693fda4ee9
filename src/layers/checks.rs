//! Checks for every kind of layer: compares its derivatives with differences of the function or derivative one order
//! below.

use super::rules::{Layouts, Mode, Packed, Primal, Rules, Tangent, Window, Write};
use crate::kernels::Scalar;
use crate::vector::{axpy, dot, gaussian};

/// A tile at a point, and `k` directions in which the point moves.
#[derive(Clone)]
pub(crate) struct Tile {
    pub(crate) samples: usize,
    pub(crate) theta: Vec<f64>,
    pub(crate) x: Vec<f64>,
    pub(crate) dy: Vec<f64>,
    pub(crate) directions: Vec<Vec<f64>>,
    pub(crate) rx: Option<Vec<f64>>,
    pub(crate) rdy: Vec<f64>,
}

/// Results of a layer for a tile; the gradients are θ-space vectors.
#[derive(Debug, PartialEq)]
pub(crate) struct Derivatives {
    pub(crate) y: Vec<f64>,
    pub(crate) dx: Vec<f64>,
    pub(crate) gradient: Vec<f64>,
    pub(crate) ry: Vec<f64>,
    /// For the Hessian and for Gauss–Newton products.
    pub(crate) rdx: [Vec<f64>; 2],
    pub(crate) rgradient: [Vec<Vec<f64>>; 2],
}

impl Tile {
    /// Normal random values, with `inputs` and `outputs` per row and `parameters` in θ.
    pub(crate) fn random(
        [inputs, outputs, parameters]: [usize; 3],
        samples: usize,
        k: usize,
        seed: u64,
    ) -> Self {
        let draw = |n: usize, i: u64| gaussian(n, 100 * seed + i);
        Self {
            samples,
            theta: draw(parameters, 0),
            x: draw(samples * inputs, 1),
            dy: draw(samples * outputs, 2),
            directions: (0..k).map(|j| draw(parameters, 10 + j as u64)).collect(),
            rx: Some(draw(samples * k * inputs, 3)),
            rdy: draw(samples * k * outputs, 4),
        }
    }

    /// Row `j` of `k` of each sample.
    fn rows(&self, tangents: &[f64], j: usize) -> Vec<f64> {
        let width = tangents.len() / (self.samples * self.directions.len());
        let rows = tangents.chunks_exact(width).skip(j);
        rows.step_by(self.directions.len())
            .flatten()
            .copied()
            .collect()
    }

    /// The point `t` along direction `j`.
    fn moved(&self, j: usize, t: f64) -> Self {
        let mut moved = self.clone();
        axpy(t, &self.directions[j], &mut moved.theta);
        if let Some(rx) = &self.rx {
            axpy(t, &self.rows(rx, j), &mut moved.x);
        }
        axpy(t, &self.rows(&self.rdy, j), &mut moved.dy);
        moved
    }
}

/// Everything that a layer computes, from only the values that it caches.
pub(crate) fn evaluate<T: Scalar>(rules: &dyn Rules<T>, tile: &Tile) -> Derivatives {
    let cast = |v: &[f64]| -> Vec<T> { v.iter().map(|v| T::from_f64(*v)).collect() };
    let back = |v: &[T]| -> Vec<f64> { v.iter().map(|v| v.f64()).collect() };
    let k = tile.directions.len();
    let nan = T::from_f64(f64::NAN);
    let (x, dy, rdy) = (cast(&tile.x), cast(&tile.dy), cast(&tile.rdy));
    let rx = tile.rx.as_deref().map(cast);
    let rx = rx.as_deref();
    let directions: Vec<Vec<T>> = tile.directions.iter().map(|v| cast(v)).collect();
    let directions: Vec<&[T]> = directions.iter().map(Vec::as_slice).collect();
    let theta = Packed::new(rules, &[&cast(&tile.theta)], Layouts::Both);
    let directions = Packed::of_directions(rules, &directions, Layouts::Both, None);

    let mut y = vec![nan; tile.samples * rules.output_len()];
    let mut cached = vec![nan; tile.samples * rules.cached_len()];
    rules.forward(&theta, &x, &mut y, &mut cached);
    let mut without_cache = vec![nan; y.len()];
    rules.forward(&theta, &x, &mut without_cache, &mut []);
    assert!(y == without_cache, "caching changes the output");

    let primal = Primal {
        theta: &theta,
        samples: tile.samples,
        x: if rules.needs_input() { &x } else { &[] },
        sparse: None,
        y: if rules.needs_output() { &y } else { &[] },
        cached: &cached,
        dy: &dy,
    };
    let mut dx = vec![nan; x.len()];
    rules.backward(&primal, &mut dx);
    let mut ry = vec![nan; k * y.len()];
    let mut tangent = Tangent {
        directions: &directions,
        rx,
        rdy: &[],
    };
    rules.forward_tangent(&primal, &tangent, &mut ry);
    tangent.rdy = &rdy;
    let gradients = |k: usize, compute: &dyn Fn(&mut [T], Write)| {
        // Overwrites the previous values, then adds to them.
        let mut gradient = vec![nan; k * rules.num_params()];
        compute(&mut gradient, Write::Replace);
        compute(&mut gradient, Write::Add);
        let mut vectors = vec![vec![0.0; tile.theta.len()]; k];
        // In windows that split parameters and rows.
        for mut window in Window::split(&mut vectors, 5) {
            rules.add_gradient(&gradient, &mut window);
        }
        vectors.iter_mut().for_each(|vector| rules.order(vector));
        vectors.iter_mut().flatten().for_each(|v| *v *= 0.5);
        vectors
    };
    let gradient = gradients(1, &|g, write| rules.gradient(&primal, g, write)).remove(0);
    let [hessian, gauss_newton] = [Mode::Hessian, Mode::GaussNewton].map(|mode| {
        let mut rdx = vec![nan; k * x.len()];
        rules.backward_tangent(&primal, &tangent, &mut rdx, mode);
        let rgradient = gradients(k, &|g, write| {
            rules.gradient_tangent(&primal, &tangent, g, write, mode);
        });
        (back(&rdx), rgradient)
    });
    Derivatives {
        y: back(&y),
        dx: back(&dx),
        gradient,
        ry: back(&ry),
        rdx: [hessian.0, gauss_newton.0],
        rgradient: [hessian.1, gauss_newton.1],
    }
}

/// Panics unless every derivative at the tile matches differences to `tolerance`, and the results in `f32` are within
/// 10⁻⁵.
pub(crate) fn check<R: Rules<f64> + Rules<f32>>(rules: &R, tile: &Tile, tolerance: f64) {
    let found = evaluate::<f64>(rules, tile);
    let k = tile.directions.len();

    for j in 0..k {
        // Richardson extrapolation of central differences.
        let difference = |select: &dyn Fn(Derivatives) -> Vec<f64>| -> Vec<f64> {
            let central = |h: f64| {
                let [ahead, behind] =
                    [h, -h].map(|h| select(evaluate::<f64>(rules, &tile.moved(j, h))));
                let pairs = ahead.into_iter().zip(behind);
                pairs.map(move |(a, b)| (a - b) / (2.0 * h))
            };
            let steps = central(1e-3).zip(central(5e-4));
            steps.map(|(h, half)| (4.0 * half - h) / 3.0).collect()
        };
        let [ry, rdx] = [&found.ry, &found.rdx[0]].map(|rows| tile.rows(rows, j));
        close("ry", &ry, &difference(&|at| at.y), tolerance);
        close("rdx", &rdx, &difference(&|at| at.dx), tolerance);
        close(
            "rdθ",
            &found.rgradient[0][j],
            &difference(&|at| at.gradient),
            tolerance,
        );

        // ⟨dy, ry⟩ = ⟨dx, rx⟩ + ⟨dθ, v⟩
        let through_x = tile
            .rx
            .as_ref()
            .map_or(0.0, |rx| dot(&found.dx, &tile.rows(rx, j)));
        let sides = [
            dot(&tile.dy, &ry),
            through_x + dot(&found.gradient, &tile.directions[j]),
        ];
        close(
            "⟨dy, ry⟩",
            &sides[..1],
            &sides[1..],
            1e-12 * tile.dy.len() as f64,
        );

        // Gauss–Newton products are transposed Jacobians of rdy.
        let pulled = Tile {
            dy: tile.rows(&tile.rdy, j),
            ..tile.clone()
        };
        let pulled = evaluate::<f64>(rules, &pulled);
        close(
            "Gauss–Newton rdx",
            &tile.rows(&found.rdx[1], j),
            &pulled.dx,
            1e-13,
        );
        close(
            "Gauss–Newton rdθ",
            &found.rgradient[1][j],
            &pulled.gradient,
            1e-13,
        );
    }

    let single = evaluate::<f32>(rules, tile);
    close("y in f32", &single.y, &found.y, 1e-5);
    close("dx in f32", &single.dx, &found.dx, 1e-5);
    close("dθ in f32", &single.gradient, &found.gradient, 1e-5);
    close("ry in f32", &single.ry, &found.ry, 1e-5);
    for i in 0..2 {
        close("rdx in f32", &single.rdx[i], &found.rdx[i], 1e-5);
        let [single, double] = [&single, &found].map(|at| at.rgradient[i].concat());
        close("rdθ in f32", &single, &double, 1e-5);
    }

    // A direction that does not change the layer's parameters.
    let zeros = vec![vec![0.0; tile.theta.len()]; k];
    let still = evaluate::<f64>(
        rules,
        &Tile {
            directions: zeros,
            ..tile.clone()
        },
    );
    let through_x = tile
        .rx
        .clone()
        .unwrap_or_else(|| vec![0.0; k * tile.x.len()]);
    for j in 0..k {
        let sides = [
            dot(&tile.dy, &tile.rows(&still.ry, j)),
            dot(&found.dx, &tile.rows(&through_x, j)),
        ];
        let tolerance = 1e-12 * tile.dy.len() as f64;
        close("⟨dy, ry⟩ along x", &sides[..1], &sides[1..], tolerance);
    }

    if tile.rx.is_some() {
        let still = |rx| evaluate::<f64>(rules, &Tile { rx, ..tile.clone() });
        let (none, zero) = (still(None), still(Some(vec![0.0; k * tile.x.len()])));
        close("ry without rx", &none.ry, &zero.ry, 1e-13);
        for i in 0..2 {
            close("rdx without rx", &none.rdx[i], &zero.rdx[i], 1e-13);
            let [none, zero] = [&none, &zero].map(|at| at.rgradient[i].concat());
            close("rdθ without rx", &none, &zero, 1e-13);
        }
    }
}

/// Panics unless both agree to `tolerance` times the largest number, or times 1 if that is less.
pub(crate) fn close(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let scale = expected.iter().fold(1.0, |max: f64, e| max.max(e.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let error = (f - e).abs();
        assert!(
            error <= tolerance * scale,
            "{name}: number {i} is {f:e}, not {e:e}"
        );
    }
}
