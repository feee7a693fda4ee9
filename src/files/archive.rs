//! [`Archive`]: the members of a zip archive.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use zip::ZipArchive;

use super::arrays::max_size;
use crate::memory;

/// A zip archive in memory.
pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    members: HashMap<String, usize>,
    /// Bytes that further members may take.
    left: u64,
}

impl<'a> Archive<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let mut zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|e| format!("the zip archive is damaged ({e})"))?;
        let mut members = HashMap::new();
        for index in 0..zip.len() {
            let member = zip.by_index_raw(index).map_err(|e| damaged(index, e))?;
            let name = member.name().map_err(|e| damaged(index, e))?;
            members.insert(name.into_owned(), index);
        }
        Ok(Self {
            zip,
            members,
            left: max_size(bytes.len()) as u64,
        })
    }

    /// Names of the members, in the archive's order.
    pub(super) fn names(&self) -> Vec<String> {
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by_key(|(_, index)| **index);
        members.into_iter().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Content of a member.
    pub(super) fn read(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let wrong = |problem: String| format!("member `{name}` of the zip archive {problem}");
        let index = self.members.get(name);
        let index = index.ok_or_else(|| wrong("is missing".into()))?;
        let member = self
            .zip
            .by_index(*index)
            .map_err(|e| wrong(format!("cannot be read ({e})")))?;
        let (size, compressed) = (member.size(), member.compressed_size());
        if size > self.left || size > max_size(compressed as usize) as u64 {
            return Err(wrong(format!(
                "claims {size} bytes, more than its {compressed} compressed bytes can hold"
            )));
        }
        memory::check(size as f64, &format!("the bytes of `{name}`")).map_err(|e| e.to_string())?;
        self.left -= size;
        let mut content = Vec::with_capacity(size as usize);
        // One more, to notice a member that is longer than its claim.
        let read = member.take(size + 1).read_to_end(&mut content);
        read.map_err(|e| wrong(format!("is damaged ({e})")))?;
        match content.len() as u64 == size {
            true => Ok(content),
            false => Err(wrong(format!("does not have the {size} bytes it claims"))),
        }
    }
}

fn damaged(index: usize, e: impl std::fmt::Display) -> String {
    format!("member {index} of the zip archive is damaged ({e})")
}
