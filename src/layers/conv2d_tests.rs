//! Compares convolutions and their derivatives with the definition.

use super::*;
use crate::layers::rules::{Layouts, Window};

fn numbers<T: Scalar>(count: usize, seed: usize) -> Vec<T> {
    let number = |i: usize| ((i * 7919 + seed * 104_729) % 1013) as f64 / 506.0 - 1.0;
    (0..count).map(|i| T::from_f64(number(i + 1))).collect()
}

/// Calls `f` with the indices in y, x and W of each product in the definition of a convolution, for one sample.
fn each_product(conv: &Conv2dRules, mut f: impl FnMut(usize, usize, usize)) {
    let ConvolutionShape {
        input: [inputs, height, width],
        kernel: [down, right],
        stride,
        padding,
        dilation,
        groups,
        ..
    } = conv.convolution.shape;
    let [channels, rows, columns] = conv.convolution.output();
    let inputs = inputs / groups;
    each_index([channels, rows, columns], |channel, row, column| {
        let group = channel / (channels / groups);
        each_index([inputs, down, right], |input, u, v| {
            let y = (row * stride + u * dilation).checked_sub(padding);
            let x = (column * stride + v * dilation).checked_sub(padding);
            if let (Some(y), Some(x)) = (y.filter(|y| *y < height), x.filter(|x| *x < width)) {
                f(
                    (channel * rows + row) * columns + column,
                    ((group * inputs + input) * height + y) * width + x,
                    ((channel * inputs + input) * down + u) * right + v,
                );
            }
        });
    });
}

fn each_index([a, b, c]: [usize; 3], mut f: impl FnMut(usize, usize, usize)) {
    for i in 0..a {
        for j in 0..b {
            for k in 0..c {
                f(i, j, k);
            }
        }
    }
}

/// y without b.
fn product(conv: &Conv2dRules, x: &[f64], w: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; conv.convolution.width(Side::Output)];
    each_product(conv, |i, j, k| y[i] += x[j] * w[k]);
    y
}

fn input_product(conv: &Conv2dRules, dy: &[f64], w: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; conv.convolution.width(Side::Input)];
    each_product(conv, |i, j, k| dx[j] += dy[i] * w[k]);
    dx
}

/// dW, followed by db.
fn weight_product(conv: &Conv2dRules, dy: &[f64], x: &[f64]) -> Vec<f64> {
    let mut dw = vec![0.0; conv.weight.len()];
    each_product(conv, |i, j, k| dw[k] += dy[i] * x[j]);
    if conv.bias.is_some() {
        let channels = dy.chunks(dy.len() / conv.convolution.shape.channels);
        dw.extend(channels.map(|dy| dy.iter().sum::<f64>()));
    }
    dw
}

fn sum(a: Vec<f64>, b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn assert_close<T: Scalar>(found: &[T], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1.0_f64, |m, e| m.max(e.abs()));
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f.f64() - e).abs() <= tolerance * largest,
            "{what}: {f:?} is not {e}"
        );
    }
}

