//! Files of PyTorch's `torch.save`: a pickle that describes tensors, and the bytes of their storages.

use std::collections::HashMap;

use super::archive::Archive;
use super::arrays::{Array, Arrays, Element};
use super::pickle::{Id, Pickle, Value};

/// Name of the pickle in an archive, after the archive's directory.
const PICKLE: &str = "data.pkl";

/// Beginning of a file of PyTorch before 1.6: a pickle of this number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The pickle's name if the archive is from `torch.save`.
pub(super) fn pickle_of(archive: &Archive) -> Option<String> {
    archive.names().into_iter().find(|name| {
        let directory = name.strip_suffix(PICKLE);
        directory.is_some_and(|d| d.is_empty() || d.ends_with('/') && d.matches('/').count() == 1)
    })
}

/// Adds the tensors of a zip archive, which PyTorch writes since version 1.6.
pub(super) fn read(mut archive: Archive, pickle: &str, arrays: &mut Arrays) -> Result<(), String> {
    let directory = pickle.trim_end_matches(PICKLE);
    if archive.contains(&format!("{directory}constants.pkl")) {
        return Err(
            "it is a TorchScript archive; save `model.state_dict()` with torch.save instead".into(),
        );
    }
    let byte_order = format!("{directory}byteorder");
    let big_endian = archive.contains(&byte_order) && archive.read(&byte_order)? == b"big";
    let pickle = Pickle::parse(&archive.read(pickle)?)?;
    let mut storages = HashMap::new();
    for (name, view) in state_dict(&pickle)? {
        let storage = match storages.remove(&view.storage) {
            Some(storage) => storage,
            None => archive.read(&format!("{directory}data/{}", view.storage))?,
        };
        arrays.push(&view.array(name, big_endian, &storage)?)?;
        // Other tensors may share it.
        storages.insert(view.storage, storage);
    }
    Ok(())
}

pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(LEGACY)
}

/// Adds the tensors of a file of PyTorch before 1.6: five pickles (magic number, version, system, object, keys of the
/// storages), and each storage's number of elements and data.
pub(super) fn read_legacy(bytes: &[u8], arrays: &mut Arrays) -> Result<(), String> {
    let mut rest = &bytes[LEGACY.len()..];
    let mut next = || {
        let pickle = Pickle::parse(rest)?;
        rest = &rest[pickle.len..];
        Ok::<_, String>(pickle)
    };
    let [_version, system, object, keys] = [next()?, next()?, next()?, next()?];
    let big_endian = entries(&system, system.root).any(|(key, value)| {
        matches!(system.get(key), Value::Text(key) if key == "little_endian")
            && matches!(system.get(value), Value::Bool(false))
    });
    let described = object.values().iter().filter_map(|value| match value {
        Value::Persistent(description) => Storage::parse(&object, *description).ok(),
        _ => None,
    });
    let elements: HashMap<String, Option<Element>> = described
        .map(|storage| (storage.key, storage.element))
        .collect();
    let mut storages = HashMap::new();
    for key in keys.items(keys.root).unwrap_or_default() {
        let Value::Text(key) = keys.get(*key) else {
            return Err("the list of its storages is damaged".into());
        };
        let wrong = |problem: &str| format!("storage `{key}` {problem}");
        let element = elements.get(key).copied().flatten();
        let size = element
            .ok_or_else(|| wrong("has elements of a type that is not read"))?
            .size();
        let (count, data) = rest
            .split_first_chunk()
            .ok_or_else(|| wrong("is missing: the file is truncated"))?;
        let count = u64::from_le_bytes(*count);
        let len = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(size));
        let (data, after) = len
            .and_then(|len| data.split_at_checked(len))
            .ok_or_else(|| {
                wrong(&format!(
                    "claims {count} elements: the file is truncated or damaged"
                ))
            })?;
        storages.insert(key.as_str(), data);
        rest = after;
    }
    for (name, view) in state_dict(&object)? {
        let storage = storages.get(view.storage.as_str());
        let storage =
            storage.ok_or_else(|| format!("the storage `{}` is missing", view.storage))?;
        arrays.push(&view.array(name, big_endian, storage)?)?;
    }
    Ok(())
}

/// A storage, as the persistent id `("storage", type, key, device, number of elements)` describes it.
struct Storage {
    key: String,
    /// `None` for an untyped storage, whose tensors name the type.
    element: Option<Element>,
}

