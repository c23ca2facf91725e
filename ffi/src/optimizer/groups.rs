//! The groups of an optimizer, and their settings.

use koala_optim::Method;

use crate::border::failure::fail;
use crate::border::growing::{Output, copy_or_default, with};
use crate::border::guard::guarded;
use crate::border::pointers::{Place, check};
use crate::border::ranges::{bytes_at, check_apart};
use crate::border::status::koala_status;
use crate::optimizer::handle::{Handle, koala_optimizer};
use crate::words::method::{koala_method, method_of};
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
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        let (settings, method) = settings_of(&given, inner.optimizer.method())?;
        let number = inner.groups.add(|| inner.optimizer.add_group_with(settings, method))?;
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
        let group = inner.groups.get(group)?;
        output.write(&settings_to_c(&inner.optimizer.settings(group)?, &inner.optimizer.group_method(group)?))
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
        let given = unsafe { with(settings, |given| *given) }?;
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        let group = inner.groups.get(group)?;
        let (settings, method) = settings_of(&given, inner.optimizer.group_method(group)?)?;
        settings.validate()?;
        inner.optimizer.set_method(group, method)?;
        Ok(inner.optimizer.set_settings(group, settings)?)
    })
}

/// Changes the numbers of a group's method from the next step on: AdamW's betas can differ by group, for one. A new group
/// has the numbers of koala_config. Those of KOALA++ are in koala_settings instead.
///
/// Returns KOALA_STATUS_METHOD for another kind than the optimizer's, for KOALA++, for KOALA-V and KOALA-M, whose numbers
/// all tensors share, and where tensors of the group have other state vectors than the method; KOALA_STATUS_SETTING for a
/// number out of its range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_optimizer_set_method(
    optimizer: *mut koala_optimizer,
    group: u32,
    method: *const koala_method,
) -> koala_status {
    guarded(|| {
        check(method, "method")?;
        // SAFETY: the caller's promise.
        let method = unsafe { method_of(method) }?;
        // SAFETY: the caller's promise.
        let inner = &mut *unsafe { koala_optimizer::changed(optimizer) }?;
        let group = inner.groups.get(group)?;
        if matches!(method, Method::KoalaPlusPlus(_)) {
            let text = format_args!("the numbers of koala++ are those of koala_settings");
            return Err(fail(koala_status::Method, text));
        }
        Ok(inner.optimizer.set_method(group, method)?)
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
