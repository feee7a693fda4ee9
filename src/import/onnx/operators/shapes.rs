//! Shapes, slices and indices.

use candle_core::{Device, Tensor};

use super::super::evaluate::{Call, Failure};
use super::super::graph::{Attribute, Kind, from_start, index};
use super::{Outputs, broadcast_shape};

/// A vector of integers on the host.
fn vector(values: Vec<i64>) -> Result<Tensor, Failure> {
    let len = values.len();
    Ok(Tensor::from_vec(values, len, &Device::Cpu)?)
}

/// Sizes that are not negative.
fn sizes(call: &Call, values: &[i64]) -> Result<Vec<usize>, Failure> {
    let sizes = values.iter().map(|size| usize::try_from(*size).ok());
    let sizes: Option<Vec<usize>> = sizes.collect();
    let sizes = sizes.ok_or_else(|| {
        call.problem(format_args!(
            "has the sizes {values:?}, expected none negative"
        ))
    })?;
    call.check_size(&sizes)?;
    Ok(sizes)
}

pub(super) fn shape(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let rank = x.rank();
    if call.node.op == "Size" {
        return Ok(Tensor::new(x.elem_count() as i64, &Device::Cpu)?);
    }
    let bound = |name: &str, default: usize| -> Result<usize, Failure> {
        let bound = call.node.int_or(name, default as i64)?;
        Ok(from_start(bound, rank).clamp(0, rank as i64) as usize)
    };
    let (start, end) = (bound("start", 0)?, bound("end", rank)?);
    let dims = &x.dims()[start.min(end)..end];
    vector(dims.iter().map(|size| *size as i64).collect())
}

pub(super) fn reshape(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let target = call.ints(1)?;
    let keeps_zero = call.node.int_or("allowzero", 0)? == 1;
    let wrong = || {
        call.problem(format_args!(
            "cannot give a tensor of shape {:?} the shape {target:?}",
            x.dims()
        ))
    };
    let mut dims = Vec::with_capacity(target.len());
    let mut inferred = None;
    for (i, size) in target.iter().enumerate() {
        dims.push(match size {
            -1 if inferred.is_none() => {
                inferred = Some(i);
                1
            }
            0 if !keeps_zero => *x.dims().get(i).ok_or_else(wrong)?,
            size => usize::try_from(*size).map_err(|_| wrong())?,
        });
    }
    let known = dims
        .iter()
        .try_fold(1usize, |n, size| n.checked_mul(*size))
        .ok_or_else(wrong)?;
    if let Some(i) = inferred {
        dims[i] = x.elem_count().checked_div(known).ok_or_else(wrong)?;
    }
    match dims.iter().try_fold(1usize, |n, size| n.checked_mul(*size)) {
        Some(count) if count == x.elem_count() => Ok(x.reshape(dims)?),
        _ => Err(wrong()),
    }
}

pub(super) fn flatten(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let axis = call.node.int_or("axis", 1)?;
    let axis = match axis == x.rank() as i64 {
        true => x.rank(),
        false => call.axis(axis, x.rank())?,
    };
    let (rows, columns) = x.dims().split_at(axis);
    Ok(x.reshape((
        rows.iter().product::<usize>(),
        columns.iter().product::<usize>(),
    ))?)
}

pub(super) fn squeeze(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let axes = call.ints_of("axes", 1)?;
    let mut dims = x.dims().to_vec();
    if call.node.op == "Squeeze" {
        let axes = match axes {
            Some(axes) => axes
                .into_iter()
                .map(|axis| call.axis(axis, x.rank()))
                .collect::<Result<Vec<_>, _>>()?,
            None => (0..dims.len()).filter(|i| dims[*i] == 1).collect(),
        };
        if let Some(axis) = axes.iter().find(|axis| dims[**axis] != 1) {
            return Err(call.problem(format_args!("removes axis {axis} of size {}", dims[*axis])));
        }
        let kept = dims.iter().enumerate().filter(|(i, _)| !axes.contains(i));
        let kept: Vec<usize> = kept.map(|(_, size)| *size).collect();
        return Ok(x.reshape(kept)?);
    }
    let axes = axes.ok_or_else(|| call.problem("has no axes"))?;
    let rank = dims.len() + axes.len();
    let axes = axes.into_iter().map(|axis| call.axis(axis, rank));
    let mut axes = axes.collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(call.problem(format_args!("adds an axis twice: {axes:?}")));
    }
    axes.into_iter().for_each(|axis| dims.insert(axis, 1));
    Ok(x.reshape(dims)?)
}