impl Storage {
    fn parse(pickle: &Pickle, description: Id) -> Result<Self, String> {
        let damaged = || "the description of a storage is damaged".to_owned();
        let items = pickle.items(description).ok_or_else(damaged)?;
        let [_, kind, key, _, _, rest @ ..] = items else {
            return Err(damaged());
        };
        if rest
            .iter()
            .any(|view| !matches!(pickle.get(*view), Value::None))
        {
            return Err(
                "its storage is a view, which PyTorch before 0.4 wrote and is not read".into(),
            );
        }
        let (Some(kind), Value::Text(key)) = (pickle.global(*kind), pickle.get(*key)) else {
            return Err(damaged());
        };
        let element = match kind.rsplit('.').next().unwrap_or_default() {
            "HalfStorage" => Some(Element::F16),
            "BFloat16Storage" => Some(Element::BF16),
            "FloatStorage" => Some(Element::F32),
            "DoubleStorage" => Some(Element::F64),
            "BoolStorage" => Some(Element::Bool),
            "ByteStorage" => Some(Element::U8),
            "CharStorage" => Some(Element::I8),
            "ShortStorage" => Some(Element::I16),
            "IntStorage" => Some(Element::I32),
            "LongStorage" => Some(Element::I64),
            "UntypedStorage" => None,
            _ => return Err(format!("elements of `{kind}` are not read")),
        };
        Ok(Self {
            key: key.clone(),
            element,
        })
    }
}

/// A tensor: a view of a storage.
struct View {
    storage: String,
    element: Element,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl View {
    fn array<'a>(
        &self,
        name: String,
        big_endian: bool,
        storage: &'a [u8],
    ) -> Result<Array<'a>, String> {
        let offset = self.offset.checked_mul(self.element.size());
        let bytes = offset
            .and_then(|offset| storage.get(offset..))
            .ok_or_else(|| {
                format!(
                    "array `{name}` starts at element {} of a storage of {} bytes",
                    self.offset,
                    storage.len()
                )
            })?;
        Ok(Array {
            name,
            element: self.element,
            shape: self.shape.clone(),
            strides: self.strides.clone(),
            big_endian,
            bytes,
        })
    }
}

/// Keys of a checkpoint's entry that holds the state dict, most common first.
const STATE_DICTS: [&str; 8] = [
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "params",
    "weights",
];

/// Named tensors of a file, in their order.
fn state_dict(pickle: &Pickle) -> Result<Vec<(String, View)>, String> {
    let under = |key: &&str| {
        let mut entries = entries(pickle, pickle.root);
        let entry = entries.find(|(k, _)| matches!(pickle.get(*k), Value::Text(k) if k == *key));
        entry.map(|(_, value)| value)
    };
    let nested = STATE_DICTS.iter().filter_map(under);
    for root in nested.chain([pickle.root]) {
        let mut walk = Walk {
            pickle,
            found: Vec::new(),
            visits: 0,
        };
        if let Value::Dict(_) = pickle.get(root) {
            walk.dict("", root, 0)?;
        }
        if !walk.found.is_empty() {
            return Ok(walk.found);
        }
    }
    let class = match pickle.get(pickle.root) {
        Value::Call { callable, .. } => pickle.global(*callable),
        _ => None,
    };
    let found = match class {
        Some(class) => format!("an object of `{class}`"),
        None => "no dictionary with tensors".into(),
    };
    Err(format!(
        "it holds {found}; save `model.state_dict()` with torch.save instead"
    ))
}

/// Entries of a dictionary; none of other values.
fn entries(pickle: &Pickle, id: Id) -> impl Iterator<Item = (Id, Id)> + '_ {
    let entries = match pickle.get(id) {
        Value::Dict(entries) => &entries[..],
        _ => &[],
    };
    entries.iter().copied()
}

/// Collects the tensors in nested dictionaries.
struct Walk<'a> {
    pickle: &'a Pickle,
    found: Vec<(String, View)>,
    visits: usize,
}

/// Maximum depth of dictionaries in dictionaries.
const MAX_DEPTH: usize = 8;

/// Maximum number of entries. A small pickle can contain a dictionary in itself.
const MAX_VISITS: usize = 1_000_000;

