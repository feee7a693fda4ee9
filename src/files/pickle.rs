//! [`Pickle`]: the plain values of a Python pickle. Calls and classes are kept as values: nothing is imported or executed.

use std::collections::HashMap;

/// Index of a value.
pub(super) type Id = usize;

/// A value in a pickle.
#[derive(Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or a function, such as `torch.FloatStorage`.
    Global(String),
    /// An object outside of the pickle, given by this description.
    Persistent(Id),
    /// A call or a construction, which is not executed.
    Call {
        callable: Id,
        arguments: Id,
    },
    /// Any other value, such as a float.
    Other,
}

/// The values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    /// The value that the pickle stands for.
    pub(super) root: Id,
    /// Length of the pickle in bytes.
    pub(super) len: usize,
}

impl Pickle {
    /// The value of this index.
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// All values.
    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }

    /// The name, if the value is a class or a function.
    pub(super) fn global(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }

    /// The items, if the value is a tuple or a list.
    pub(super) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The number, if the value is a non-negative integer.
    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Reads the pickle at the beginning of the bytes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            rest: bytes,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let root = loop {
            if let Some(root) = machine.step()? {
                break root;
            }
        };
        Ok(Self {
            len: bytes.len() - machine.rest.len(),
            values: machine.values,
            root,
        })
    }
}

/// Python's pickle machine. Every operation adds at most one value, so memory is proportional to the pickle's length.
struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at which the open marks are.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

const TRUNCATED: &str = "the pickle is truncated";
const DAMAGED: &str = "the pickle is damaged";

/// Classes of dictionaries.
const DICTS: [&str; 2] = ["collections.OrderedDict", "collections.defaultdict"];

impl<'a> Machine<'a> {
    /// Executes an operation. Returns the pickle's value at its end.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let [code] = self.chunk()?;
        match code {
            // PROTO, FRAME
            0x80 => drop(self.chunk::<1>()?),
            0x95 => drop(self.chunk::<8>()?),
            // STOP
            b'.' => return self.pop().map(Some),
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            // BININT, BININT1, BININT2, LONG1, LONG4
            b'J' => {
                let number = i32::from_le_bytes(self.chunk()?);
                self.push(Value::Int(number.into()));
            }
            b'K' => {
                let [number] = self.chunk()?;
                self.push(Value::Int(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.chunk()?);
                self.push(Value::Int(number.into()));
            }
            0x8a => {
                let len = self.len::<1>()?;
                self.long(len)?;
            }
            0x8b => {
                let len = self.len::<4>()?;
                self.long(len)?;
            }
            // BINFLOAT
            b'G' => {
                self.chunk::<8>()?;
                self.push(Value::Other);
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, BINSTRING, SHORT_BINSTRING
            b'X' | b'T' => self.text::<4>()?,
            0x8c | b'U' => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' => self.bytes::<4>()?,
            b'C' => self.bytes::<1>()?,
            0x8e | 0x96 => self.bytes::<8>()?,
            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(code - 0x84));
                let items = self.stack.split_off(start.ok_or(DAMAGED)?);
                self.push(Value::Tuple(items));
            }
            // EMPTY_LIST, LIST, EMPTY_SET, FROZENSET
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
            }
            // APPEND, APPENDS, ADDITEMS
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            // EMPTY_DICT, DICT
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()));
                self.set_items(&items)?;
            }
            // SETITEM, SETITEMS
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let name = format!("{}.{}", self.line()?, self.line()?);
                self.push(Value::Global(name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) =
                    (&self.values[module], &self.values[name])
                else {
                    return Err(DAMAGED.into());
                };
                let name = format!("{module}.{name}");
                self.push(Value::Global(name));
            }
            // REDUCE, NEWOBJ, NEWOBJ_EX
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments);
            }
            0x92 => {
                let (_, arguments, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callable, arguments);
            }
            // BUILD: the state of an object, such as the metadata of a state dict.
            b'b' => drop(self.pop()?),
            // BINPERSID
            b'Q' => {
                let description = self.pop()?;
                self.push(Value::Persistent(description));
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let key = self.len::<1>()?;
                self.memoize(key)?;
            }
            b'r' => {
                let key = self.len::<4>()?;
                self.memoize(key)?;
            }
            0x94 => self.memoize(self.memo.len())?,
            // BINGET, LONG_BINGET
            b'h' => {
                let key = self.len::<1>()?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.len::<4>()?;
                self.recall(key)?;
            }
            _ => {
                return Err(format!(
                    "the pickle has the operation 0x{code:02x}, which is not read"
                ));
            }
        }
        Ok(None)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*chunk)
    }

    /// A length or an index of N ≤ 8 bytes.
    fn len<const N: usize>(&mut self) -> Result<usize, String> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.chunk::<N>()?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| TRUNCATED.into())
    }

    fn line(&mut self) -> Result<String, String> {
        let len = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(len.ok_or(TRUNCATED)? + 1)?;
        Ok(String::from_utf8_lossy(&line[..line.len() - 1]).into_owned())
    }

    fn text<const N: usize>(&mut self) -> Result<(), String> {
        let len = self.len::<N>()?;
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<(), String> {
        let len = self.len::<N>()?;
        self.take(len)?;
        self.push(Value::Other);
        Ok(())
    }

    /// A little-endian integer in two's complement.
    fn long(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut word = [if negative { 0xff } else { 0 }; 8];
        self.push(match word.get_mut(..len) {
            Some(part) => {
                part.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(word))
            }
            None => Value::Other,
        });
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, String> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > bottom {
            true => self.stack.pop().ok_or_else(|| DAMAGED.into()),
            false => Err(DAMAGED.into()),
        }
    }

    /// Values above the last mark, which is removed.
    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or(DAMAGED)?;
        // Below the mark's height only if operations removed more than they may.
        match mark <= self.stack.len() {
            true => Ok(self.stack.split_off(mark)),
            false => Err(DAMAGED.into()),
        }
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| DAMAGED.into())
    }

    fn memoize(&mut self, key: usize) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<(), String> {
        let id = self.memo.get(&key).ok_or(DAMAGED)?;
        self.stack.push(*id);
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::List(list) => list.extend(items),
            // An object that is a list.
            Value::Call { .. } => {}
            _ => return Err(DAMAGED.into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(DAMAGED.into());
        };
        match &mut self.values[top] {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            // An object that is a dictionary.
            Value::Call { .. } => {}
            _ => return Err(DAMAGED.into()),
        }
        Ok(())
    }

    fn call(&mut self, callable: Id, arguments: Id) {
        let is_dict =
            matches!(&self.values[callable], Value::Global(name) if DICTS.contains(&name.as_str()));
        self.push(match is_dict {
            true => Value::Dict(self.pairs(arguments)),
            false => Value::Call {
                callable,
                arguments,
            },
        });
    }

    /// The pairs of `OrderedDict([[key, value], …])`, as Python 2 writes it.
    fn pairs(&self, arguments: Id) -> Vec<(Id, Id)> {
        let Value::Tuple(arguments) = &self.values[arguments] else {
            return Vec::new();
        };
        let Some(Value::List(pairs)) = arguments.first().map(|first| &self.values[*first]) else {
            return Vec::new();
        };
        let pairs = pairs.iter().filter_map(|pair| match &self.values[*pair] {
            Value::Tuple(pair) | Value::List(pair) => <[Id; 2]>::try_from(&pair[..]).ok(),
            _ => None,
        });
        pairs.map(|[key, value]| (key, value)).collect()
    }
}
