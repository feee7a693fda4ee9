//! Parquet files of labelled images, laid out as those of public datasets: `image` with `bytes` and `path`, and `label`.

/// Types of Thrift's compact protocol.
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Physical types of Parquet.
const INT64: i64 = 2;
const BYTE_ARRAY: i64 = 6;

/// A struct in Thrift's compact protocol.
#[derive(Default)]
struct Thrift {
    bytes: Vec<u8>,
    last: u8,
}

impl Thrift {
    fn field(mut self, id: u8, kind: u8, value: &[u8]) -> Self {
        self.bytes.push(((id - self.last) << 4) | kind);
        self.bytes.extend(value);
        self.last = id;
        self
    }

    fn i32(self, id: u8, value: i64) -> Self {
        self.field(id, I32, &zigzag(value))
    }

    fn i64(self, id: u8, value: i64) -> Self {
        self.field(id, I64, &zigzag(value))
    }

    fn text(self, id: u8, value: &str) -> Self {
        self.field(id, BINARY, &text(value))
    }

    fn list(self, id: u8, kind: u8, items: &[Vec<u8>]) -> Self {
        let head = vec![((items.len() as u8) << 4) | kind];
        self.field(id, LIST, &[head, items.concat()].concat())
    }

    fn inside(self, id: u8, inner: Self) -> Self {
        self.field(id, STRUCT, &inner.end())
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn zigzag(value: i64) -> Vec<u8> {
    varint(((value << 1) ^ (value >> 63)) as u64)
}

fn text(value: &str) -> Vec<u8> {
    [varint(value.len() as u64), value.into()].concat()
}

/// A column of `count` rows: its path, its type, its definition level in all rows, and its values.
struct Column {
    path: &'static [&'static str],
    kind: i64,
    level: u8,
    values: Vec<u8>,
}

/// A file of images, given as the bytes of their files, and labels.
pub fn parquet<'a>(rows: impl Iterator<Item = (&'a [u8], u8)>) -> Vec<u8> {
    let (mut images, mut labels, mut count) = (Vec::new(), Vec::new(), 0);
    for (image, label) in rows {
        images.extend((image.len() as u32).to_le_bytes());
        images.extend(image);
        labels.extend(i64::from(label).to_le_bytes());
        count += 1;
    }
    let columns = [
        Column {
            path: &["image", "bytes"],
            kind: BYTE_ARRAY,
            level: 2,
            values: images,
        },
        Column {
            path: &["image", "path"],
            kind: BYTE_ARRAY,
            level: 1, // missing in each row
            values: Vec::new(),
        },
        Column {
            path: &["label"],
            kind: INT64,
            level: 1,
            values: labels,
        },
    ];
    let mut file = b"PAR1".to_vec();
    let chunks: Vec<_> = columns
        .iter()
        .map(|column| column.write(&mut file, count))
        .collect();
    let optional = |name: &str| Thrift::default().i32(3, 1).text(4, name);
    let leaf = |kind: i64, name: &str| Thrift::default().i32(1, kind).i32(3, 1).text(4, name);
    let schema = [
        Thrift::default().text(4, "schema").i32(5, 2),
        optional("image").i32(5, 2),
        leaf(BYTE_ARRAY, "bytes"),
        leaf(BYTE_ARRAY, "path").i32(6, 0), // UTF-8
        leaf(INT64, "label"),
    ];
    let group = Thrift::default()
        .list(1, STRUCT, &chunks)
        .i64(2, file.len() as i64)
        .i64(3, count);
    let footer = Thrift::default()
        .i32(1, 1)
        .list(2, STRUCT, &schema.map(Thrift::end))
        .i64(3, count)
        .list(4, STRUCT, &[group.end()])
        .end();
    file.extend(&footer);
    file.extend((footer.len() as u32).to_le_bytes());
    file.extend(b"PAR1");
    file
}

impl Column {
    /// Appends the column's only page to the file. Returns its description.
    fn write(&self, file: &mut Vec<u8>, count: i64) -> Vec<u8> {
        const PLAIN: i64 = 0;
        const RUN_LENGTHS: i64 = 3;
        let levels = [varint(2 * count as u64), vec![self.level]].concat();
        let mut page = (levels.len() as u32).to_le_bytes().to_vec();
        page.extend(levels);
        page.extend(&self.values);
        let size = page.len() as i64;
        let data = Thrift::default()
            .i32(1, count)
            .i32(2, PLAIN)
            .i32(3, RUN_LENGTHS)
            .i32(4, RUN_LENGTHS);
        let header = Thrift::default().i32(1, 0).i32(2, size).i32(3, size);
        let header = header.inside(5, data).end();
        let start = file.len() as i64;
        let size = header.len() as i64 + size;
        file.extend(header);
        file.extend(page);
        let path: Vec<_> = self.path.iter().map(|name| text(name)).collect();
        let encodings = [PLAIN, RUN_LENGTHS].map(zigzag);
        let column = Thrift::default()
            .i32(1, self.kind)
            .list(2, I32, &encodings)
            .list(3, BINARY, &path)
            .i32(4, 0)
            .i64(5, count)
            .i64(6, size)
            .i64(7, size)
            .i64(9, start);
        Thrift::default().i64(2, start).inside(3, column).end()
    }
}