/// Compares every operation with the definition, for `samples` samples and `k` directions. Expected tangents follow from the
/// bilinearity of y in x and W.
fn check<T: Scalar>(conv: &Conv2dRules, samples: usize, k: usize, tolerance: f64) {
    let layer: &dyn Rules<T> = conv;
    let what = format!(
        "{:?}, {samples} samples, {k} directions",
        conv.convolution.shape
    );
    let [inputs, outputs] = [Side::Input, Side::Output].map(|side| conv.convolution.width(side));
    assert_eq!(layer.output_len(), outputs);
    // Other values precede the layer's part of θ.
    let length = conv.weight.start + layer.num_params();
    let theta: Vec<T> = numbers(length, 1);
    let directions: Vec<Vec<T>> = (0..k).map(|j| numbers(length, 2 + j)).collect();
    let [x, dy]: [Vec<T>; 2] = [(inputs, 11), (outputs, 12)].map(|(n, s)| numbers(samples * n, s));
    let [rx, rdy]: [Vec<T>; 2] =
        [(inputs, 13), (outputs, 14)].map(|(n, s)| numbers(samples * k * n, s));
    let wide = |v: &[T]| -> Vec<f64> { v.iter().map(|v| v.f64()).collect() };
    let part = |v: &[T], row: usize, width: usize| wide(&v[row * width..][..width]);
    let weight = |v: &[T]| wide(&v[conv.weight.clone()]);
    let bias = |v: &[T]| -> Vec<f64> {
        let each = outputs / conv.convolution.shape.channels;
        match &conv.bias {
            Some(bias) => (0..outputs)
                .map(|i| v[bias.start + i / each].f64())
                .collect(),
            None => vec![0.0; outputs],
        }
    };
    let vectors: Vec<&[T]> = directions.iter().map(Vec::as_slice).collect();
    let packed = Packed::new(layer, &[&theta], Layouts::Both);
    let directions_packed = Packed::of_directions(layer, &vectors, Layouts::Both, None);
    let primal = Primal {
        theta: &packed,
        samples,
        x: &x,
        sparse: None,
        y: &[],
        cached: &[],
        dy: &dy,
    };
    // Results do not depend on the previous values of the buffers.
    let filled = |n: usize| vec![T::from_f64(7.0); n];

    let (mut y, mut dx) = (filled(samples * outputs), filled(samples * inputs));
    layer.forward(&packed, &x, &mut y, &mut []);
    layer.backward(&primal, &mut dx);
    let mut gradient = vec![0.0; layer.num_params()];
    for s in 0..samples {
        let (x, dy) = (part(&x, s, inputs), part(&dy, s, outputs));
        let expected = sum(product(conv, &x, &weight(&theta)), &bias(&theta));
        assert_close(&y[s * outputs..][..outputs], &expected, tolerance, &what);
        let expected = input_product(conv, &dy, &weight(&theta));
        assert_close(&dx[s * inputs..][..inputs], &expected, tolerance, &what);
        gradient = sum(gradient, &weight_product(conv, &dy, &x));
    }
    let mut found = filled(layer.num_params());
    layer.gradient(&primal, &mut found, Write::Replace);
    assert_close(&found, &gradient, tolerance, &what);
    layer.gradient(&primal, &mut found, Write::Add);
    assert_close(&found, &sum(gradient.clone(), &gradient), tolerance, &what);

    for with_rx in [false, true] {
        let tangent_inputs = with_rx.then_some(&rx[..]);
        let mut ry = filled(samples * k * outputs);
        let mut tangent = Tangent {
            directions: &directions_packed,
            rx: tangent_inputs,
            rdy: &[],
        };
        layer.forward_tangent(&primal, &tangent, &mut ry);
        tangent.rdy = &rdy;
        for row in 0..samples * k {
            let (s, v) = (row / k, &directions[row % k]);
            let x = part(&x, s, inputs);
            let mut expected = sum(product(conv, &x, &weight(v)), &bias(v));
            if with_rx {
                let rx = part(&rx, row, inputs);
                expected = sum(expected, &product(conv, &rx, &weight(&theta)));
            }
            assert_close(&ry[row * outputs..][..outputs], &expected, tolerance, &what);
        }
        for mode in [Mode::Hessian, Mode::GaussNewton] {
            let (mut rdx, mut found) =
                (filled(samples * k * inputs), filled(k * layer.num_params()));
            layer.backward_tangent(&primal, &tangent, &mut rdx, mode);
            layer.gradient_tangent(&primal, &tangent, &mut found, Write::Replace, mode);
            let mut expected = vec![vec![0.0; length]; k];
            for row in 0..samples * k {
                let (s, j) = (row / k, row % k);
                let (x, dy) = (part(&x, s, inputs), part(&dy, s, outputs));
                let (rx, rdy) = (part(&rx, row, inputs), part(&rdy, row, outputs));
                let mut back = input_product(conv, &rdy, &weight(&theta));
                let mut gradient = weight_product(conv, &rdy, &x);
                if mode == Mode::Hessian {
                    back = sum(back, &input_product(conv, &dy, &weight(&directions[j])));
                }
                if with_rx && mode == Mode::Hessian {
                    let products = weight_product(conv, &dy, &rx);
                    let products = products[..conv.weight.len()].iter();
                    gradient.iter_mut().zip(products).for_each(|(g, p)| *g += p);
                }
                assert_close(&rdx[row * inputs..][..inputs], &back, tolerance, &what);
                let target = &mut expected[j][conv.weight.start..];
                target.iter_mut().zip(gradient).for_each(|(t, g)| *t += g);
            }
            let mut sums = vec![vec![0.0; length]; k];
            layer.add_gradient(&found, &mut Window::split(&mut sums, length)[0]);
            for (found, expected) in sums.iter().zip(&expected) {
                assert_close(found, expected, tolerance, &what);
            }
        }
    }
}

fn conv(shape: ConvolutionShape, with_bias: bool) -> Option<Conv2dRules> {
    let inputs = shape.input[0].checked_div(shape.groups)?;
    let end = 3 + shape.channels * inputs * shape.kernel[0] * shape.kernel[1];
    let bias = with_bias.then_some(end..end + shape.channels);
    Some(Conv2dRules {
        convolution: Convolution::new(shape).ok()?,
        weight: 3..end,
        bias,
    })
}

