//! The file's format: safetensors, whose last tensor is a checksum of all bytes before it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3Default;

use super::contents::Checkpoint;
use super::data::TensorData;
use super::error::Error;
use super::header::{Header, LIBRARY_ENTRY, NOTE_PREFIX, RECORD_ENTRY, VERSION_ENTRY};
use super::record::Record;
use super::replace::check_regular;
use crate::types::element::ElementType;

const VERSION: u64 = 1;
const CHECKSUM: &str = "checksum";
const CHECKSUM_BYTES: usize = 8;

/// The bytes of the header's length, with which a file begins.
const LENGTH_BYTES: usize = 8;
/// What readers of safetensors accept.
const LARGEST_HEADER: u64 = 100_000_000;

/// An entry of the header. They are kept in order, so that the same contents give the same bytes.
#[derive(Serialize)]
#[serde(untagged)]
enum HeaderEntry {
    Metadata(BTreeMap<String, String>),
    Tensor(TensorInfo),
}

/// Writes a checkpoint.
pub fn write(checkpoint: &Checkpoint<'_>, out: &mut impl Write) -> io::Result<()> {
    // The largest elements first: so each tensor is aligned for its type, and the checksum comes last.
    let mut tensors: Vec<(&String, &TensorData)> = checkpoint.tensors.iter().collect();
    tensors.sort_by_key(|(_, tensor)| Reverse(tensor.element_type.size()));
    let mut header = BTreeMap::from([("__metadata__", HeaderEntry::Metadata(metadata(checkpoint)?))]);
    let mut end = 0;
    let mut place = |name, dtype, shape, bytes| {
        let data_offsets = (end, end + bytes);
        end += bytes;
        header.insert(name, HeaderEntry::Tensor(TensorInfo { dtype, shape, data_offsets }));
    };
    for (name, tensor) in &tensors {
        place(name, dtype(tensor.element_type), tensor.shape.clone(), tensor.bytes.len());
    }
    place(CHECKSUM, Dtype::U8, vec![CHECKSUM_BYTES], CHECKSUM_BYTES);

    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > LARGEST_HEADER {
        let why = format!("names and notes take {} bytes, more than the {LARGEST_HEADER} of safetensors", header.len());
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    let mut hash = Xxh3Default::new();
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        out.write_all(bytes)
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    tensors.iter().try_for_each(|(_, tensor)| put(&tensor.bytes))?;
    out.write_all(&hash.digest().to_be_bytes())
}

fn metadata(checkpoint: &Checkpoint<'_>) -> io::Result<BTreeMap<String, String>> {
    checkpoint.record.validate().map_err(io::Error::other)?;
    let mut metadata = BTreeMap::from([
        (VERSION_ENTRY.to_owned(), VERSION.to_string()),
        (LIBRARY_ENTRY.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        (RECORD_ENTRY.to_owned(), serde_json::to_string(&checkpoint.record)?),
    ]);
    metadata.extend(checkpoint.notes.iter().map(|(key, note)| (format!("{NOTE_PREFIX}{key}"), note.clone())));
    Ok(metadata)
}

/// Reads a checkpoint, and verifies it.
pub fn read(path: &Path) -> Result<Checkpoint<'static>, Error> {
    let mut source = Source::open(path)?;
    let Header { metadata, tensors: places } = source.header()?;
    let version =
        metadata.get(VERSION_ENTRY).ok_or_else(|| source.foreign(format!("it has no {VERSION_ENTRY} entry")))?;
    // Before the checksum, as a newer format may have another one.
    match version.parse() {
        Ok(VERSION) => {}
        Ok(found) if found > VERSION => return Err(Error::Newer { path: path.into(), found, supported: VERSION }),
        _ => return Err(source.damaged(format!("it says that its format has version {version:?}"))),
    }
    source.check_length(places.last().map_or(0, |(_, last)| last.data_offsets.1))?;

    let mut tensors = BTreeMap::new();
    let mut checksum = None;
    for (name, TensorInfo { dtype, shape, data_offsets: (start, end) }) in places {
        if name == CHECKSUM && dtype == Dtype::U8 && source.left == CHECKSUM_BYTES as u64 {
            let digest = source.hash.digest();
            checksum = Some(digest.to_be_bytes() == *source.take(end - start)?);
            continue;
        }
        let bytes = source.take(end - start)?;
        if let Some(element_type) = element_type(dtype) {
            tensors.insert(name, TensorData { element_type, shape, bytes: bytes.into() });
        }
    }
    if checksum != Some(true) {
        let what =
            if checksum.is_some() { "its checksum is not that of its bytes" } else { "its checksum is not at its end" };
        return Err(source.damaged(what.into()));
    }

    let record = metadata.get(RECORD_ENTRY).map_or("", String::as_str);
    let record: Record = serde_json::from_str(record)
        .map_err(|error| source.damaged(format!("its {RECORD_ENTRY} entry cannot be read: {error}")))?;
    record.validate().map_err(|error| source.damaged(error.to_string()))?;
    let notes = metadata.into_iter().filter_map(|(key, note)| Some((key.strip_prefix(NOTE_PREFIX)?.to_owned(), note)));
    Ok(Checkpoint { path: path.into(), record, notes: notes.collect(), tensors })
}

/// A file that is read from its beginning to its end. What is in it is trusted only when its checksum has been found right.
struct Source<'a> {
    path: &'a Path,
    file: BufReader<File>,
    /// Its bytes, and those that were not read yet.
    length: u64,
    left: u64,
    /// Of the bytes that were read.
    hash: Xxh3Default,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self, Error> {
        let open = || {
            check_regular(&fs::metadata(path)?)?;
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok(Source { path, file: BufReader::new(file), length, left: length, hash: Xxh3Default::new() })
        };
        open().map_err(|source| Error::File { path: path.into(), source })
    }

    fn foreign(&self, reason: String) -> Error {
        Error::NotACheckpoint { path: self.path.into(), reason }
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Damaged { path: self.path.into(), reason }
    }

    /// The next bytes, which the file has if nobody is just writing to it.
    fn take(&mut self, count: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut read = || {
            bytes.try_reserve_exact(count)?;
            self.file.by_ref().take(count as u64).read_to_end(&mut bytes)?;
            if bytes.len() == count { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
        };
        read().map_err(|source| Error::File { path: self.path.into(), source })?;
        self.left = self.left.saturating_sub(count as u64);
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn header(&mut self) -> Result<Header, Error> {
        if self.length < LENGTH_BYTES as u64 {
            return Err(self.foreign(format!("it has {} bytes", self.length)));
        }
        let mut count = [0; LENGTH_BYTES];
        count.copy_from_slice(&self.take(LENGTH_BYTES)?);
        let count = u64::from_le_bytes(count);
        if count > self.left.min(LARGEST_HEADER) {
            let left = self.left;
            return Err(self.foreign(format!("a header of {count} bytes would have to follow, and {left} bytes do")));
        }
        let header = self.take(count as usize)?;
        serde_json::from_slice(&header).map_err(|error| self.foreign(format!("its header cannot be read: {error}")))
    }

    fn check_length(&self, expected: usize) -> Result<(), Error> {
        let (found, expected) = (self.left, expected as u64);
        match found == expected {
            true => Ok(()),
            false => Err(self.damaged(format!("{expected} bytes have to follow its header, and {found} do"))),
        }
    }
}

fn dtype(element_type: ElementType) -> Dtype {
    match element_type {
        ElementType::F32 => Dtype::F32,
        ElementType::F64 => Dtype::F64,
        ElementType::Bf16 => Dtype::BF16,
        ElementType::F16 => Dtype::F16,
    }
}

fn element_type(dtype: Dtype) -> Option<ElementType> {
    match dtype {
        Dtype::F32 => Some(ElementType::F32),
        Dtype::F64 => Some(ElementType::F64),
        Dtype::BF16 => Some(ElementType::Bf16),
        Dtype::F16 => Some(ElementType::F16),
        _ => None,
    }
}
