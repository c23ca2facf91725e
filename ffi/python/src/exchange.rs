//! Where a framework's tensors are, and how they lie: asked for all of them in one call, by the table of functions that
//! DLPack 1.3 has frameworks export for that (`__dlpack_c_exchange_api__`).

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

/// DLPack's `DLTensor`: a view of an array, which owns nothing.
#[repr(C)]
pub struct View {
    data: *mut c_void,
    device: [i32; 2],
    dimensions: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    extents: *const i64,
    strides: *const i64,
    offset: u64,
}

/// DLPack's `DLPackExchangeAPI`, as far as it is used.
#[repr(C)]
pub struct ExchangeApi {
    major: u32,
    minor: u32,
    previous: *const c_void,
    unused: [*const c_void; 3],
    view_of: Option<ViewOf>,
}

/// Fills a view of an object, or sets Python's error and returns another number than 0.
pub type ViewOf = unsafe extern "C" fn(object: *mut c_void, view: *mut View) -> c_int;

/// `PyList_GetItem`: a reference that the list owns, or NULL.
pub type GetItem = unsafe extern "C" fn(list: *mut c_void, place: isize) -> *mut c_void;

/// No tensor of more dimensions is described.
const DIMENSIONS: usize = 8;

/// Everything about a tensor but its address.
#[repr(C)]
pub struct Layout {
    device: [i32; 2],
    dimensions: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    extents: [i64; DIMENSIONS],
    strides: [i64; DIMENSIONS],
}

/// How large a layout is, in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn koala_layout_size() -> usize {
    size_of::<Layout>()
}

/// Describes tensors, and says where they are.
///
/// Returns how many of them it has described: fewer than `count` if the next one is `none`, is no tensor that can be
/// viewed (then Python's error is set), or has too many dimensions; or if the table is of another version.
///
/// # Safety
/// The caller holds Python's lock. `api` is what the tensors' type exports; `list` is a list of `count` of that type, or
/// `none`; `layouts` and `addresses` have room for as many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_record_layouts(
    api: *const ExchangeApi,
    get_item: GetItem,
    list: *mut c_void,
    count: usize,
    none: *mut c_void,
    layouts: *mut Layout,
    addresses: *mut u64,
) -> usize {
    let record = |place: usize, view: &View| {
        // SAFETY: the view is of an object that lives.
        let Some(layout) = (unsafe { layout_of(view) }) else { return false };
        // SAFETY: there is room for it, by the caller's promise.
        unsafe { layouts.add(place).write(layout) };
        true
    };
    // SAFETY: the caller's promise.
    unsafe { walk(api, get_item, list, count, none, addresses, record) }
}

/// Says where tensors are, as long as they lie as the layouts say.
///
/// Returns how many in a row do; see [`koala_record_layouts`] for what else ends it.
///
/// # Safety
/// As there, and `layouts` have been recorded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_compare_layouts(
    api: *const ExchangeApi,
    get_item: GetItem,
    list: *mut c_void,
    count: usize,
    none: *mut c_void,
    layouts: *const Layout,
    addresses: *mut u64,
) -> usize {
    // SAFETY: it was recorded, by the caller's promise; the view is of an object that lives.
    let is_as_before = |place: usize, view: &View| unsafe { lies_as(view, &*layouts.add(place)) };
    // SAFETY: the caller's promise.
    unsafe { walk(api, get_item, list, count, none, addresses, is_as_before) }
}

/// Goes on for as long as `take` does.
///
/// # Safety
/// As `koala_record_layouts`.
unsafe fn walk(
    api: *const ExchangeApi,
    get_item: GetItem,
    list: *mut c_void,
    count: usize,
    none: *mut c_void,
    addresses: *mut u64,
    mut take: impl FnMut(usize, &View) -> bool,
) -> usize {
    // SAFETY: the caller's promise.
    let Some(view_of) = (unsafe { view_of(api) }) else { return 0 };
    for place in 0..count {
        // SAFETY: the caller's promise.
        let object = unsafe { get_item(list, place as isize) };
        if object.is_null() || object == none {
            return place;
        }
        // SAFETY: an object of the type that exports the function.
        match unsafe { view(view_of, object) } {
            // SAFETY: there is room for it.
            Some(view) if take(place, &view) => unsafe { addresses.add(place).write(address_of(&view)) },
            _ => return place,
        }
    }
    count
}

/// The function of a table that fills a view, if the table is of a version that is known.
///
/// # Safety
/// `api` is such a table.
pub unsafe fn view_of(api: *const ExchangeApi) -> Option<ViewOf> {
    // SAFETY: the caller's promise; of a table of any version, the beginning is the same.
    let api = unsafe { &*api };
    api.view_of.filter(|_| api.major == 1)
}

/// A view of an object; None, with Python's error set, if it has none.
///
/// # Safety
/// The object is alive, and of the type that exports the function.
pub unsafe fn view(view_of: ViewOf, object: *mut c_void) -> Option<View> {
    let mut view = MaybeUninit::uninit();
    // SAFETY: the caller's promise; the function fills the view unless it fails.
    unsafe { (view_of(object, view.as_mut_ptr()) == 0).then(|| view.assume_init()) }
}

/// Where the first element is.
pub fn address_of(view: &View) -> u64 {
    (view.data.addr() as u64).wrapping_add(view.offset)
}

/// # Safety
/// The view's arrays are there.
unsafe fn layout_of(view: &View) -> Option<Layout> {
    let count = usize::try_from(view.dimensions).ok().filter(|count| *count <= DIMENSIONS)?;
    // DLPack 1.2 and later always gives strides.
    if count > 0 && (view.extents.is_null() || view.strides.is_null()) {
        return None;
    }
    let mut layout = Layout {
        device: view.device,
        dimensions: view.dimensions,
        code: view.code,
        bits: view.bits,
        lanes: view.lanes,
        extents: [0; DIMENSIONS],
        strides: [0; DIMENSIONS],
    };
    for dimension in 0..count {
        // SAFETY: arrays of that many, by the caller's promise.
        unsafe {
            layout.extents[dimension] = *view.extents.add(dimension);
            layout.strides[dimension] = *view.strides.add(dimension);
        }
    }
    Some(layout)
}

/// Whether a tensor lies as that layout says.
///
/// # Safety
/// The view's arrays are there.
pub unsafe fn lies_as(view: &View, layout: &Layout) -> bool {
    let (seen, known) = ((view.code, view.bits, view.lanes), (layout.code, layout.bits, layout.lanes));
    view.dimensions == layout.dimensions
        && seen == known
        && view.device == layout.device
        && (0..view.dimensions as usize).all(|dimension| {
            // SAFETY: arrays of that many, as in a view of which such a layout was made.
            let lies = unsafe { (*view.extents.add(dimension), *view.strides.add(dimension)) };
            lies == (layout.extents[dimension], layout.strides[dimension])
        })
}
