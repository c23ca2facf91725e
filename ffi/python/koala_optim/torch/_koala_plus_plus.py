"""`KoalaPlusPlus`, the optimizer of KOALA++, with its settings as arguments."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .._settings import OnBreakdown, OnNonFinite, Variant
from ._kinds import KINDS, KOALA_PLUS_PLUS
from ._loss import noise_rule
from ._optimizer import Optimizer
from ._ranks import ProcessGroupOrFalse, Ranks
from ._steppers import Configuration


class KoalaPlusPlus(Optimizer):
    """KOALA++ (Xia, Davtyan, Favaro, NeurIPS 2025, arXiv 2506.04432): a Kalman filter over a network's parameters.

    The parameters θ are the hidden state, the minibatch loss L is the measurement. For each tensor θ of n parameters
    with the gradient g of L, the filter keeps v = H·P, the product of measurement row and covariance, instead of the
    n × n covariance P itself. A step is, with H = g + wd·θ, the row h and the innovation variance s of the step before:

        α = H·h / h·h,   λ = (H·v + Q·H·h) / s,   w = H·v / h·h − (H·h)(h·v) / (h·h)²   (vanilla: 0)
        v' = (α − λ)·v + Q·H + (w − Q·λ)·h,       s' = H·v' + Q·H·H + R
        θ' = θ − η·(L + ½·wd·θ·θ)/s' · (v' + Q·H)

    In the definite variant α = H·v / h·v, w = −γ·H·h / h·h, and v' has (Q + γ)·H in the place of Q·H.

    On a first step h = H and v = σ·H. All tensors share the measurement noise R ← decay·R + (1 − decay)·m, with m the
    mean of the squared losses of the minibatch's samples. So a step needs the loss:

        losses = criterion(model(inputs), targets)   # reduction="none": one for each sample
        losses.mean().backward()
        optimizer.step(loss=losses)

    or `step(closure)`, or `update(loss, second_moment)`. Where only the mean L is given, m is taken to be L².

    Parameters without a gradient are left as they are. So are those whose gradient has a norm below 1e-9. As with every
    optimizer of PyTorch, a parameter that is frozen by `requires_grad_(False)` has to lose its gradient too, which
    `zero_grad()` sees to.

    On the CPU a step is one call of libkoala, on all parameters, with the same bits on every machine. Dot products are
    summed in the order of the memory, so these bits are others in channels-last order. A dense tensor in any memory
    format is stepped where it is. One whose elements lie apart is copied there and back in each step, and a gradient in
    another order than its parameter is copied. The processor must not flush denormal numbers to zero
    (`torch.set_flush_denormal`) if bits are to be the same.

    `state[parameter]` has the tensors "v" and "h", of the parameter's shape, and "scalars", four float64: h·h, h·v, s
    and the number of steps. A filter restarts if its scalars are set to zero, or if the state is not there any more.
    Between two steps, groups and state may be edited as in every optimizer of PyTorch, and tensors may be replaced by
    others of their shape, or moved in memory. Entries of other names are left alone. What all parameters share is in
    each group: R as "measurement_noise", its "noise_decay", "gradient_factor" and "gradient_limit". Edit it in all
    groups: a step raises an error where they differ.

    On an NVIDIA GPU (of compute capability 8.0 or later, with a driver for CUDA 12.0 or later) a step is a few kernels
    of libkoala on PyTorch's current stream, for all parameters together, with the CPU's bits: where the whole model is
    on one GPU or several, and no policy is "error". Nothing waits for the GPU if the loss is a tensor there, which is
    then averaged there; `report()`, `noise` and `state_dict()` wait. `lr` may be a tensor there too, of one number,
    which each step reads when it runs: where that is below zero or not finite, nothing is written, and the parameters
    count as not finite. (One on another device is waited for.) Such a step can be captured in a CUDA graph once a step
    has been taken: call `write_changes()` before the capture, and before a replay if settings have changed, but for
    what is written into such an `lr`. A replay reads loss and gradients where they were, whatever steps are taken in
    between. It is of no use any more once `load_state_dict()` or `add_param_group()` was called, the optimizer is gone,
    a parameter or its state has moved, or groups have other parameters. None of this has run on a GPU yet.

    Where torch.distributed is initialized, each process gives the loss of its own minibatch, and L and m are averaged
    over the processes, each of which counts the same, as `DistributedDataParallel` averages gradients: replicas stay
    equal to the bit. So all processes take each step together. What is not finite in one of them counts so in all, and
    an error in one is an error in all, of which none has written anything; but for a gradient that is not finite in one
    of them alone, where on_non_finite is "error". The first step compares the parameters too, and warns if they are not
    the same. A backend on the GPU, such as NCCL, averages there, and nothing waits.

    The step needs whole tensors. The parts that FullyShardedDataParallel, `fully_shard` and DeepSpeed's ZeRO make of
    them are an error, but for `per_shard=True`; a DTensor that is `Replicate()` is whole. A part that is taken out of a
    DTensor before it is given cannot be told from any other tensor.

    With `torch.amp.GradScaler`, give the loss that is not scaled: `scaler.step(optimizer, loss=losses)`. The gradients
    are divided by the scale as they are loaded, and stay as they are. On an NVIDIA GPU the kernels ask the scaler,
    nothing waits, and a step in which something was infinite counts all parameters as not finite.

    Args:
        params: Tensors, or pairs of name and tensor (so that errors have the name), or dicts with groups of either; all
            of the next seven arguments may differ from group to group.
        lr: η ≥ 0, the share of the Kalman step that is taken; without unit. Schedulers change it.
        weight_decay: wd ≥ 0, coupled.
        initial_variance: σ > 0, the variance of a parameter before the first step, in squared units of the parameter.
        process_noise: Q ≥ 0, what that variance grows by in each step.
        variant: Which covariance is reconstructed (section 3 of the paper): "symmetric", the paper's
            default, has the least Frobenius norm among the symmetric ones, "vanilla" has it among all. "definite", this
            library's own, stays positive definite.
        prior_variance: γ ≥ 0, the variance in all directions that "definite" assumes, and no other variant reads; in
            squared units of the parameter. 0 stands for the initial variance.
        state_dtype: What v and h are stored in: None, as the parameter; `torch.float32`, for parameters in half
            precision; `torch.bfloat16`, half the memory and less traffic, for some accuracy. (Parameters that are
            bfloat16 themselves lose most updates: a step below 1/512 of a weight rounds to nothing.)
        noise: "averaged", as above; or a number, R for ever.
        noise_decay: In [0, 1], of the average.
        initial_noise: R ≥ 0 before the first step, in squared units of the loss.
        gradient_factor: Above 0: what gradients are multiplied by as they are loaded, at no pass over memory: one over
            the number of minibatches, for example, that they were summed over.
        gradient_limit: Above 0: no element of a gradient, multiplied so, is taken to be farther from zero.
        on_non_finite: What to do with a parameter whose gradient, loss or scalars are NaN or infinite: "keep_tensor"
            leaves it as it is; "keep_all" leaves every parameter, and R; "error" does too, and raises. "unchecked" is
            "keep_tensor" here: only in AdamW and SGD does looking cost anything.
        on_breakdown: What to do if S would not be positive, which the recursion does not rule out: "restart" the filter
            as on a first step; "skip" leaves that parameter; "error" leaves every parameter, and raises.
        backend: Where libkoala runs: see `koala_optim.backends`. All of them give the same bits. Or "torch": operations
            of PyTorch, as on other devices.
        threads: How many threads share the parameters, each of them taking whole tensors, so that bits stay the same:
            at most 512; 0 stands for as many as there are processors for this process. With 1, none is started.
            Policies that may keep all parameters use one thread.
        fallback: For parameters that libkoala has no kernel for: "torch", the same mathematics in
            operations of PyTorch, announced by one warning; or "error".
        process_group: The processes that L and m are averaged over. None: all of them; or a
            `torch.distributed.ProcessGroup`, of those with other minibatches for the same parameters; or False, to
            average nothing, where `step` is given what is averaged already.
        per_shard: What to do with parameters of which each process has a part: False, an error; True, each process
            steps its part as a tensor of its own, which is not the step of the whole tensor, and depends on how many
            processes there are.

    Raises:
        TypeError, ValueError: An argument is not as said; a parameter is sparse, complex, a part of one that is
            divided over processes, or has elements that share their memory; a group has another value of what all
            groups share.
        BackendError: This processor lacks the backend.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        weight_decay: float = 0.0,
        initial_variance: float = 0.1,
        process_noise: float = 0.1,
        variant: Variant = "symmetric",
        prior_variance: float = 0.0,
        state_dtype: torch.dtype | None = None,
        *,
        noise: Literal["averaged"] | float = "averaged",
        noise_decay: float = 0.9,
        initial_noise: float = 1.0,
        gradient_factor: float = 1.0,
        gradient_limit: float = math.inf,
        on_non_finite: OnNonFinite = "keep_tensor",
        on_breakdown: OnBreakdown = "restart",
        backend: str = "fastest",
        threads: int = 1,
        fallback: Literal["torch", "error"] = "torch",
        process_group: ProcessGroupOrFalse = None,
        per_shard: bool = False,
    ) -> None:
        settings = (lr, weight_decay, initial_variance, process_noise, variant, prior_variance, state_dtype)
        kind = KINDS[KOALA_PLUS_PLUS]
        self._begin(
            params,
            Configuration(kind.name, on_non_finite, on_breakdown, backend, threads, fallback),
            Ranks(process_group, per_shard),
            {
                **dict(zip(kind.entries, settings)),
                **noise_rule(noise, noise_decay, initial_noise),
                "gradient_factor": gradient_factor,
                "gradient_limit": gradient_limit,
            },
        )
