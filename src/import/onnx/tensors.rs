//! Tensors of ONNX files: [`read`] checks sizes before it allocates.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use candle_core::{DType, Device, Tensor};

use super::graph::Kind;
use super::messages::TensorProto;

/// Types of entries, by their numbers in `onnx.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    F32,
    F64,
    F16,
    BF16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
}

impl Type {
    pub(super) fn of(number: i32) -> Result<Self, String> {
        Ok(match number {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            12 => Self::U32,
            13 => Self::U64,
            16 => Self::BF16,
            8 => return Err("text, which no supported operator reads".into()),
            14 | 15 => return Err("complex numbers, which are not supported".into()),
            17..=28 => {
                return Err(
                    "numbers of at most 8 bits for quantised models, which are not supported: export the model in float32"
                        .into(),
                );
            }
            other => return Err(format!("the unknown type {other}")),
        })
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::F32 | Self::F64 | Self::F16 | Self::BF16 => Kind::Float,
            Self::Bool => Kind::Boolean,
            _ => Kind::Integer,
        }
    }

    /// Bytes of an entry.
    fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

/// Reads a tensor onto the host: floats as `f32` or `f64`, integers as `i64`, booleans as `u8`. `f16` and `bf16` are widened.
/// Values in another file are read from `directory`, which the file must lie in.
pub(super) fn read(proto: &TensorProto, directory: &Path) -> Result<Tensor, String> {
    let name = proto.name.as_deref().unwrap_or_default();
    read_unnamed(proto, directory).map_err(|problem| match name {
        "" => format!("a tensor {problem}"),
        name => format!("the tensor `{name}` {problem}"),
    })
}

fn read_unnamed(proto: &TensorProto, directory: &Path) -> Result<Tensor, String> {
    let kind = Type::of(proto.data_type.unwrap_or_default()).map_err(|p| format!("has {p}"))?;
    let dims: Option<Vec<usize>> = proto
        .dims
        .iter()
        .map(|d| usize::try_from(*d).ok())
        .collect();
    // The product of sizes other than 0 must be a length too: candle multiplies them.
    let product = |dims: &[usize]| {
        dims.iter()
            .try_fold(1usize, |n, d| n.checked_mul((*d).max(1)))
    };
    let dims = dims.filter(|dims| product(dims).is_some_and(|n| n.checked_mul(8).is_some()));
    let dims = dims.ok_or_else(|| format!("has the impossible shape {:?}", proto.dims))?;
    let count: usize = dims.iter().product();
    let values = values(proto, kind, count, directory).map_err(|problem| {
        format!("of shape {dims:?} {problem}; the file is damaged or not complete")
    })?;
    let tensor = match values {
        Values::F32(values) => Tensor::from_vec(values, dims, &Device::Cpu),
        Values::F64(values) => Tensor::from_vec(values, dims, &Device::Cpu),
        Values::Integers(values) => Tensor::from_vec(values, dims, &Device::Cpu),
        Values::Booleans(values) => Tensor::from_vec(values, dims, &Device::Cpu),
    };
    tensor.map_err(|e| format!("cannot be stored: {e}"))
}

enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Integers(Vec<i64>),
    Booleans(Vec<u8>),
}

fn values(
    proto: &TensorProto,
    kind: Type,
    count: usize,
    directory: &Path,
) -> Result<Values, String> {
    if proto.data_location == Some(1) {
        let bytes = read_external(proto, count * kind.size(), directory)?;
        return from_bytes(&bytes, kind);
    }
    if let Some(bytes) = proto.raw_data.as_ref().filter(|bytes| !bytes.is_empty()) {
        check_len(bytes.len(), count * kind.size(), "bytes")?;
        return from_bytes(bytes, kind);
    }
    let entries = |len: usize| check_len(len, count, "entries");
    Ok(match kind {
        Type::F32 => {
            entries(proto.float_data.len())?;
            Values::F32(proto.float_data.clone())
        }
        Type::F64 => {
            entries(proto.double_data.len())?;
            Values::F64(proto.double_data.clone())
        }
        Type::I64 => {
            entries(proto.int64_data.len())?;
            Values::Integers(proto.int64_data.clone())
        }
        Type::U32 | Type::U64 => {
            entries(proto.uint64_data.len())?;
            Values::Integers(proto.uint64_data.iter().map(|v| *v as i64).collect())
        }
        _ => {
            entries(proto.int32_data.len())?;
            match kind {
                Type::F16 | Type::BF16 => {
                    let halves = proto.int32_data.iter().map(|bits| *bits as u16);
                    let bytes: Vec<u8> = halves.flat_map(u16::to_le_bytes).collect();
                    from_bytes(&bytes, kind)?
                }
                Type::Bool => {
                    Values::Booleans(proto.int32_data.iter().map(|v| u8::from(*v != 0)).collect())
                }
                _ => Values::Integers(proto.int32_data.iter().map(|v| i64::from(*v)).collect()),
            }
        }
    })
}