impl Conv2dRules {
    fn by_each_method(&self) -> impl Iterator<Item = Self> {
        let convolution = Convolution::new(self.convolution.shape).unwrap();
        let with = |convolution| Self {
            convolution,
            weight: self.weight.clone(),
            bias: self.bias.clone(),
        };
        convolution.by_each_method().into_iter().map(with)
    }
}

#[test]
fn every_operation_matches_the_definition() {
    let kernels = [[1, 1], [2, 2], [3, 3], [1, 3], [3, 2]];
    let strides = [[1, 1], [1, 2], [2, 1], [2, 2], [3, 1], [3, 2]];
    let channels = [
        (1, 1, 1),
        (3, 5, 1),
        (4, 6, 2),
        (3, 3, 3),
        (2, 9, 1),
        (9, 18, 9),
    ];
    let mut checked = 0;
    for (kernel, image) in kernels
        .iter()
        .flat_map(|k| [[1, 1], [5, 4], [7, 7]].map(|i| (k, i)))
    {
        for ([stride, dilation], padding) in strides.iter().flat_map(|s| [0, 1, 2].map(|p| (s, p)))
        {
            for (inputs, channels, groups) in channels {
                let shape = ConvolutionShape {
                    input: [inputs, image[0], image[1]],
                    channels,
                    kernel: *kernel,
                    stride: *stride,
                    padding,
                    dilation: *dilation,
                    groups,
                };
                let Some(conv) = conv(shape, checked % 2 == 0) else {
                    let fits = |k: usize, n: usize| (k - 1) * dilation < n + 2 * padding;
                    assert!(!fits(kernel[0], image[0]) || !fits(kernel[1], image[1]));
                    continue;
                };
                for conv in conv.by_each_method() {
                    for (samples, k) in [(1, 1), (3, 3)] {
                        check::<f64>(&conv, samples, k, 1e-12);
                    }
                    check::<f32>(&conv, 3, 2, 1e-5);
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 1000, "{checked}");
}

#[test]
fn incomplete_planes_and_images_larger_than_a_run_or_a_chunk() {
    for (input, channels, stride, samples) in [
        ([3, 6, 7], 4, 1, 50),
        ([2, 9, 8], 10, 2, 93),
        ([2, 41, 37], 3, 1, 2),
        ([17, 20, 21], 33, 1, 3),
        ([32, 9, 9], 16, 1, 9),
    ] {
        let shape = ConvolutionShape {
            input,
            channels,
            kernel: [3, 3],
            stride,
            padding: 1,
            dilation: 1,
            groups: 1,
        };
        for conv in conv(shape, true).unwrap().by_each_method() {
            check::<f64>(&conv, samples, 2, 1e-12);
            check::<f32>(&conv, samples, 2, 1e-5);
        }
    }
}

#[test]
fn padding_is_zero_for_any_number_of_samples() {
    for (input, kernel, stride, padding) in [
        ([2, 9, 8], [3, 3], 2, 1),
        ([2, 15, 31], [3, 3], 2, 1),
        ([2, 1, 2], [2, 43], 1, 42),
        ([2, 5, 4], [5, 4], 3, 4),
    ] {
        let shape = ConvolutionShape {
            input,
            channels: 2,
            kernel,
            stride,
            padding,
            dilation: 1,
            groups: 1,
        };
        for samples in [1, 3, 8, 13] {
            check::<f64>(&conv(shape, true).unwrap(), samples, 1, 1e-12);
        }
    }
}

#[test]
fn impossible_shapes_are_refused() {
    let shape = ConvolutionShape {
        input: [4, 5, 6],
        channels: 8,
        kernel: [3, 3],
        stride: 1,
        padding: 0,
        dilation: 1,
        groups: 2,
    };
    let kernel = [0, 3];
    let bad = [
        ConvolutionShape {
            input: [0, 5, 6],
            ..shape
        },
        ConvolutionShape {
            input: [4, 0, 6],
            ..shape
        },
        ConvolutionShape {
            channels: 0,
            ..shape
        },
        ConvolutionShape { kernel, ..shape },
        ConvolutionShape {
            kernel: [6, 3],
            ..shape
        },
        ConvolutionShape { stride: 0, ..shape },
        ConvolutionShape {
            dilation: 0,
            ..shape
        },
        ConvolutionShape {
            dilation: 3,
            ..shape
        },
        ConvolutionShape {
            padding: usize::MAX,
            ..shape
        },
        ConvolutionShape { groups: 0, ..shape },
        ConvolutionShape { groups: 3, ..shape },
        ConvolutionShape {
            channels: 7,
            ..shape
        },
    ];
    assert_eq!(conv(shape, true).unwrap().convolution.output(), [8, 3, 4]);
    for shape in bad {
        assert!(conv(shape, true).is_none(), "{shape:?}");
    }
}
