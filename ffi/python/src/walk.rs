//! A walk over all parameters of a table, in each step: whether parameters and gradients lie as they did, and where the
//! gradients are now.

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::exchange::{ExchangeApi, Layout, ViewOf, address_of, lies_as, view, view_of};

type Object = *mut c_void;

/// What a walk needs of CPython and of PyTorch.
#[repr(C)]
pub struct Tools {
    /// What PyTorch's tensors export.
    exchange: *const ExchangeApi,
    /// `PyObject_GetAttr`: a new reference, or NULL with an error set.
    get_attribute: unsafe extern "C" fn(object: Object, name: Object) -> Object,
    /// `PyObject_CallFunctionObjArgs`, whose arguments end with NULL: a new reference, or NULL with an error set.
    call: unsafe extern "C" fn(function: Object, ...) -> Object,
    /// `PyList_SetItem`, which takes the reference over.
    set_item: unsafe extern "C" fn(list: Object, place: isize, item: Object) -> i32,
    /// `Py_DecRef`.
    release: unsafe extern "C" fn(object: Object),
    /// The text "grad".
    gradient: Object,
    /// `Tensor.is_neg`.
    is_negated: Object,
    none: Object,
    no: Object,
}

/// The parameters of a table, and what the last look at them found.
#[repr(C)]
pub struct Known {
    count: usize,
    parameters: *const Object,
    layouts: *const Layout,
    addresses: *const u64,
    /// 1 for each parameter with a gradient, 0 for the others.
    present: *const u8,
    /// Those of the gradients that there are.
    gradient_layouts: *const Layout,
    /// Where the address of the first of these gradients is to be written, and how many bytes farther on the next one's.
    first: *mut u8,
    stride: usize,
}

/// Whether all parameters lie where and as they did, those that had a gradient have one again, which lies as it did and
/// holds its numbers and not their opposites, and the others have none. Then the addresses of the gradients have been
/// written, and `kept` has them. Where one has an error of Python, that is set.
///
/// # Safety
/// The caller holds Python's lock. All that `tools` and `known` lead to is alive and as they say; the parameters are
/// tensors; `kept` is a list of as many items as there are gradients.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_walk(tools: *const Tools, known: *const Known, kept: Object) -> bool {
    // SAFETY: the caller's promise.
    let (tools, known) = unsafe { (&*tools, &*known) };
    // SAFETY: the caller's promise.
    let Some(view_of) = (unsafe { view_of(tools.exchange) }) else { return false };
    let mut found = 0;
    for place in 0..known.count {
        // SAFETY: the caller's promise: there are so many parameters, each with a layout and an address.
        let (parameter, layout, address, has_gradient) = unsafe {
            (
                *known.parameters.add(place),
                &*known.layouts.add(place),
                *known.addresses.add(place),
                *known.present.add(place) != 0,
            )
        };
        // SAFETY: it is a tensor that is alive, and a view's arrays are there for as long as it is not changed.
        let is_as_before = unsafe { look(view_of, parameter, layout) } == Some(address);
        if !is_as_before {
            return false;
        }
        // SAFETY: an object that is alive, and a text.
        let gradient = unsafe { (tools.get_attribute)(parameter, tools.gradient) };
        if gradient.is_null() {
            return false;
        }
        if gradient == tools.none || !has_gradient {
            // SAFETY: the reference is ours.
            unsafe { (tools.release)(gradient) };
            if gradient == tools.none && !has_gradient {
                continue;
            }
            return false;
        }
        // SAFETY: the list, which takes the reference over, has that item.
        if unsafe { (tools.set_item)(kept, found as isize, gradient) } != 0 {
            return false;
        }
        // SAFETY: there is a layout for each gradient, by the caller's promise; the list keeps the gradient alive.
        let Some(address) = (unsafe { look(view_of, gradient, &*known.gradient_layouts.add(found)) }) else {
            return false;
        };
        // SAFETY: a method of the gradient, whose result is ours.
        let is_negated = unsafe {
            let answer = (tools.call)(tools.is_negated, gradient, null_mut::<c_void>());
            if !answer.is_null() {
                (tools.release)(answer);
            }
            answer != tools.no
        };
        if is_negated {
            return false;
        }
        // SAFETY: there is room for each gradient's address, by the caller's promise.
        unsafe { known.first.add(found * known.stride).cast::<u64>().write(address) };
        found += 1;
    }
    true
}

/// Where a tensor is, if it lies as the layout says. Where it cannot be viewed, Python's error is set.
///
/// # Safety
/// The object is alive, and of the type that exports the function.
unsafe fn look(view_of: ViewOf, object: Object, layout: &Layout) -> Option<u64> {
    // SAFETY: the caller's promise.
    let view = unsafe { view(view_of, object) }?;
    // SAFETY: the layout was made of such a view, whose arrays are there.
    unsafe { lies_as(&view, layout) }.then(|| address_of(&view))
}
