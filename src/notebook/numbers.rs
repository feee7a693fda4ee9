//! Numbers: their significant digits, and the ends of long lists of them.

use super::lists::abbreviated;
use super::{Bundle, Show};
use crate::error::Result;
use crate::vector::norm;

/// Digits of one number.
pub(super) const DIGITS: usize = 10;

/// Digits of the numbers in a list.
pub(super) const LIST_DIGITS: usize = 6;

/// `x` rounded to `digits` significant digits, without trailing zeros.
pub(super) fn significant(x: f64, digits: usize) -> String {
    let text = format!("{x:.*e}", digits - 1);
    match text.parse::<f64>() {
        Ok(rounded) if rounded.abs() < 10f64.powi(digits as i32) => format!("{rounded:?}"),
        Ok(rounded) if rounded.is_finite() => format!("{rounded:e}"),
        _ => text,
    }
}

/// `x` as a value of its own.
pub(super) fn float(x: f64) -> String {
    significant(x, DIGITS)
}

/// Values in brackets; the ends, length and norm of long lists.
pub(super) fn float_list(values: &[f64]) -> String {
    abbreviated(
        values,
        |x| significant(*x, LIST_DIGITS),
        |values| match values.iter().filter(|x| !x.is_finite()).count() {
            0 => format!(", norm {}", significant(norm(values), LIST_DIGITS)),
            count => format!(", {count} not finite"),
        },
    )
}

/// Values in brackets; the ends, length and extremes of long lists.
pub(super) fn integer_list<T: Copy + Ord + ToString>(values: &[T]) -> String {
    abbreviated(values, T::to_string, |values| {
        let ends = values.iter().min().zip(values.iter().max());
        ends.map_or(String::new(), |(min, max)| {
            format!(", {} to {}", min.to_string(), max.to_string())
        })
    })
}

/// Values in brackets; the ends, length and number of `true` in long lists.
pub(super) fn bool_list(values: &[bool]) -> String {
    abbreviated(values, bool::to_string, |values| {
        let count = values.iter().filter(|value| **value).count();
        format!(", {count} true")
    })
}

impl Show for f64 {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(float(*self)))
    }

    fn bundle_list(items: &[Self]) -> Result<Bundle> {
        Ok(Bundle::text(float_list(items)))
    }
}

/// The shortest text that gives the same `f32` when parsed.
impl Show for f32 {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(format!("{self:?}")))
    }

    fn bundle_list(items: &[Self]) -> Result<Bundle> {
        let items: Vec<f64> = items.iter().map(|x| f64::from(*x)).collect();
        f64::bundle_list(&items)
    }
}

macro_rules! integers {
    ($($type:ty),+) => {
        $(impl Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                Ok(Bundle::text(self.to_string()))
            }

            fn bundle_list(items: &[Self]) -> Result<Bundle> {
                Ok(Bundle::text(integer_list(items)))
            }
        })+
    };
}
integers!(
    i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize
);

impl Show for bool {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(self.to_string()))
    }

    fn bundle_list(items: &[Self]) -> Result<Bundle> {
        Ok(Bundle::text(bool_list(items)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain_text as text;

    #[test]
    fn one_number() {
        for (x, expected) in [
            (0.1 + 0.2, "0.3"),
            (1.0, "1.0"),
            (0.652_185_257_627_983_4, "0.6521852576"),
            (-203_687.031_66, "-203687.0317"),
            (1e9, "1000000000.0"),
            (1e10, "1e10"),
            (-1.234_567_890_123e15, "-1.23456789e15"),
            (1e-5, "1e-5"),
            (2.5e-4, "0.00025"),
            (1e-30, "1e-30"),
            (5e-324, "5e-324"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::MAX, "1.797693135e308"),
            (1.0 / 3.0, "0.3333333333"),
            (0.999_999_999_99, "1.0"),
        ] {
            assert_eq!(text(x), expected);
        }
        assert_eq!(text(0.1f32), "0.1");
        assert_eq!(text(1.0f32), "1.0");
        assert_eq!(text(16_777_217.0f32), "16777216.0");
        assert_eq!(text(1e-30f32), "1e-30");
        assert_eq!(text(-0.0f32), "-0.0");
        assert_eq!(text(f32::NAN), "NaN");
        assert_eq!(
            (text(-7i32), text(u64::MAX)),
            ("-7".into(), "18446744073709551615".into())
        );
    }

    #[test]
    fn short_lists_are_whole() {
        assert_eq!(text(Vec::<f64>::new()), "[]");
        assert_eq!(text([0.5, 2.0]), "[0.5, 2.0]");
        assert_eq!(text([1.0 / 3.0, -0.0, 1e-30]), "[0.333333, -0.0, 1e-30]");
        assert_eq!(text([f64::NAN, f64::INFINITY]), "[NaN, inf]");
        assert_eq!(text(vec![0.1f32]), "[0.1]");
        assert_eq!(
            text((0..10).collect::<Vec<u8>>()),
            "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
        );
        assert_eq!(text([true, false]), "[true, false]");
    }

    #[test]
    fn long_lists_show_their_ends() {
        assert_eq!(
            text((0..11).collect::<Vec<i32>>()),
            "[0, 1, 2, …, 8, 9, 10] (11 values, 0 to 10)"
        );
        let mut values = vec![1e-3; 100_000];
        assert_eq!(
            text(values.clone()),
            "[0.001, 0.001, 0.001, …, 0.001, 0.001, 0.001] (100000 values, norm 0.316228)"
        );
        values[5] = f64::NAN;
        values[7] = f64::NEG_INFINITY;
        assert_eq!(
            text(values),
            "[0.001, 0.001, 0.001, …, 0.001, 0.001, 0.001] (100000 values, 2 not finite)"
        );
        assert!(text(vec![1e200; 16]).ends_with("(16 values, norm 4e200)"));
        assert!(text(vec![3f32; 16]).ends_with("(16 values, norm 12.0)"));
        assert!(text(vec![true; 20]).ends_with("(20 values, 20 true)"));
    }
}
