//! Serialises NaN as null, so that results with missing values fit into every format.

use ndarray::Array2;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Numbers of which some may be NaN.
pub(super) trait NanAsNull: Sized {
    /// The same numbers with `None` for each NaN.
    type Nullable: Serialize + for<'de> Deserialize<'de>;

    fn to_nullable(&self) -> Self::Nullable;

    fn from_nullable(nullable: Self::Nullable) -> Self;
}

impl NanAsNull for f64 {
    type Nullable = Option<f64>;

    fn to_nullable(&self) -> Option<f64> {
        (!self.is_nan()).then_some(*self)
    }

    fn from_nullable(nullable: Option<f64>) -> Self {
        nullable.unwrap_or(f64::NAN)
    }
}

impl NanAsNull for Vec<f64> {
    type Nullable = Vec<Option<f64>>;

    fn to_nullable(&self) -> Self::Nullable {
        self.iter().map(NanAsNull::to_nullable).collect()
    }

    fn from_nullable(nullable: Self::Nullable) -> Self {
        nullable.into_iter().map(NanAsNull::from_nullable).collect()
    }
}

impl NanAsNull for Array2<f64> {
    type Nullable = Array2<Option<f64>>;

    fn to_nullable(&self) -> Self::Nullable {
        self.map(NanAsNull::to_nullable)
    }

    fn from_nullable(nullable: Self::Nullable) -> Self {
        nullable.mapv(NanAsNull::from_nullable)
    }
}

impl<T: NanAsNull> NanAsNull for Option<T> {
    type Nullable = Option<T::Nullable>;

    fn to_nullable(&self) -> Self::Nullable {
        self.as_ref().map(NanAsNull::to_nullable)
    }

    fn from_nullable(nullable: Self::Nullable) -> Self {
        nullable.map(NanAsNull::from_nullable)
    }
}

/// Serialiser for `#[serde(with = "nan_as_null")]`.
pub(super) fn serialize<T: NanAsNull, S: Serializer>(
    numbers: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    numbers.to_nullable().serialize(serializer)
}

/// Deserialiser for `#[serde(with = "nan_as_null")]`.
pub(super) fn deserialize<'de, T: NanAsNull, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::Nullable::deserialize(deserializer).map(T::from_nullable)
}
