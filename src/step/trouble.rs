//! What becomes of a tensor that cannot be stepped: an error, where the policy says so.

use crate::methods::plan::{Outcome, Plan, Trouble};
use crate::simd::vector::Operand;
use crate::step::buffers::Buffers;
use crate::types::element::Element;
use crate::types::error::Error;
use crate::types::settings::{OnBreakdown, OnNonFinite, Policy};

/// The error that the policy makes of a plan, if it does.
#[inline(always)]
pub(crate) fn error_of<P: Operand, S: Element>(
    policy: Policy,
    plan: &Plan,
    buffers: &Buffers<'_, P, S>,
) -> Option<Error> {
    plan.trouble.and_then(|trouble| error_of_trouble(policy, plan.report.outcome, trouble, buffers))
}

#[cold]
fn error_of_trouble<P: Operand, S: Element>(
    policy: Policy,
    outcome: Outcome,
    trouble: Trouble,
    buffers: &Buffers<'_, P, S>,
) -> Option<Error> {
    let culprit = |elements: &[P]| elements.iter().map(|x| x.to_f64()).find(|x| !x.is_finite());
    let trouble = match outcome {
        Outcome::NonFinite if policy.non_finite == OnNonFinite::Error => {
            match (culprit(buffers.gradient), culprit(buffers.parameters)) {
                (Some(value), _) => Trouble { quantity: "an element of the gradient", value },
                (None, Some(value)) => Trouble { quantity: "an element of the parameters", value },
                (None, None) => trouble,
            }
        }
        _ => trouble,
    };
    error(policy, outcome, trouble)
}

/// The error that the policy makes of a plan, if it does, where there are no elements to be named in it.
pub(crate) fn error_without_elements(policy: Policy, plan: &Plan) -> Option<Error> {
    plan.trouble.and_then(|trouble| error(policy, plan.report.outcome, trouble))
}

fn error(policy: Policy, outcome: Outcome, Trouble { quantity, value }: Trouble) -> Option<Error> {
    let tensor = String::new();
    match outcome {
        Outcome::NonFinite if policy.non_finite == OnNonFinite::Error => {
            Some(Error::NonFinite { tensor, quantity, value })
        }
        Outcome::Breakdown if policy.breakdown == OnBreakdown::Error => {
            Some(Error::Breakdown { tensor, innovation_variance: value })
        }
        _ => None,
    }
}
