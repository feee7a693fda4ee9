//! The error function of the values of a slice.

use super::Scalar;
use super::simd::vectorised;

/// Absolute values for which the rational function below is erf to the last bit.
const NEAR_ZERO: [f64; 2] = [3.725_290_298_461_914e-9, 0.843_75];

/// Coefficients of the rational function (erf(x) − x)/x of x², as in fdlibm; the denominator begins with 1.
const NUMERATOR: [f64; 5] = [
    1.283_791_670_955_125_6e-1,
    -3.250_421_072_470_015e-1,
    -2.848_174_957_559_851e-2,
    -5.770_270_296_489_442e-3,
    -2.376_301_665_665_016_3e-5,
];
const DENOMINATOR: [f64; 6] = [
    1.0,
    3.979_172_239_591_553_5e-1,
    6.502_224_998_876_73e-2,
    5.081_306_281_875_766e-3,
    1.324_947_380_043_216_4e-4,
    -3.960_228_278_775_368e-6,
];

vectorised! {
    /// y ← erf(cx), with the bits of [`Scalar::erf`].
    pub(crate) fn erf<T: Scalar>(c: T, x: &[T], y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            let x = *x * c;
            let z = x * x;
            *y = x + x * (polynomial(&NUMERATOR, z) / polynomial(&DENOMINATOR, z));
        }
        let [least, most] = NEAR_ZERO.map(T::from_f64);
        for (y, x) in y.iter_mut().zip(x) {
            let x = *x * c;
            if !(least..most).contains(&x.abs()) {
                *y = x.erf();
            }
        }
    }
}

#[inline(always)]
fn polynomial<T: Scalar>(coefficients: &[f64], z: T) -> T {
    let mut coefficients = coefficients.iter().rev().map(|c| T::from_f64(*c));
    let last = coefficients.next().unwrap_or(T::ZERO);
    coefficients.fold(last, |sum, c| c + z * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Scalar>() {
        let near = (-30_000..30_000).map(|i| f64::from(i) / 20_000.0);
        let scales =
            (0..400).flat_map(|i| [1.0, -1.0].map(|s| s * 10f64.powf(f64::from(i) / 10.0 - 35.0)));
        let edges = NEAR_ZERO
            .into_iter()
            .flat_map(|e| [e, e * (1.0 - 1e-7), e * (1.0 + 1e-7)]);
        let special = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY];
        let x: Vec<T> = near
            .chain(scales)
            .chain(edges)
            .chain(special)
            .map(T::from_f64)
            .collect();
        let c = T::from_f64(0.9);
        let mut y = vec![T::ZERO; x.len()];
        erf(c, &x, &mut y);
        for (x, y) in x.iter().zip(y) {
            let expected = (*x * c).erf().f64();
            assert_eq!(y.f64().to_bits(), expected.to_bits(), "erf({:?})", *x * c);
        }
        let mut nan = [T::ZERO];
        erf(c, &[T::from_f64(f64::NAN)], &mut nan);
        assert!(nan[0].f64().is_nan());
    }

    #[test]
    fn bits_are_those_of_the_function_of_one_number() {
        check::<f32>();
        check::<f64>();
    }
}
