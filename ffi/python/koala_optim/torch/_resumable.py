"""What an optimizer is beside its step: groups that share some entries; copies and state dicts from which it goes on.
All of a state dict is looked at before any of it is taken over.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._settings import check_scaling
from ._around import patch
from ._divided import like_owner, local
from ._kinds import Kind
from ._loss import Measurement, check_noise
from ._names import identifiers_of, in_our_order
from ._places import NEEDS_WHOLE, Place, check_whole, lend_gradients, places_of
from ._ranks import Agreed, Ranks
from ._state import check_scalars, check_state, entries_of, fitting_state, has_state
from ._steppers import Configuration

# Arguments of this package that no group has: a group of PyTorch's has some of them by other names, or none.
_NO_ENTRIES = frozenset(
    (
        *("learning_rate", "noise", "initial_noise", "initial_variance", "process_noise", "variant", "prior_variance"),
        *("state_dtype", "beta1", "beta2", "epsilon", "variance", "covariance"),
        *("velocity_variance", "velocity_decay", "velocity_noise"),
        *("on_non_finite", "on_breakdown", "backend", "threads", "fallback", "process_group", "per_shard"),
    )
)


class Resumable(torch.optim.Optimizer):
    """An optimizer whose groups and state are all that a run needs to go on to the bit."""

    # For torch.amp.GradScaler: step() looks at grad_scale and found_inf.
    _step_supports_amp_scaling = True

    # What is in no group: copies have it, state dicts do not.
    _configuration: Configuration
    # Which processes step together: copies have it too.
    _ranks: Ranks

    @property
    def _kind(self) -> Kind:
        """The method."""
        return self._configuration.kind

    @property
    def _entries(self) -> tuple[str, ...]:
        """What a group has beside its parameters."""
        return self._kind.entries

    @property
    def _shared(self) -> tuple[str, ...]:
        """What of that is the same in every group."""
        return self._kind.shared

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, which may have settings of its own, as the class says.

        Raises:
            TypeError, ValueError: See the class. The group is not there then.
        """
        self._check_names(param_group)
        self._read_noise()
        shared = self.param_groups[0] if self.param_groups else self.defaults
        for name in self._shared:
            if isinstance(param_group, dict) and param_group.get(name, shared[name]) != shared[name]:
                raise _not_shared(name, shared[name], param_group[name])
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            group.update({name: shared[name] for name in self._shared})
            self._check(group)
            for place in places_of([group], len(self.param_groups) - 1):
                self._check_place(place)
        except Exception:
            self.param_groups.pop()
            raise
        self._ranks.give(group["params"])
        self._reset()

    def state_dict(self) -> dict[str, Any]:
        """The groups, R and its rule among them, and the state, with which a run goes on to the bit. Policies, backend
        and threads are not in it: the optimizer that loads it has its own. The tensors are not copied.
        """
        self._read_noise()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over, as copies, the groups and the state of an optimizer of the same kind and the same model. v and h
        are cast to the type that the parameter's state has here. Where parameters have names on both sides, these say
        which is which; else their order does. Entries of the state that are not this optimizer's are taken over too.

        Raises:
            ValueError, TypeError: They are of another optimizer or another model, and nothing has changed.
        """
        loaded: list[tuple[Tensor, dict[str, Any]]] = []

        def look(optimizer: torch.optim.Optimizer, given: dict[str, Any]) -> dict[str, Any]:
            self._check_groups(given)
            given = in_our_order(given, self.param_groups)
            loaded.extend(self._fitting(given))
            # PyTorch would cast the state of parameters to their types.
            own = {*identifiers_of(given)}
            return {**given, "state": {key: value for key, value in given["state"].items() if key not in own}}

        def restore(optimizer: torch.optim.Optimizer) -> None:
            self.state.update(loaded)
            self._reset()

        # Last, after hooks that change the dict; and first, before hooks that look at the state.
        before = self.register_load_state_dict_pre_hook(look)
        after = self.register_load_state_dict_post_hook(restore, prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def __getstate__(self) -> dict[str, Any]:
        self._read_noise()
        return {**super().__getstate__(), "_configuration": self._configuration, "_ranks": self._ranks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Also called by load_state_dict(), which has no configuration.
        super().__setstate__(state)
        self._reset()

    def _patch_step_function(self) -> None:
        # PyTorch calls this for each new optimizer, and wraps the step of a class in its hooks.
        super()._patch_step_function()
        patch(type(self))

    def _check_place(self, place: Place) -> None:
        """Looks at whether a parameter can be stepped."""
        raise NotImplementedError

    def _entries_of(self, place: Place) -> dict[str, Tensor]:
        """Of a parameter's state, what is in this process: see `entries_of`."""
        vectors, dtype = self._kind.vectors_of(self.param_groups[place.group]), self._state_dtype(place)
        return entries_of(place, self.state, dtype, vectors, self._ranks.per_shard, self._kind.may_begin_late)

    def _read_noise(self) -> None:
        """Has the groups know R, if a device has yet to tell."""

    def _reset(self) -> None:
        """Forgets what is not in groups, state and configuration."""
        raise NotImplementedError

    def _scaler(self) -> tuple[Tensor | None, Tensor | None]:
        """What a GradScaler has said of this step: the scale of the loss, and whether something was infinite."""
        return getattr(self, "grad_scale", None), getattr(self, "found_inf", None)

    def _steps_parts(self) -> bool:
        """Whether a part of a tensor is stepped as a whole one is."""
        return self._ranks.per_shard or not self._kind.needs_loss

    def _check_entries(self) -> None:
        """Looks at whether there are groups, with all that a step takes from them.

        Raises:
            ValueError: Somebody has taken it away.
        """
        if not self.param_groups:
            raise ValueError("there is no group any more, and what all parameters share was in the groups")
        names = {"params", *self._entries}
        for index, group in enumerate(self.param_groups):
            if not names <= group.keys():
                lacking = [name for name in ("params", *self._entries) if name not in group]
                raise ValueError(f"group {index} has no {', '.join(lacking)}")

    def _check_given(self) -> None:
        """Looks at whether the parameters are those that were given, or flat pieces of them.

        Raises:
            TypeError: They are pieces, which are not to be stepped.
        """
        self._ranks.look_at(self.param_groups)
        if self._ranks.flattened and not self._steps_parts():
            for place in places_of(self.param_groups):
                check_whole(place, steps_parts=False)
            text = "a group has flat pieces in the place of its parameters"
            raise TypeError(f"{text}, as DeepSpeed's ZeRO and BF16_Optimizer put them there, but {NEEDS_WHOLE}")

    def _agree(self, measure: Callable[[], Measurement]) -> Agreed:
        """What `measure` returns, averaged over the ranks, and what their scalers found: see `Ranks.agree`."""
        return self._ranks.agree(measure, self.param_groups, self._scaler()[1])

    def _factor(self, found_inf: Tensor | None) -> float | None:
        """What gradients are to be multiplied by; None: a GradScaler found that they are not finite."""
        scale, _ = self._scaler()
        if found_inf is not None and found_inf.item():
            return None
        self._check_shared()
        factor = float(self.param_groups[0]["gradient_factor"])
        return factor if scale is None else factor / scale.item()

    def _share(self, **entries: Any) -> None:
        for group in self.param_groups:
            group.update(entries)

    def _check(self, group: dict[str, Any]) -> None:
        self._kind.check_group(group)
        check_noise(group["noise_decay"], group["measurement_noise"])
        check_scaling(group["gradient_factor"], group["gradient_limit"])

    def _check_names(self, group: Any) -> None:
        """Looks at whether a group has an argument that would have no effect there. Names that are not of this package
        may be there, as in every optimizer of PyTorch.

        Raises:
            ValueError: It has one.
        """
        names = group if isinstance(group, dict) else ()
        without_effect = sorted(_NO_ENTRIES.difference(self.defaults).intersection(names))
        if without_effect:
            text = f"a group of {type(self).__name__} has {', '.join(without_effect)}, without effect there"
            raise ValueError(f"{text}: what groups may have of their own is {', '.join(self._own_names())}")

    def _own_names(self) -> list[str]:
        """What a group may have of its own."""
        return [name for name in self.defaults if name not in self._shared]

    def _check_shared(self) -> None:
        """Looks at whether the groups still share what all share.

        Raises:
            ValueError: Somebody has changed it in one of them.
        """
        first = self.param_groups[0]
        for group in self.param_groups[1:]:
            for name in self._shared:
                if group[name] != first[name]:
                    raise _not_shared(name, first[name], group[name])

    def _check_numbers(self) -> None:
        """Looks at what the groups share before a step takes it.

        Raises:
            ValueError: They do not share it, or a number is out of its range.
        """
        self._check_shared()
        first = self.param_groups[0]
        check_noise(first["noise_decay"], first["measurement_noise"])
        check_scaling(first["gradient_factor"], first["gradient_limit"])

    def _makes_state(self) -> bool:
        """Whether a step without a loss is that of torch.distributed.checkpoint, by which it has an optimizer make its
        state: the first one, with learning rates and gradients of zero. The state is made then, and nothing else.
        """
        if self.state or any(float(group["lr"]) for group in self.param_groups):
            return False
        gradients = [(place, place.parameter.grad) for place in lend_gradients(places_of(self.param_groups))]
        given = [(place, gradient) for place, gradient in gradients if gradient is not None]
        if not given or any(bool(gradient.any()) for _, gradient in given):
            return False
        for place, _ in given:
            self._entries_of(place)
        return True

    def _state_dtype(self, place: Place, groups: list[dict[str, Any]] | None = None) -> torch.dtype | None:
        """What the vectors of a parameter are stored in; None: as the parameter."""
        dtype: torch.dtype | None = (groups or self.param_groups)[place.group].get("state_dtype")
        return dtype

    def _check_groups(self, given: dict[str, Any]) -> None:
        lacking = [name for name in ("state", "param_groups") if name not in given]
        if lacking:
            raise ValueError(f"that is no state dict of an optimizer: it has no {', '.join(lacking)}")
        groups = given["param_groups"]
        for index, group in enumerate(groups):
            lacking = [name for name in ("params", *self._entries) if name not in group]
            if lacking:
                text = f"its group {index} has no {', '.join(lacking)}"
                raise ValueError(f"the state dict is of another optimizer: {text}")
            self._check(group)
            for name in self._shared:
                if group[name] != groups[0][name]:
                    raise ValueError(f"the state dict's groups have {name} of {groups[0][name]} and {group[name]}")
            names = group.get("param_names")
            if names is not None and len(names) != len(group["params"]):
                text = f"{len(names)} names and {len(group['params'])} parameters"
                raise ValueError(f"the state dict's group {index} has {text}")

    def _fitting(self, given: dict[str, Any]) -> list[tuple[Tensor, dict[str, Any]]]:
        """The parameters, and what their state will be, of a state dict in their order."""
        identifiers, places = identifiers_of(given), places_of(self.param_groups)
        if len(identifiers) != len(places):
            text = f"it has {len(identifiers)} parameters, not {len(places)}"
            raise ValueError(f"the state dict is of another model: {text}")
        sizes = [[len(group["params"]) for group in of] for of in (given["param_groups"], self.param_groups)]
        if sizes[0] != sizes[1]:
            text = f"its groups have {sizes[0]} parameters, not {sizes[1]}"
            raise ValueError(f"the state dict is of another model: {text}")
        groups, fitting = given["param_groups"], []
        for identifier, place in zip(identifiers, places):
            entries = given["state"].get(identifier)
            if not entries:
                continue
            if not isinstance(entries, Mapping):
                raise TypeError(f"{place} has a state of type {type(entries).__name__}, expected a dict")
            own: dict[str, Any] = {}
            vectors, device = self._kind.vectors_of(groups[place.group]), place.parameter.device
            if has_state(entries, vectors):
                here = {name: local(entry) for name, entry in entries.items()}
                check_state(place, here, vectors)
                check_scalars(place, here["scalars"])
                own = _copies(fitting_state(place, here, self._state_dtype(place, groups), vectors), device)
            others = _copies({name: value for name, value in entries.items() if name not in own}, device)
            if place.owner is not place.parameter:
                own = like_owner(place.owner, own, self._ranks.per_shard)
            fitting.append((place.owner, {**own, **others}))
        return fitting


def _copies(entries: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Copies of entries, tensors among them on that device."""
    return {
        name: value.detach().to(device, copy=True) if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in entries.items()
    }


def _not_shared(name: str, shared: Any, other: Any) -> ValueError:
    text = f"it is {shared} in the first, and {other} in another one; it is an argument of the optimizer"
    return ValueError(f"{name} is shared by all groups: {text}")
