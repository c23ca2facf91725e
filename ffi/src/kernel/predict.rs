//! KOALA-M's prediction, which precedes the gradient of each step.

use koala_optim::Method;

use crate::border::guard::guarded;
use crate::border::pointers::check;
use crate::border::ranges::{NOTHING, check_apart, range_of};
use crate::border::status::koala_status;
use crate::kernel::call::Call;
use crate::kernel::list::TensorList;
use crate::kernel::tensor::{Used, koala_tensor};
use crate::words::step::koala_step;

/// KOALA-M's prediction, before the gradient of a step is taken: parameters move by their velocities h, and these
/// decay. Gradients are not looked at, nor are `step`'s loss and noise but for the sign. Then koala_method_predict
/// moves the shared numbers, by what is written here: `*distance_squared`, the sum of ‖v − θ‖² before the prediction,
/// and `*parameters`, over how many parameters. A tensor that is frozen, or of which that sum is not finite, counts
/// for neither and stays as it is.
///
/// Other methods have nothing to predict here: both are 0. Allocates nothing but what koala_step says, and uses no
/// thread but the calling one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn koala_predict_tensors(
    step: *const koala_step,
    tensors: *const koala_tensor,
    count: usize,
    distance_squared: *mut f64,
    parameters: *mut usize,
) -> koala_status {
    guarded(|| {
        check(distance_squared, "distance_squared")?;
        check(parameters, "parameters")?;
        // SAFETY: the caller's promise.
        let call = unsafe { Call::new(step) }?;
        let used = Used { gradient: false, ..call.used };
        let outputs = [("distance_squared", range_of(distance_squared, 1)), ("parameters", range_of(parameters, 1))];
        // SAFETY: the caller's promise.
        let list = unsafe { TensorList::new(&call, used, tensors, count, &outputs) }?;
        check_apart(&outputs, &call.read(step, list.range(), NOTHING))?;
        let (mut distance, mut counted) = (0.0, 0);
        list.in_parts(&call.steps()?, |_, tensors, _| {
            for stepped in tensors {
                let length = stepped.tensor.len();
                let of_tensor = stepped.tensor.any_buffers().0.predict(stepped.step)?;
                let moves = matches!(stepped.step.method, Method::KoalaM(_)) && !stepped.step.settings.frozen;
                if moves && of_tensor.is_finite() {
                    distance += of_tensor;
                    counted += length;
                }
            }
            Ok(())
        })?;
        // SAFETY: not NULL, aligned, and the caller's to write.
        unsafe {
            distance_squared.write(distance);
            parameters.write(counted);
        }
        Ok(())
    })
}