pub(super) fn transpose(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let axes = match call.node.ints("perm")? {
        Some(axes) => axes
            .iter()
            .map(|axis| call.axis(*axis, x.rank()))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..x.rank()).rev().collect(),
    };
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if sorted != (0..x.rank()).collect::<Vec<_>>() {
        return Err(call.problem(format_args!("has the axes {axes:?} for {} axes", x.rank())));
    }
    Ok(x.permute(axes)?)
}

/// Axes of size 1 are repeated, so that a batch can be joined to a value that is the same for all samples.
pub(super) fn concat(call: &Call) -> Result<Tensor, Failure> {
    let axis = call.axis_of_first(0)?;
    let parts = (0..call.inputs.len()).map(|i| call.input(i));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let rank = parts[0].rank();
    if parts
        .iter()
        .any(|part| part.rank() != rank || Kind::of(part) != Kind::of(parts[0]))
    {
        return Err(
            call.problem("joins tensors with different numbers of axes or of different types")
        );
    }
    let others: Vec<Vec<usize>> = parts
        .iter()
        .map(|part| {
            let mut dims = part.dims().to_vec();
            dims[axis] = 1;
            dims
        })
        .collect();
    let others: Vec<&[usize]> = others.iter().map(Vec::as_slice).collect();
    let common = broadcast_shape(call, &others)?;
    let repeated = parts.into_iter().map(|part| {
        let mut shape = common.clone();
        shape[axis] = part.dims()[axis];
        match part.dims() == shape {
            true => Ok(part.clone()),
            false => part.broadcast_as(shape)?.contiguous(),
        }
    });
    let repeated = repeated.collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&repeated, axis)?)
}

pub(super) fn split(call: &Call) -> Outputs {
    let x = call.input(0)?;
    let axis = call.axis_of_first(0)?;
    let len = x.dims()[axis];
    let sizes = match call.ints_of("split", 1)? {
        Some(given) => sizes(call, &given)?,
        None => {
            let parts = call.node.outputs.len();
            let size = len.div_ceil(parts.max(1));
            (0..parts)
                .map(|i| size.min(len.saturating_sub(i * size)))
                .collect()
        }
    };
    if sizes
        .iter()
        .try_fold(0usize, |sum, size| sum.checked_add(*size))
        != Some(len)
        || sizes.len() < call.node.outputs.len()
    {
        return Err(call.problem(format_args!(
            "splits an axis of {len} into {} parts of sizes {sizes:?}",
            call.node.outputs.len()
        )));
    }
    let mut start = 0;
    let parts = sizes.into_iter().map(|size| {
        start += size;
        x.narrow(axis, start - size, size)
    });
    Ok(parts.collect::<candle_core::Result<Vec<_>>>()?)
}

pub(super) fn slice(call: &Call) -> Result<Tensor, Failure> {
    let mut x = call.input(0)?.clone();
    let (starts, ends) = (call.ints(1)?, call.ints(2)?);
    let axes = match call.optional(3) {
        Some(_) => call.ints(3)?,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match call.optional(4) {
        Some(_) => call.ints(4)?,
        None => vec![1; starts.len()],
    };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(call.problem("has different numbers of starts, ends, axes and steps"));
    }
    for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
        let axis = call.axis(axis, x.rank())?;
        let [start, end] = [start, end].map(|i| from_start(i, x.dims()[axis]));
        let len = x.dims()[axis] as i64;
        let picked: Vec<i64> = match step {
            0 => return Err(call.problem("has a step of 0")),
            1.. => {
                let start = start.clamp(0, len);
                let end = end.clamp(start, len);
                if step == 1 {
                    x = x.narrow(axis, start as usize, (end - start) as usize)?;
                    continue;
                }
                let step = usize::try_from(step).unwrap_or(usize::MAX);
                (start..end).step_by(step).collect()
            }
            _ => {
                // From the start down, without the end.
                let start = start.clamp(-1, len - 1);
                let end = end.clamp(-1, start);
                let step = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
                (end + 1..=start).rev().step_by(step).collect()
            }
        };
        let len = picked.len();
        let picked: Vec<u32> = picked.into_iter().map(|i| i as u32).collect();
        let picked = Tensor::from_vec(picked, len, x.device())?;
        x = x.contiguous()?.index_select(&picked, axis)?;
    }
    Ok(x)
}

