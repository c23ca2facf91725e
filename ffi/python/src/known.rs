//! Whether an optimizer's groups and state have the tensors that they had, and whether those of the state lie where they
//! did: asked in every step, so that no address is used that is none any more.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use crate::exchange::GetItem;

type Object = *mut c_void;

/// A tensor as PyTorch's stable interface for C has it.
type Handle = *mut c_void;

/// `PyDict_Next`: the next key and its value, which belong to the dict.
type Next = unsafe extern "C" fn(dict: Object, place: *mut isize, key: *mut Object, value: *mut Object) -> i32;

/// Functions of PyTorch's stable interface, which return 0 unless they fail. What sizes and strides lead to is the
/// tensor's.
#[repr(C)]
pub struct Torch {
    data: unsafe extern "C" fn(Handle, *mut *mut c_void) -> i32,
    dtype: unsafe extern "C" fn(Handle, *mut i32) -> i32,
    dimensions: unsafe extern "C" fn(Handle, *mut i64) -> i32,
    sizes: unsafe extern "C" fn(Handle, *mut *const i64) -> i32,
    strides: unsafe extern "C" fn(Handle, *mut *const i64) -> i32,
}

/// No tensor of more dimensions is recorded.
const DIMENSIONS: usize = 8;

/// Where a tensor is and how it lies.
#[repr(C)]
#[derive(Default)]
pub struct Record {
    data: usize,
    dimensions: usize,
    dtype: i32,
    extents: [[i64; 2]; DIMENSIONS],
}

/// How large a record is, in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn koala_record_size() -> usize {
    size_of::<Record>()
}

/// Whether a dict has those keys, in that order, and no others, each with that dict, and these in turn those values.
///
/// `known` has, for each of `count` keys: the key, its value, and of how many entries that is to be looked at; then the
/// key and the value of each of these, in the order that they have. There may be others between them.
///
/// # Safety
/// The caller holds Python's lock. `dict` is a dict, and so is each value of which entries are to be looked at; all that
/// `known` leads to is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_compare_entries(next: Next, dict: Object, known: *const Object, count: usize) -> bool {
    let mut known = known;
    let mut read = || {
        // SAFETY: the caller's promise.
        unsafe {
            known = known.add(1);
            *known.sub(1)
        }
    };
    let mut place = 0;
    for _ in 0..count {
        let (key, entries, looked_at) = (read(), read(), read().addr());
        // SAFETY: the caller's promise; nobody changes a dict meanwhile.
        if unsafe { advance(next, dict, &mut place) } != Some((key, entries)) {
            return false;
        }
        let mut place = 0;
        for _ in 0..looked_at {
            let (name, value) = (read(), read());
            loop {
                // SAFETY: as above.
                match unsafe { advance(next, entries, &mut place) } {
                    Some((other, _)) if other != name => (),
                    Some((_, found)) if found == value => break,
                    _ => return false,
                }
            }
        }
    }
    // SAFETY: as above.
    unsafe { advance(next, dict, &mut place) }.is_none()
}

/// `PyList_Size`.
type Size = unsafe extern "C" fn(list: Object) -> isize;

/// Whether a list of `count` lists has lists of those items.
///
/// `known` has, for each list: how many items it has, and then these.
///
/// # Safety
/// The caller holds Python's lock. `lists` is a list of at least as many lists; all that `known` leads to is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_compare_lists(
    size: Size,
    get_item: GetItem,
    lists: Object,
    known: *const Object,
    count: usize,
) -> bool {
    let mut known = known;
    for place in 0..count {
        // SAFETY: the caller's promise: `known` has the length of each list, and so many items behind it.
        let is_same = unsafe {
            let (list, length) = (get_item(lists, place as isize), (*known).addr());
            let items = known.add(1);
            known = items.add(length);
            size(list) == length as isize && (0..length).all(|item| get_item(list, item as isize) == *items.add(item))
        };
        if !is_same {
            return false;
        }
    }
    true
}