impl Walk<'_> {
    fn dict(&mut self, prefix: &str, dict: Id, depth: usize) -> Result<(), String> {
        let pickle = self.pickle;
        let has = |name: &str| {
            entries(pickle, dict)
                .any(|(key, _)| matches!(pickle.get(key), Value::Text(k) if k == name))
        };
        if has("state") && has("param_groups") {
            // An optimizer.
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(format!(
                "`{prefix}` is nested more than {MAX_DEPTH} levels deep"
            ));
        }
        for (key, value) in entries(pickle, dict) {
            self.visits += 1;
            if self.visits > MAX_VISITS {
                return Err(format!("it has more than {MAX_VISITS} entries"));
            }
            let key = match pickle.get(key) {
                Value::Text(key) => key.clone(),
                Value::Int(key) => key.to_string(),
                _ => continue,
            };
            let name = match prefix {
                "" => key,
                _ => format!("{prefix}.{key}"),
            };
            if let Value::Dict(_) = pickle.get(value) {
                self.dict(&name, value, depth + 1)?;
            } else if let Some(view) =
                tensor(pickle, value).map_err(|problem| format!("array `{name}`: {problem}"))?
            {
                self.found.push((name, view));
            }
        }
        Ok(())
    }
}

/// The tensor, if the value is one.
fn tensor(pickle: &Pickle, mut id: Id) -> Result<Option<View>, String> {
    loop {
        let &Value::Call {
            callable,
            arguments,
        } = pickle.get(id)
        else {
            return Ok(None);
        };
        let (mut name, mut arguments) = (pickle.global(callable).unwrap_or_default(), arguments);
        if name == "torch._tensor._rebuild_from_type_v2"
            && let Some([function, _, inner, ..]) = pickle.items(arguments)
        {
            // A tensor with attributes: (function, type, its arguments, attributes).
            (name, arguments) = (pickle.global(*function).unwrap_or_default(), *inner);
        }
        let items = pickle.items(arguments).unwrap_or_default();
        match name {
            "torch._utils._rebuild_tensor"
            | "torch._utils._rebuild_tensor_v2"
            | "torch._utils._rebuild_tensor_v3" => return view(pickle, items).map(Some),
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                match items.first() {
                    // Arguments come before their call in a pickle, so that this ends.
                    Some(data) if *data < id => id = *data,
                    _ => return Err("a parameter without data".into()),
                }
            }
            _ => match name.strip_prefix("torch._utils._rebuild_") {
                Some(kind) => return Err(format!("it is a `{kind}`: only dense tensors are read")),
                None => return Ok(None),
            },
        }
    }
}

/// The tensor with the arguments (storage, offset, shape, strides, …) of PyTorch's function.
fn view(pickle: &Pickle, arguments: &[Id]) -> Result<View, String> {
    let damaged = || "its description is damaged".to_owned();
    let [storage, offset, shape, strides, rest @ ..] = arguments else {
        return Err(damaged());
    };
    let Value::Persistent(description) = pickle.get(*storage) else {
        return Err("its data are not in the file".into());
    };
    let storage = Storage::parse(pickle, *description)?;
    let element = match (storage.element, rest) {
        (Some(element), _) => element,
        (None, [_, _, dtype, ..]) => {
            let dtype = pickle.global(*dtype).unwrap_or_default();
            element(dtype).ok_or_else(|| format!("elements of `{dtype}` are not read"))?
        }
        _ => return Err(damaged()),
    };
    let sizes = |id: &Id| {
        let items = pickle.items(*id)?.iter();
        items
            .map(|item| pickle.size(*item))
            .collect::<Option<Vec<_>>>()
    };
    let (offset, shape, strides) = (pickle.size(*offset), sizes(shape), sizes(strides));
    let (offset, shape, strides) = offset
        .zip(shape)
        .zip(strides)
        .map(|((offset, shape), strides)| (offset, shape, strides))
        .filter(|(_, shape, strides)| shape.len() == strides.len())
        .ok_or_else(damaged)?;
    Ok(View {
        storage: storage.key,
        element,
        offset,
        shape,
        strides,
    })
}

/// Types of tensors on untyped storages.
fn element(dtype: &str) -> Option<Element> {
    Some(match dtype.strip_prefix("torch.")? {
        "float16" => Element::F16,
        "bfloat16" => Element::BF16,
        "float32" => Element::F32,
        "float64" => Element::F64,
        "bool" => Element::Bool,
        "uint8" => Element::U8,
        "uint16" => Element::U16,
        "uint32" => Element::U32,
        "uint64" => Element::U64,
        "int8" => Element::I8,
        "int16" => Element::I16,
        "int32" => Element::I32,
        "int64" => Element::I64,
        _ => return None,
    })
}