fn check_len(found: usize, expected: usize, what: &str) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("has {found} {what}, expected {expected}")),
    }
}

/// Values in little-endian order, as ONNX stores them.
fn from_bytes(bytes: &[u8], kind: Type) -> Result<Values, String> {
    fn map<const N: usize, T>(bytes: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (entries, _) = bytes.as_chunks::<N>();
        entries.iter().map(|entry| f(*entry)).collect()
    }
    let widened = |dtype| {
        let halves = Tensor::from_raw_buffer(bytes, dtype, &[bytes.len() / 2], &Device::Cpu)?;
        halves.to_dtype(DType::F32)?.to_vec1()
    };
    let unreadable = |e: candle_core::Error| format!("cannot be widened to f32: {e}");
    Ok(match kind {
        Type::F32 => Values::F32(map(bytes, f32::from_le_bytes)),
        Type::F64 => Values::F64(map(bytes, f64::from_le_bytes)),
        Type::F16 => Values::F32(widened(DType::F16).map_err(unreadable)?),
        Type::BF16 => Values::F32(widened(DType::BF16).map_err(unreadable)?),
        Type::I8 => Values::Integers(map(bytes, |b| i8::from_le_bytes(b).into())),
        Type::I16 => Values::Integers(map(bytes, |b| i16::from_le_bytes(b).into())),
        Type::I32 => Values::Integers(map(bytes, |b| i32::from_le_bytes(b).into())),
        Type::I64 => Values::Integers(map(bytes, i64::from_le_bytes)),
        Type::U8 => Values::Integers(map(bytes, |b| u8::from_le_bytes(b).into())),
        Type::U16 => Values::Integers(map(bytes, |b| u16::from_le_bytes(b).into())),
        Type::U32 => Values::Integers(map(bytes, |b| u32::from_le_bytes(b).into())),
        Type::U64 => Values::Integers(map(bytes, |b| u64::from_le_bytes(b) as i64)),
        Type::Bool => Values::Booleans(map(bytes, |[b]: [u8; 1]| u8::from(b != 0))),
    })
}

/// Reads `expected` bytes of another file, which must be in `directory` or below it, also after links are followed.
fn read_external(
    proto: &TensorProto,
    expected: usize,
    directory: &Path,
) -> Result<Vec<u8>, String> {
    let entry = |key: &str| {
        let mut entries = proto.external_data.iter();
        let found = entries.find(|entry| entry.key.as_deref() == Some(key));
        found.and_then(|entry| entry.value.as_deref())
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!(
                "has {key} `{text}` in its external file, expected a number"
            )),
        },
    };
    let location = entry("location").ok_or("has its values in another file without a name")?;
    let offset = number("offset")?.unwrap_or(0);
    let len = number("length")?;
    let inside = Path::new(location);
    let is_plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if !inside.components().all(is_plain) {
        return Err(format!(
            "has its values in `{location}`, which is not in the directory of the model"
        ));
    }
    let path = directory.join(inside);
    let unreadable = |e: std::io::Error| {
        format!(
            "has its values in {}, which cannot be read ({e}): copy it to the directory of the model",
            path.display()
        )
    };
    let real = path.canonicalize().map_err(unreadable)?;
    let root = directory.canonicalize().map_err(unreadable)?;
    if !real.starts_with(&root) {
        return Err(format!(
            "has its values in {}, a link out of the directory of the model: copy the file there",
            path.display()
        ));
    }
    let mut file = File::open(&real).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let end = offset.checked_add(expected as u64);
    let fits = metadata.is_file() && end.is_some_and(|end| end <= metadata.len());
    if !fits || len.is_some_and(|len| len != expected as u64) {
        return Err(format!(
            "needs {expected} bytes at {offset} of {}, which has {} bytes{}",
            path.display(),
            metadata.len(),
            len.map_or(String::new(), |len| format!("; the model states {len}"))
        ));
    }
    let mut bytes = vec![0; expected];
    file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
    file.read_exact(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}
