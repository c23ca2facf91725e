"""Which parameter of a state dict is which of an optimizer: by name where both have names, else by order."""

from __future__ import annotations

from typing import Any

Groups = list[dict[str, Any]]


def identifiers_of(given: dict[str, Any]) -> list[Any]:
    """The keys of a state dict's state, in the order of the parameters."""
    return [identifier for group in given["param_groups"] for identifier in group["params"]]


def in_our_order(given: dict[str, Any], groups: Groups) -> dict[str, Any]:
    """The state dict with its groups, and the parameters in each, in the order of those groups.

    Raises:
        ValueError: The names are others, or are divided into other groups.
    """
    theirs, ours = _names(given["param_groups"]), _names(groups)
    if theirs == ours or _unknown(theirs) or _unknown(ours):
        return given
    found, wanted = ({name for names in of for name in names} for of in (theirs, ours))
    if found != wanted:
        lacking, unknown = (", ".join(sorted(names)) or "none" for names in (wanted - found, found - wanted))
        raise ValueError(f"the state dict is of another model: it lacks {lacking}; unknown are {unknown}")
    return {**given, "param_groups": [_fitting(names, given["param_groups"]) for names in ours]}


def _names(groups: Groups) -> list[list[str]]:
    return [list(group.get("param_names") or ()) for group in groups]


def _unknown(names: list[list[str]]) -> bool:
    """Whether names do not say which parameter is meant: there are none, or some of them are twice there."""
    every = [name for of_group in names for name in of_group]
    return not every or len({*every}) < len(every)


def _fitting(names: list[str], groups: Groups) -> dict[str, Any]:
    """The group of those names, in their order."""
    for group in groups:
        if {*group["param_names"]} == {*names}:
            identifiers = dict(zip(group["param_names"], group["params"]))
            return {**group, "params": [identifiers[name] for name in names], "param_names": list(names)}
    raise ValueError(f"the state dict has no group of {', '.join(names)}: these are divided into other groups there")
