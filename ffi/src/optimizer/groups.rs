//! The groups of an optimizer, and their settings.

use crate::border::growing::{Output, copy_or_default, look};
use crate::border::guard::guarded;
use crate::border::pointers::Place;
use crate::border::ranges::{bytes_at, check_apart};
use crate::border::status::koala_status;
use crate::optimizer::handle::{Handle, koala_optimizer};
use crate::words::settings::{koala_settings, settings_of, settings_to_c};

/// Makes a group of tensors with the same settings; `settings` may be NULL, for the defaults. Groups have the numbers
/// from 0 on, in the order in which they are made. Allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_add_group(
    optimizer: *mut koala_optimizer,
    settings: *const koala_settings,
    group: *mut u32,
) -> koala_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (group, given) = unsafe { (Place::needed(group, "group")?, copy_or_default(settings)?) };
        check_apart(&[("group", group.range())], &[("settings", bytes_at(settings, given.size))])?;
        let settings = settings_of(&given)?;
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        let number = inner.groups.add(|| inner.optimizer.add_group(settings))?;
        group.write(number)
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
        output.write(&settings_to_c(&inner.optimizer.settings(inner.groups.get(group)?)?))
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
        let settings = settings_of(unsafe { look(settings) }?)?;
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        Ok(inner.optimizer.set_settings(inner.groups.get(group)?, settings)?)
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
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        Ok(inner.optimizer.set_learning_rate(inner.groups.get(group)?, learning_rate)?)
    })
}
