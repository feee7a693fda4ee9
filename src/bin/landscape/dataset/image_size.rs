//! Size of images as a flag.

use std::str::FromStr;

use loss_landscape::serde::{Serialize, Serializer};

/// Height and width of images.
#[derive(Clone, Copy, Debug)]
pub struct ImageSize(pub [usize; 2]);

impl FromStr for ImageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (height, width) = text.split_once(['x', '×']).unwrap_or((text, text));
        match (height.parse(), width.parse()) {
            (Ok(height), Ok(width)) => Ok(Self([height, width])),
            _ => Err("expected N or HEIGHTxWIDTH, such as 32 or 32x48".into()),
        }
    }
}

impl Serialize for ImageSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [height, width] = self.0;
        serializer.serialize_str(&format!("{height}x{width}"))
    }
}