/// # Safety
/// Python's lock is held, and it is a dict.
unsafe fn advance(next: Next, dict: Object, place: &mut isize) -> Option<(Object, Object)> {
    let (mut key, mut value) = (null_mut(), null_mut());
    // SAFETY: the caller's promise.
    let found = unsafe { next(dict, place, &raw mut key, &raw mut value) };
    (found != 0).then_some((key, value))
}

/// Records where tensors are and how they lie. Returns how many in a row it could.
///
/// # Safety
/// The functions are PyTorch's; there are `count` handles of tensors that are alive, and room for as many records.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_record_tensors(
    torch: *const Torch,
    handles: *const Handle,
    count: usize,
    records: *mut Record,
) -> usize {
    let record = |place: usize, seen: &Seen| {
        if seen.dimensions > DIMENSIONS {
            return false;
        }
        let Seen { data, dimensions, dtype, .. } = *seen;
        let mut record = Record { data, dimensions, dtype, ..Record::default() };
        for dimension in 0..dimensions {
            // SAFETY: the tensor has that dimension.
            record.extents[dimension] = unsafe { seen.extent(dimension) };
        }
        // SAFETY: there is room for it, by the caller's promise.
        unsafe { records.add(place).write(record) };
        true
    };
    // SAFETY: the caller's promise.
    unsafe { walk(&*torch, handles, count, record) }
}

/// Returns how many tensors in a row are where they were, and lie as they did.
///
/// # Safety
/// As [`koala_record_tensors`], which has written the records.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_compare_tensors(
    torch: *const Torch,
    handles: *const Handle,
    count: usize,
    records: *const Record,
) -> usize {
    let is_as_before = |place: usize, seen: &Seen| {
        // SAFETY: it was written, by the caller's promise.
        let record = unsafe { &*records.add(place) };
        record.data == seen.data
            && record.dtype == seen.dtype
            && record.dimensions == seen.dimensions
            // SAFETY: the tensor has that dimension.
            && (0..seen.dimensions).all(|dimension| record.extents[dimension] == unsafe { seen.extent(dimension) })
    };
    // SAFETY: the caller's promise.
    unsafe { walk(&*torch, handles, count, is_as_before) }
}

/// What a tensor says of itself.
struct Seen {
    data: usize,
    dimensions: usize,
    dtype: i32,
    sizes: *const i64,
    strides: *const i64,
}

impl Seen {
    /// # Safety
    /// The tensor lives and has that dimension.
    unsafe fn extent(&self, dimension: usize) -> [i64; 2] {
        // SAFETY: the caller's promise.
        unsafe { [*self.sizes.add(dimension), *self.strides.add(dimension)] }
    }
}

/// Goes on for as long as `take` does. Returns how many it took.
///
/// # Safety
/// As `koala_record_tensors`.
unsafe fn walk(
    torch: &Torch,
    handles: *const Handle,
    count: usize,
    mut take: impl FnMut(usize, &Seen) -> bool,
) -> usize {
    for place in 0..count {
        // SAFETY: the caller's promise.
        match unsafe { look(torch, *handles.add(place)) } {
            Some(seen) if take(place, &seen) => (),
            _ => return place,
        }
    }
    count
}

/// # Safety
/// The functions are PyTorch's, and the tensor is alive for as long as the result is used.
unsafe fn look(torch: &Torch, tensor: Handle) -> Option<Seen> {
    let (mut data, mut dtype, mut dimensions) = (null_mut(), 0, 0);
    let (mut sizes, mut strides) = (null(), null());
    // SAFETY: the caller's promise; each function writes one value.
    let failed = unsafe {
        (torch.data)(tensor, &raw mut data)
            | (torch.dtype)(tensor, &raw mut dtype)
            | (torch.dimensions)(tensor, &raw mut dimensions)
            | (torch.sizes)(tensor, &raw mut sizes)
            | (torch.strides)(tensor, &raw mut strides)
    };
    let dimensions = usize::try_from(dimensions).ok().filter(|_| failed == 0)?;
    Some(Seen { data: data.addr(), dimensions, dtype, sizes, strides })
}
