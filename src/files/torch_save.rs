//! Writes state dicts as PyTorch's `torch.save` does: a zip archive of a pickle and the bytes of each tensor.

use std::io::{Cursor, Write};

use candle_core::{DType, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::arrays::contiguous;

/// Alignment of the tensors' bytes in the file, as in PyTorch.
const ALIGNMENT: u16 = 64;

/// The file's bytes. The same tensors give the same bytes.
pub(super) fn archive(tensors: &[(String, Tensor)]) -> Result<Vec<u8>, String> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .with_alignment(ALIGNMENT);
    let mut add = |name: &str, content: &[u8]| {
        let is_large = content.len() >= u32::MAX as usize;
        zip.start_file(format!("archive/{name}"), options.large_file(is_large))
            .map_err(|e| e.to_string())?;
        zip.write_all(content).map_err(|e| e.to_string())
    };
    add("data.pkl", &pickle(tensors)?)?;
    add("byteorder", b"little")?;
    for (i, (_, tensor)) in tensors.iter().enumerate() {
        let mut bytes = Vec::new();
        tensor.write_bytes(&mut bytes).map_err(|e| e.to_string())?;
        add(&format!("data/{i}"), &bytes)?;
    }
    add("version", b"3\n")?;
    let written = zip.finish().map_err(|e| e.to_string())?;
    Ok(written.into_inner())
}

/// An `OrderedDict` of calls of `torch._utils._rebuild_tensor_v2`, as a pickle of protocol 2.
fn pickle(tensors: &[(String, Tensor)]) -> Result<Vec<u8>, String> {
    const EMPTY_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = [b"\x80\x02", EMPTY_DICT, b"("].concat();
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        let storage = match tensor.dtype() {
            DType::F64 => "DoubleStorage",
            _ => "FloatStorage",
        };
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(");
        // The persistent id of the storage.
        out.push(b'(');
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{storage}\n").bytes());
        text(&mut out, &key.to_string());
        text(&mut out, "cpu");
        number(&mut out, tensor.elem_count());
        out.extend(b"tQ");
        // The offset, the shape and the strides.
        number(&mut out, 0);
        for sizes in [tensor.dims(), &contiguous(tensor.dims())?] {
            out.push(b'(');
            sizes.iter().for_each(|size| number(&mut out, *size));
            out.push(b't');
        }
        // It requires no gradient, and has no hooks.
        out.push(0x89);
        out.extend(EMPTY_DICT);
        out.extend(b"tR");
    }
    out.extend(b"u.");
    Ok(out)
}

/// BINUNICODE
fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

/// BININT, or LONG1 of 9 bytes so that the highest bit is no sign.
fn number(out: &mut Vec<u8>, number: usize) {
    match i32::try_from(number) {
        Ok(number) => {
            out.push(b'J');
            out.extend(number.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 9]);
            out.extend((number as u64).to_le_bytes());
            out.push(0);
        }
    }
}
