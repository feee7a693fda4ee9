//! Bytes of vectors between processes.

use candle_core::DType;
use serde::Deserialize;

use crate::parameters::epsilon_of;

/// Type of the numbers in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Numbers {
    F32,
    F64,
}

/// First bytes of a frame.
pub(super) const MARK: &[u8; 8] = b"vectors\n";

/// Bytes before the numbers of a frame.
pub(super) const HEADER: usize = 24;

/// Header of a frame with `count` vectors of length `dim`.
pub(super) fn header(count: usize, dim: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MARK);
    header[8..16].copy_from_slice(&(count as u64).to_le_bytes());
    header[16..].copy_from_slice(&(dim as u64).to_le_bytes());
    header
}

/// Number and length of the vectors in a frame with this header.
pub(super) fn shape(header: &[u8; HEADER]) -> [u64; 2] {
    [8, 16].map(|at| {
        let bytes = std::array::from_fn(|i| header[at + i]);
        u64::from_le_bytes(bytes)
    })
}

impl Numbers {
    pub(super) fn candle(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
        }
    }

    /// Machine epsilon.
    pub(super) fn epsilon(self) -> f64 {
        epsilon_of(self.candle())
    }

    /// Bytes of a number.
    pub(super) fn size(self) -> usize {
        self.candle().size_in_bytes()
    }

    pub(super) fn encode(self, numbers: &[f64]) -> Vec<u8> {
        let mut bytes = vec![0; self.size() * numbers.len()];
        match self {
            Self::F32 => {
                for (bytes, x) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
                    *bytes = (*x as f32).to_le_bytes();
                }
            }
            Self::F64 => {
                for (bytes, x) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
                    *bytes = x.to_le_bytes();
                }
            }
        }
        bytes
    }

    /// Appends the numbers in `bytes`.
    pub(super) fn decode(self, bytes: &[u8], numbers: &mut Vec<f64>) {
        match self {
            Self::F32 => {
                let chunks = bytes.as_chunks::<4>().0.iter();
                numbers.extend(chunks.map(|bytes| f64::from(f32::from_le_bytes(*bytes))));
            }
            Self::F64 => {
                let chunks = bytes.as_chunks::<8>().0.iter();
                numbers.extend(chunks.map(|bytes| f64::from_le_bytes(*bytes)));
            }
        }
    }
}
