//! Writing `.npz` files.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use candle_core::{DType, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::safetensors::other;

/// Writes an archive with one `.npy` member per tensor, uncompressed. The tensors are `f32` or `f64`.
pub(super) fn write_npz(file: File, tensors: &[(String, Tensor)]) -> io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::new(file));
    for (name, tensor) in tensors {
        let size = tensor.elem_count() * tensor.dtype().size_in_bytes();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(size >= 1 << 31);
        zip.start_file(format!("{name}.npy"), options)?;
        zip.write_all(&npy_header(tensor))?;
        tensor.write_bytes(&mut zip).map_err(other)?;
    }
    zip.finish()?.flush()
}

/// The beginning of an array in NumPy's format 1.0: magic string, version, length of the description, description.
fn npy_header(tensor: &Tensor) -> Vec<u8> {
    let dtype = match tensor.dtype() {
        DType::F32 => "<f4",
        _ => "<f8",
    };
    let dims: String = tensor.dims().iter().map(|dim| format!("{dim},")).collect();
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({dims}), }}");
    // Magic string, version and length take 10 bytes, the line break 1. NumPy aligns the data to 64 bytes.
    let end = text.len() + 11;
    text += &" ".repeat(end.next_multiple_of(64) - end);
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.into_bytes());
    header
}
