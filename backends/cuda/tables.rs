//! The tensors of a step, described in memory of the device.

use std::mem::offset_of;
use std::sync::Arc;

use super::driver::{Counted, Memory, Stream};
use super::error::Error;
use super::structs::{self, Change, ChunkRow, Group, PLAN_BYTES, ReportRow, SUMS, TensorRow};

/// The tensors of a step, as they are described on the device.
#[derive(Debug)]
pub(super) struct Tables {
    /// Whether a graph has these: then they stay as they are, but for where the gradients are, which each of its
    /// launches writes.
    pub captured: bool,
    /// Whether a step of these was put on a stream, so that there are reports of it.
    pub stepped: bool,
    pub rows: Vec<TensorRow>,
    pub groups: Vec<Group>,
    pub tensors: Memory,
    pub chunks: Memory,
    pub partials: Memory,
    pub plans: Memory,
    pub reports: Memory,
}

impl Tables {
    /// No tensors.
    pub fn empty(counted: &Arc<Counted>) -> Result<Self, Error> {
        let none = || Memory::zeroed(counted, 0);
        Ok(Tables {
            captured: false,
            stepped: false,
            rows: Vec::new(),
            groups: structs::groups(std::iter::empty(), 0),
            tensors: none()?,
            chunks: none()?,
            partials: none()?,
            plans: none()?,
            reports: none()?,
        })
    }

    /// Whether these are the tensors that are described, but for where their gradients are.
    pub fn are_of(&self, rows: &[TensorRow]) -> bool {
        let same = |(row, known): (&TensorRow, &TensorRow)| TensorRow { gradient: known.gradient, ..*row } == *known;
        rows.len() == self.rows.len() && rows.iter().zip(&self.rows).all(same)
    }

    /// What says where those of the tensors' gradients are that have moved.
    pub fn moved(&self, rows: &[TensorRow]) -> impl Iterator<Item = Change> {
        let changes = self.gradients(rows).zip(rows.iter().zip(&self.rows));
        changes.filter(|(_, (row, known))| row.gradient != known.gradient).map(|(change, _)| change)
    }

    /// What says where the tensors' gradients are.
    pub fn gradients(&self, rows: &[TensorRow]) -> impl Iterator<Item = Change> {
        let places =
            (self.tensors.address() + offset_of!(TensorRow, gradient) as u64..).step_by(size_of::<TensorRow>());
        places.zip(rows).map(|(place, row)| Change { place, word: row.gradient })
    }

    /// Describes other tensors, in the same memory if it is large enough. What is on the stream is done with it by
    /// then.
    pub fn describe(
        &mut self,
        counted: &Arc<Counted>,
        stream: Stream,
        rows: &[TensorRow],
        group_bytes: usize,
    ) -> Result<(), Error> {
        // Until all is written, there are no tensors.
        self.rows.clear();
        self.stepped = false;
        self.groups = structs::groups(std::iter::empty(), 0);
        let chunks: Vec<ChunkRow> = structs::chunk_map(rows.iter().map(|row| row.length as usize));
        for (memory, bytes) in [
            (&mut self.tensors, size_of_val(rows)),
            (&mut self.chunks, size_of_val(&*chunks)),
            (&mut self.partials, chunks.len() * SUMS * size_of::<f64>()),
            (&mut self.plans, rows.len() * PLAN_BYTES),
            (&mut self.reports, size_of::<ReportRow>() * rows.len()),
        ] {
            if memory.bytes() < bytes {
                *memory = Memory::zeroed(counted, bytes)?;
            }
        }
        self.tensors.write(stream, rows)?;
        self.chunks.write(stream, &chunks)?;
        self.groups = structs::groups(rows.iter().map(|row| (row.length as usize, bytes_to_read(row))), group_bytes);
        self.rows.extend_from_slice(rows);
        Ok(())
    }
}

/// Those of parameters, gradient, v and h.
fn bytes_to_read(row: &TensorRow) -> usize {
    let size = |number: u32| [4, 8, 2, 2][number as usize];
    2 * row.length as usize * (size(row.parameters_type) + size(row.state_type))
}
