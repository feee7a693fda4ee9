//! [`ImageRows`]: images and labels of IDX files that need not fit into memory, a range of samples at a time.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use flate2::read::GzDecoder;

use super::super::stored_rows::StoredRows;
use super::array::{Header, IdxArray, damaged, is_gzipped};
use super::{ADVICE, Images, check_labels};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::files::unreadable;

/// Rows of an IDX file, along its first axis.
pub(super) struct IdxRows {
    path: PathBuf,
    header: Header,
    source: Mutex<Source>,
}

/// The unpacked bytes of a file.
enum Source {
    Plain(File),
    Gzipped {
        decoder: Box<GzDecoder<BufReader<File>>>,
        /// Number of unpacked bytes that have been read.
        position: usize,
    },
}

impl Source {
    /// Reads `count` bytes from `start` on. Gzipped data before them is unpacked, from the start of the file if they are behind.
    fn read(&mut self, path: &Path, start: usize, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        match self {
            Self::Plain(file) => {
                file.seek(SeekFrom::Start(start as u64))?;
                file.read_exact(&mut bytes)?;
            }
            Self::Gzipped { decoder, position } => {
                if *position > start {
                    **decoder = GzDecoder::new(BufReader::new(File::open(path)?));
                    *position = 0;
                }
                let skipped = (start - *position) as u64;
                io::copy(&mut decoder.take(skipped), &mut io::sink())?;
                decoder.read_exact(&mut bytes)?;
                *position = start + count;
            }
        }
        Ok(bytes)
    }

    /// Returns an error if gzipped data does not end here, or if its checksum is wrong.
    fn check_end(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Gzipped { decoder, .. } => match decoder.read(&mut [0])? {
                0 => Ok(()),
                _ => Err(io::Error::other("it is longer than its header states")),
            },
        }
    }
}

impl IdxRows {
    /// Opens the first of an unpacked and a gzipped file, and reads its header.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self> {
        let path = &paths[0];
        let unreadable = |e| unreadable(path, e, ADVICE);
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let wrong = |problem: String| Error::file(path, problem, ADVICE);
        let (header, source) = match is_gzipped(path) {
            false => {
                let header = Header::read(&mut &file, false, size).map_err(wrong)?;
                (header, Source::Plain(file))
            }
            true => {
                let mut decoder = Box::new(GzDecoder::new(BufReader::new(file)));
                let header = Header::read(&mut *decoder, true, size).map_err(wrong)?;
                let position = header.bytes.len();
                (header, Source::Gzipped { decoder, position })
            }
        };
        Ok(Self {
            path: path.clone(),
            header,
            source: Mutex::new(source),
        })
    }

    /// Numbers in a row.
    fn width(&self) -> usize {
        self.header.dims[1..].iter().product()
    }

    /// The rows in `range`, as a file of their own.
    fn read(&self, range: Range<usize>) -> Result<IdxArray> {
        let mut content = self.header.bytes.clone();
        let size = self.header.element.size() * self.width();
        let start = content.len() + size * range.start;
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = source.read(&self.path, start, size * range.len());
        let rows = rows.and_then(|rows| {
            if range.end == self.header.dims[0] {
                source.check_end()?;
            }
            Ok(rows)
        });
        drop(source);
        let rows = rows.map_err(|e| Error::file(&self.path, damaged(e), ADVICE))?;
        // The first axis follows the type and the number of axes.
        content[4..8].copy_from_slice(&(range.len() as u32).to_be_bytes());
        content.extend(rows);
        let mut dims = self.header.dims.clone();
        dims[0] = range.len();
        Ok(IdxArray {
            path: self.path.clone(),
            element: self.header.element,
            dims,
            content,
        })
    }
}

/// Images and labels of IDX files.
pub(super) struct ImageRows {
    images: IdxRows,
    labels: IdxRows,
}

impl ImageRows {
    pub(super) fn new(images: IdxRows, labels: IdxRows) -> Result<Self> {
        let n = images.header.dims[0];
        check_labels(&labels.path, n, &labels.header.dims)?;
        Ok(Self { images, labels })
    }
}

impl StoredRows for ImageRows {
    fn path(&self) -> &Path {
        &self.images.path
    }

    fn len(&self) -> usize {
        self.images.header.dims[0]
    }

    fn bytes_per_sample(&self, dtype: DType) -> usize {
        let label = match self.labels_per_sample() {
            Some(_) => DType::U32,
            None => dtype,
        };
        self.images.width() * dtype.size_in_bytes() + label.size_in_bytes()
    }

    fn labels_per_sample(&self) -> Option<usize> {
        (!self.labels.header.element.is_float()).then_some(1)
    }

    fn labels(&self, range: Range<usize>) -> Result<Tensor> {
        let labels = self.labels.read(range.clone())?.labels(range.start)?;
        Ok(Tensor::from_vec(labels, range.len(), &Device::Cpu)?)
    }

    fn read(&self, range: Range<usize>, device: &Device) -> Result<Dataset> {
        let first = range.start;
        let images = Images {
            images: self.images.read(range.clone())?,
            labels: self.labels.read(range)?,
            first,
        };
        images.samples(device)
    }
}
