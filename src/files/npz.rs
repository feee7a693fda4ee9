//! NumPy's `.npz`: a zip archive of `.npy` files.

use super::archive::Archive;
use super::array_rows::Stored;
use super::arrays::{Array, Arrays, Element, contiguous};

/// Beginning of an `.npy` file.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Adds all arrays of an `.npz` file.
pub(super) fn read(mut archive: Archive, arrays: &mut Arrays) -> Result<(), String> {
    let names = archive.names();
    let mut names = names
        .iter()
        .filter_map(|member| Some((member, member.strip_suffix(".npy")?)))
        .peekable();
    if names.peek().is_none() {
        return Err("the zip archive has neither .npy files nor a data.pkl".into());
    }
    for (member, name) in names {
        let content = archive.read(member)?;
        let array = parse(name, &content).map_err(|e| format!("array `{name}`: {e}"))?;
        arrays.push(&array)?;
    }
    Ok(())
}

fn parse<'a>(name: &str, file: &'a [u8]) -> Result<Array<'a>, String> {
    let header = Header::parse(file)?;
    let strides = match header.is_fortran {
        false => contiguous(&header.shape)?,
        true => {
            let reversed: Vec<usize> = header.shape.iter().rev().copied().collect();
            contiguous(&reversed)?.into_iter().rev().collect()
        }
    };
    Ok(Array {
        name: name.to_owned(),
        element: header.element,
        shape: header.shape,
        strides,
        big_endian: header.big_endian,
        bytes: &file[header.len..],
    })
}

/// The array of an `.npy` file of `size` bytes that is in another file from `start` on. `beginning` holds its first bytes.
pub(super) fn stored(beginning: &[u8], start: u64, size: u64) -> Result<Stored, String> {
    let header = Header::parse(beginning)?;
    if header.is_fortran {
        return Err("its samples are not one after another: write it in C order".into());
    }
    Ok(Stored {
        element: header.element,
        shape: header.shape,
        big_endian: header.big_endian,
        start: start + header.len as u64,
        size: size - header.len as u64,
    })
}

/// What precedes the data of an `.npy` file.
struct Header {
    element: Element,
    big_endian: bool,
    shape: Vec<usize>,
    is_fortran: bool,
    /// Number of bytes before the data.
    len: usize,
}

impl Header {
    fn parse(file: &[u8]) -> Result<Self, String> {
        let (text, data) = split(file).ok_or("it is not an .npy file")?;
        let text = String::from_utf8_lossy(text);
        let (element, big_endian) = element(value(&text, "descr")?)?;
        let is_fortran = match value(&text, "fortran_order")? {
            order if order.starts_with("False") => false,
            order if order.starts_with("True") => true,
            _ => return Err("the header has no valid `fortran_order`".into()),
        };
        Ok(Self {
            element,
            big_endian,
            shape: shape(value(&text, "shape")?)?,
            is_fortran,
            len: file.len() - data.len(),
        })
    }
}

/// Text of the header, and data of an `.npy` file.
fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (version, rest) = file.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
    let (len, rest) = match version[0] {
        1 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u16::from_le_bytes(*len) as usize, rest)
        }
        2 | 3 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u32::from_le_bytes(*len) as usize, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// The text after a key of the header, such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let after = header.split_once(&format!("'{key}':"));
    let (_, value) = after.ok_or_else(|| format!("the header has no `{key}`"))?;
    Ok(value.trim_start())
}

/// The type of the elements, and whether they are big-endian.
fn element(value: &str) -> Result<(Element, bool), String> {
    let quoted = value.strip_prefix('\'').and_then(|v| v.split_once('\''));
    let (descr, _) = quoted.ok_or("it has elements of several fields, which are not read")?;
    let code = descr.trim_start_matches(['<', '>', '=', '|']);
    let element = match code {
        "f2" => Element::F16,
        "f4" => Element::F32,
        "f8" => Element::F64,
        "b1" => Element::Bool,
        "u1" => Element::U8,
        "u2" => Element::U16,
        "u4" => Element::U32,
        "u8" => Element::U64,
        "i1" => Element::I8,
        "i2" => Element::I16,
        "i4" => Element::I32,
        "i8" => Element::I64,
        _ => {
            let what = match code.chars().next() {
                Some('O') => "Python objects",
                Some('U' | 'S') => "text",
                Some('c') => "complex numbers",
                Some('M' | 'm') => "times",
                _ => "numbers of another type",
            };
            return Err(format!("it has {what} (`{descr}`), which are not read"));
        }
    };
    Ok((element, descr.starts_with('>')))
}

fn shape(value: &str) -> Result<Vec<usize>, String> {
    let inside = value.strip_prefix('(').and_then(|v| v.split_once(')'));
    let (inside, _) = inside.ok_or("the header has no valid `shape`")?;
    let dims = inside
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty());
    dims.map(|dim| dim.parse())
        .collect::<Result<_, _>>()
        .map_err(|_| format!("the header has the shape ({inside})"))
}
