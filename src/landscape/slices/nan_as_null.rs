//! Places at which a quantity is not finite: NaN in memory, null in a file.

use ndarray::Array2;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Numbers that may have holes.
pub(super) trait Holes: Sized {
    /// The same with `None` for each hole, so that every format can hold it.
    type Marked: Serialize + for<'de> Deserialize<'de>;

    fn marked(&self) -> Self::Marked;

    fn unmarked(marked: Self::Marked) -> Self;
}

impl Holes for f64 {
    type Marked = Option<f64>;

    fn marked(&self) -> Option<f64> {
        (!self.is_nan()).then_some(*self)
    }

    fn unmarked(marked: Option<f64>) -> Self {
        marked.unwrap_or(f64::NAN)
    }
}

impl Holes for Vec<f64> {
    type Marked = Vec<Option<f64>>;

    fn marked(&self) -> Self::Marked {
        self.iter().map(Holes::marked).collect()
    }

    fn unmarked(marked: Self::Marked) -> Self {
        marked.into_iter().map(Holes::unmarked).collect()
    }
}

impl Holes for Array2<f64> {
    type Marked = Array2<Option<f64>>;

    fn marked(&self) -> Self::Marked {
        self.map(Holes::marked)
    }

    fn unmarked(marked: Self::Marked) -> Self {
        marked.mapv(Holes::unmarked)
    }
}

impl<T: Holes> Holes for Option<T> {
    type Marked = Option<T::Marked>;

    fn marked(&self) -> Self::Marked {
        self.as_ref().map(Holes::marked)
    }

    fn unmarked(marked: Self::Marked) -> Self {
        marked.map(Holes::unmarked)
    }
}

/// For `#[serde(with)]`.
pub(super) fn serialize<T: Holes, S: Serializer>(
    numbers: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    numbers.marked().serialize(serializer)
}

pub(super) fn deserialize<'de, T: Holes, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::Marked::deserialize(deserializer).map(T::unmarked)
}