/// Indices into an axis of `len` entries; negative ones count from the end.
fn indices(call: &Call, len: usize, device: &Device) -> Result<Tensor, Failure> {
    let given = call.input(1)?;
    let found = call.ints(1)?.into_iter().map(|i| {
        let found = index(i, len).and_then(|index| u32::try_from(index).ok());
        found.ok_or(i)
    });
    let found = found.collect::<Result<Vec<u32>, i64>>();
    let found = found.map_err(|i| call.problem(format_args!("reads entry {i} of {len}")))?;
    Ok(Tensor::from_vec(found, given.shape(), device)?)
}

pub(super) fn gather(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let axis = call.axis_of_first(0)?;
    let indices = indices(call, x.dims()[axis], x.device())?;
    let (before, after) = (&x.dims()[..axis], &x.dims()[axis + 1..]);
    let shape = [before, indices.dims(), after].concat();
    call.check_size(&shape)?;
    let rows = x
        .contiguous()?
        .index_select(&indices.flatten_all()?, axis)?;
    Ok(rows.reshape(shape)?)
}

pub(super) fn gather_elements(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let axis = call.axis_of_first(0)?;
    let indices = indices(call, x.dims()[axis], x.device())?;
    Ok(x.contiguous()?.gather(&indices, axis)?)
}

pub(super) fn expand(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let target = sizes(call, &call.ints(1)?)?;
    Ok(x.broadcast_as(broadcast_shape(call, &[x.dims(), &target])?)?)
}

pub(super) fn tile(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let repeats = sizes(call, &call.ints(1)?)?;
    if repeats.len() != x.rank() {
        return Err(call.problem(format_args!(
            "has the repeats {repeats:?} for {} axes",
            x.rank()
        )));
    }
    let pairs = x.dims().iter().zip(&repeats);
    let dims: Option<Vec<usize>> = pairs
        .map(|(size, times)| size.checked_mul(*times))
        .collect();
    call.check_size(&dims.unwrap_or_else(|| vec![usize::MAX]))?;
    let mut x = x.clone();
    for (axis, times) in repeats
        .into_iter()
        .enumerate()
        .filter(|(_, times)| *times != 1)
    {
        let mut shape = x.dims().to_vec();
        shape[axis] *= times;
        let mut repeated = x.dims().to_vec();
        repeated.insert(axis, times);
        x = x.unsqueeze(axis)?.broadcast_as(repeated)?.reshape(shape)?;
    }
    Ok(x)
}

/// Constant padding; negative sizes cut.
pub(super) fn pad(call: &Call) -> Result<Tensor, Failure> {
    let x = call.floats(0)?;
    let mode = call.node.text_or("mode", "constant")?;
    if mode != "constant" {
        return Err(call.problem(format_args!(
            "has the mode `{mode}`, and only `constant` is supported"
        )));
    }
    let pads = call.ints(1)?;
    let axes = match call.optional(3) {
        Some(_) => call.ints(3)?,
        None => (0..x.rank() as i64).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(call.problem(format_args!(
            "has {} sizes for {} axes",
            pads.len(),
            axes.len()
        )));
    }
    let value = call.number(2, 0.0)?;
    let mut y = x.clone();
    for (i, axis) in axes.iter().enumerate() {
        let axis = call.axis(*axis, x.rank())?;
        y = padded(call, &y, axis, [pads[i], pads[i + axes.len()]], value)?;
    }
    Ok(y)
}

