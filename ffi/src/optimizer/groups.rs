//! The groups of an optimizer, and their settings.

use crate::border::growing::{Output, copy_or_default, look};
use crate::border::guard::guarded;
use crate::border::pointers::check;
use crate::border::ranges::{bytes_at, check_apart, range_of};
use crate::border::status::koala_status;
use crate::optimizer::handle::{Handle, Inner, koala_optimizer};
use crate::words::settings::{from_c, koala_settings, to_c};

/// Makes a group of tensors with the same settings; `settings` may be NULL, for the defaults. Groups have the numbers from
/// 0 on, in the order in which they are made. Allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_add_group(
    optimizer: *mut koala_optimizer,
    settings: *const koala_settings,
    group: *mut u32,
) -> koala_status {
    guarded(|| {
        check(group, "group")?;
        // SAFETY: the caller's promise.
        let given = unsafe { copy_or_default(settings) }?;
        check_apart(&[("group", range_of(group, 1))], &[("settings", bytes_at(settings, given.size))])?;
        let settings = from_c(&given)?;
        let add = |Inner { optimizer, groups, .. }: &mut Inner| groups.add(|| optimizer.add_group(settings));
        // SAFETY: the caller's promise.
        let number = unsafe { koala_optimizer::changed(optimizer, add) }?;
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe { group.write(number) };
        Ok(())
    })
}

/// The settings of a group. Set `settings->size` before the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_settings(
    optimizer: *const koala_optimizer,
    group: u32,
    settings: *mut koala_settings,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (inner, output) = unsafe { (koala_optimizer::shared(optimizer)?, Output::needed(settings)?) };
        output.write(&to_c(&inner.optimizer.settings(inner.groups.get(group)?)?));
        Ok(())
    })
}

/// Changes the settings of a group from the next step on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_settings(
    optimizer: *mut koala_optimizer,
    group: u32,
    settings: *const koala_settings,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let settings = from_c(unsafe { look(settings) }?)?;
        let set = |inner: &mut Inner| Ok(inner.optimizer.set_settings(inner.groups.get(group)?, settings)?);
        // SAFETY: the caller's promise.
        unsafe { koala_optimizer::changed(optimizer, set) }
    })
}

/// Changes the learning rate of a group from the next step on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_learning_rate(
    optimizer: *mut koala_optimizer,
    group: u32,
    learning_rate: f64,
) -> koala_status {
    guarded(|| {
        let set = |inner: &mut Inner| Ok(inner.optimizer.set_learning_rate(inner.groups.get(group)?, learning_rate)?);
        // SAFETY: the caller's promise.
        unsafe { koala_optimizer::changed(optimizer, set) }
    })
}
