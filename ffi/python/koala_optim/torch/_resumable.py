"""What `KoalaPlusPlus` and `Koala` have in common: groups that share some entries; copies and state dicts from which a
run goes on. All of a state dict is looked at before any of it is taken over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._settings import check_scaling
from ._around import patch
from ._divided import local
from ._loss import Measurement, check_noise
from ._places import NEEDS_WHOLE, Place, check_whole, places_of
from ._ranks import Agreed, Ranks
from ._state import check_state, entries_of


class Resumable(torch.optim.Optimizer):
    """An optimizer whose groups and state are all that a run needs to go on to the bit."""

    # For torch.amp.GradScaler: step() looks at grad_scale and found_inf.
    _step_supports_amp_scaling = True

    # What a group has beside its parameters.
    _entries: ClassVar[tuple[str, ...]]
    # What of that is the same in every group: R, how it goes on, what becomes of gradients as they are loaded.
    _shared: ClassVar[tuple[str, ...]] = ("measurement_noise", "noise_decay", "gradient_factor", "gradient_limit")
    # What is in no group: copies have it, state dicts do not.
    _configuration: Any
    # Which processes step together: copies have it too.
    _ranks: Ranks

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, which may have settings of its own, as the class says.

        Raises:
            TypeError, ValueError: See the class. The group is not there then.
        """
        self._read_noise()
        shared = self.param_groups[0] if self.param_groups else self.defaults
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            group.update({name: shared[name] for name in self._shared})
            self._check(group)
            for place in places_of(self.param_groups):
                if place.group == len(self.param_groups) - 1:
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
        """Takes over, as copies, the groups and the state of an optimizer of the same kind and the same model.

        Raises:
            ValueError, TypeError: They are of another optimizer or another model, and nothing has changed.
        """
        loaded: list[dict[str, Any]] = []

        def look(optimizer: torch.optim.Optimizer, given: dict[str, Any]) -> None:
            self._check_state_dict(given)
            loaded.append(given)

        def restore(optimizer: torch.optim.Optimizer) -> None:
            # What has been loaded is cast to the parameters' types, which state is not of.
            self._restore(loaded[0])

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

    def _check_group(self, group: dict[str, Any]) -> None:
        """Looks at the entries of a group that a class has beside those of all, and has all of."""
        raise NotImplementedError

    def _check_place(self, place: Place) -> None:
        """Looks at whether a parameter can be stepped."""
        raise NotImplementedError

    def _vectors(self, group: dict[str, Any]) -> Sequence[str]:
        """Those that the state of a parameter of that group has."""
        raise NotImplementedError

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
        return self._ranks.per_shard

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
        factor = float(self.param_groups[0]["gradient_factor"])
        return factor if scale is None else factor / scale.item()

    def _share(self, **entries: Any) -> None:
        for group in self.param_groups:
            group.update(entries)

    def _check(self, group: dict[str, Any]) -> None:
        self._check_group(group)
        check_noise(group["noise_decay"], group["measurement_noise"])
        check_scaling(group["gradient_factor"], group["gradient_limit"])

    def _check_state_dict(self, given: dict[str, Any]) -> None:
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
        identifiers, places = _identifiers(given), places_of(self.param_groups)
        if len(identifiers) != len(places):
            text = f"it has {len(identifiers)} parameters, not {len(places)}"
            raise ValueError(f"the state dict is of another model: {text}")
        owners = [group for group in groups for _ in group["params"]]
        for identifier, place, group in zip(identifiers, places, owners):
            entries = given["state"].get(identifier)
            if entries:
                if place.owner is not place.parameter:
                    entries = {name: local(entry) for name, entry in entries.items()}
                check_state(place, entries, self._vectors(group))

    def _restore(self, given: dict[str, Any]) -> None:
        for identifier, place in zip(_identifiers(given), places_of(self.param_groups)):
            entries = given["state"].get(identifier)
            if entries:
                self.state[place.owner] = {name: tensor.clone() for name, tensor in entries.items()}
                vectors = self._vectors(self.param_groups[place.group])
                entries_of(place, self.state, None, vectors, self._ranks.per_shard)
        self._reset()


def _identifiers(given: dict[str, Any]) -> list[Any]:
    """The keys of a state dict's state, in the order of the parameters."""
    return [identifier for group in given["param_groups"] for identifier in group["params"]]