/// Entries of `value` before and after the others of an axis. Negative sizes cut.
pub(super) fn padded(
    call: &Call,
    x: &Tensor,
    axis: usize,
    sizes: [i64; 2],
    value: f64,
) -> Result<Tensor, Failure> {
    let len = x.dims()[axis];
    let cut = sizes.map(|size| usize::try_from(size.min(0).unsigned_abs()).unwrap_or(usize::MAX));
    let added = sizes.map(|size| usize::try_from(size.max(0)).unwrap_or(usize::MAX));
    let kept = len
        .checked_sub(cut[0])
        .and_then(|len| len.checked_sub(cut[1]));
    let kept = kept.ok_or_else(|| call.problem(format_args!("cuts {cut:?} of {len} entries")))?;
    let x = if kept == len {
        x.clone()
    } else {
        x.narrow(axis, cut[0], kept)?
    };
    let block = |size: usize| -> Result<Option<Tensor>, Failure> {
        let mut shape = x.dims().to_vec();
        shape[axis] = size;
        call.check_size(&shape)?;
        let block = || Tensor::full(value, shape, x.device())?.to_dtype(x.dtype());
        Ok((size > 0).then(block).transpose()?)
    };
    let parts = [block(added[0])?, Some(x.clone()), block(added[1])?];
    let parts: Vec<Tensor> = parts.into_iter().flatten().collect();
    match &parts[..] {
        [x] => Ok(x.clone()),
        parts => Ok(Tensor::cat(parts, axis)?),
    }
}

pub(super) fn constant_of_shape(call: &Call) -> Result<Tensor, Failure> {
    let shape = sizes(call, &call.ints(0)?)?;
    let value = match call.node.attributes.get("value") {
        None => Tensor::zeros(1, call.dtype, call.device)?,
        Some(Attribute::Tensor(value)) if value.elem_count() == 1 => value.flatten_all()?,
        Some(_) => return Err(call.problem("has a value that is not one number")),
    };
    let value = match Kind::of(&value) {
        Kind::Float => value.to_dtype(call.dtype)?.to_device(call.device)?,
        _ => value,
    };
    let value = value.reshape(vec![1; shape.len()])?;
    Ok(value.broadcast_as(shape)?.contiguous()?)
}

pub(super) fn range(call: &Call) -> Result<Tensor, Failure> {
    if Kind::of(call.input(0)?) == Kind::Float {
        let [start, end, step] = [
            call.number(0, 0.0)?,
            call.number(1, 0.0)?,
            call.number(2, 1.0)?,
        ];
        let count = ((end - start) / step).ceil();
        if count.is_nan() || count > 1e9 {
            return Err(call.problem(format_args!("has {count} entries")));
        }
        let values: Vec<f64> = (0..count.max(0.0) as usize)
            .map(|i| start + i as f64 * step)
            .collect();
        let len = values.len();
        return Ok(Tensor::from_vec(values, len, call.device)?.to_dtype(call.dtype)?);
    }
    let (start, end, step) = (call.ints(0)?, call.ints(1)?, call.ints(2)?);
    let ([start], [end], [step]) = (&start[..], &end[..], &step[..]) else {
        return Err(call.problem("needs one start, end and step"));
    };
    let wide = |x: &i64| i128::from(*x);
    let (start, end, step) = (wide(start), wide(end), wide(step));
    if step == 0 {
        return Err(call.problem("has a step of 0"));
    }
    // Rounded up.
    let count = ((end - start + step - step.signum()) / step).max(0);
    call.check_size(&[usize::try_from(count).unwrap_or(usize::MAX)])?;
    vector((0..count).map(|i| (start + i * step) as i64).collect())
}

/// The upper or lower triangle of matrices; other entries become 0.
pub(super) fn trilu(call: &Call) -> Result<Tensor, Failure> {
    let x = call.input(0)?;
    let k = match call.optional(1) {
        Some(_) => call.ints(1)?.first().copied().unwrap_or(0),
        None => 0,
    };
    let is_upper = call.node.int_or("upper", 1)? == 1;
    let [.., rows, columns] = *x.dims() else {
        return Err(call.problem("needs matrices"));
    };
    let mut kept = Vec::with_capacity(rows * columns);
    for i in 0..rows as i64 {
        let diagonal = i.saturating_add(k);
        kept.extend((0..columns as i64).map(|j| {
            u8::from(if is_upper {
                j >= diagonal
            } else {
                j <= diagonal
            })
        }));
    }
    let kept = Tensor::from_vec(kept, (rows, columns), x.device())?;
    let x = x.contiguous()?;
    let zeros = x.zeros_like()?;
    Ok(kept.broadcast_as(x.shape())?.where_cond(&x, &zeros)?)
}
