"""The library's methods as PyTorch's optimizers have them: what groups and states have, and numbers as a C struct."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from .._library import check, ffi, lib
from .._methods import METHODS, AdamW, KoalaM, KoalaV, Method, Sgd
from .._settings import VARIANTS, Settings, number
from ._state import STATE_DTYPES

Group = dict[str, Any]

# KOALA++ is no `Method`, since its numbers are settings of a group.
KOALA_PLUS_PLUS = "koala++"

# The entries of every group that are the same in all of them: R, how it changes, and how gradients are scaled.
SHARED = ("measurement_noise", "noise_decay", "gradient_factor", "gradient_limit")

# What a group of PyTorch's optimizers may ask for, and none of these does.
_UNKNOWN = ("dampening", "amsgrad")


class Kind:
    """What an optimizer has to know of a method, whatever its numbers are. This class is KOALA++'s; `OtherKind` is that
    of the others.

    Attributes:
        name: By which the command and other languages know it.
        entries: What each group has beside its parameters.
        shared: The entries that are the same in all groups.
        numbers: The entries that are numbers of the method itself.
        vectors: The vectors that a state may have.
        needs_loss: Whether a step needs the loss, and whole tensors.
        has_operations: Whether operations of PyTorch can step where libkoala cannot.
        learns: Whether numbers of the method move with each step.
        predicts: Whether parameters move before their gradients are taken.
        may_begin_late: Whether a vector may join a state that there is, as a momentum does that was 0.
    """

    name = KOALA_PLUS_PLUS
    title = "KoalaPlusPlus"
    entries: tuple[str, ...] = (
        *("lr", "weight_decay", "initial_variance", "process_noise", "variant", "prior_variance", "state_dtype"),
        *SHARED,
    )
    shared: tuple[str, ...] = SHARED
    numbers: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ("v", "h")
    needs_loss = True
    has_operations = True
    learns = False
    predicts = False
    may_begin_late = False

    def check_group(self, group: Group) -> None:
        """Looks at the entries that not every kind has.

        Raises:
            ValueError: One of them is out of its range, or asks for what the method does not do.
        """
        self.direction_of(group)
        settings_of(group)
        if group["state_dtype"] not in STATE_DTYPES:
            expected = ", ".join(map(str, STATE_DTYPES))
            raise ValueError(f"state_dtype is {group['state_dtype']}, expected one of {expected}")

    def direction_of(self, group: Group) -> bool:
        """Whether the parameters of a group go up the gradient.

        Raises:
            ValueError: They should, and this kind cannot.
        """
        if group.get("maximize"):
            raise ValueError("KOALA++ takes the loss towards zero: it cannot maximize")
        return False

    def vectors_of(self, group: Group) -> tuple[str, ...]:
        """The vectors in the state of a parameter of that group."""
        return self.vectors

    def settings_of(self, group: Group) -> tuple[Any, ...]:
        """The settings of a group beside its learning rate, as `fill` takes them."""
        # They are made numbers, since a tensor or an array would change in place.
        return (
            float(group["weight_decay"]),
            float(group["initial_variance"]),
            float(group["process_noise"]),
            group["variant"],
            float(group["prior_variance"]),
        )

    def fill(self, settings: Any, values: tuple[Any, ...]) -> None:
        """Writes what `settings_of` returned into a `koala_settings`."""
        settings.weight_decay, settings.initial_variance, settings.process_noise = values[:3]
        settings.variant, settings.prior_variance = number("variant", values[3], VARIANTS), values[4]

    def numbers_of(self, group: Group) -> tuple[Any, ...]:
        """The numbers of the method itself, in a group.

        Raises:
            ValueError: One is lacking, or the group asks for what the method does not do.
        """
        return ()

    def method_of(self, numbers: tuple[Any, ...]) -> Method | None:
        """The method with numbers that `numbers_of` returned.

        Raises:
            ValueError: A number is out of its range.
        """
        return None


class OtherKind(Kind):
    """What an optimizer has to know of a method that is not KOALA++."""

    def __init__(self, method: type[Method]) -> None:
        self.method = method
        self.name, self.title = method.name, method.__name__
        self.needs_loss = self.learns = method in (KoalaV, KoalaM)
        self.has_operations = False
        self.predicts = method is KoalaM
        self.may_begin_late = method is Sgd
        self.numbers = tuple(to_group(method()))
        moving = self.numbers if self.needs_loss else ()
        self.shared = (*moving, "method", "predicted", *SHARED)
        self.entries = ("lr", "weight_decay", "maximize", "method", "predicted", *SHARED)
        self.vectors = _vectors_of(method())

    def check_group(self, group: Group) -> None:
        """See `Kind.check_group`."""
        given = METHODS.get(group["method"])
        if given is not self.method:
            name = group["method"] if given is None else given.__name__
            raise ValueError(f"the state dict is of {name}, and this optimizer of {self.title}")
        Settings(float(group["lr"]), float(group["weight_decay"]))
        self.direction_of(group)
        self.method_of(self.numbers_of(group))

    def direction_of(self, group: Group) -> bool:
        """See `Kind.direction_of`."""
        if self.needs_loss and group["maximize"]:
            raise ValueError(f"{self.title} takes the loss towards zero: it cannot maximize")
        return bool(group["maximize"])

    def vectors_of(self, group: Group) -> tuple[str, ...]:
        """See `Kind.vectors_of`."""
        return () if self.method is Sgd and not group.get("momentum") else self.vectors

    def settings_of(self, group: Group) -> tuple[Any, ...]:
        """See `Kind.settings_of`."""
        return (float(group["weight_decay"]),)

    def fill(self, settings: Any, values: tuple[Any, ...]) -> None:
        """See `Kind.fill`."""
        (settings.weight_decay,) = values

    def numbers_of(self, group: Group) -> tuple[Any, ...]:
        """See `Kind.numbers_of`."""
        for name in self.numbers:
            if name not in group:
                lacking = ", ".join(name for name in self.numbers if name not in group)
                raise ValueError(f"a group has no {lacking}, which are numbers of {self.title}")
        for name in _UNKNOWN:
            if group.get(name):
                raise ValueError(f"{name} is {group[name]}, which {self.title} does not have here")
        if self.method is Sgd:
            return float(group["momentum"]), bool(group["nesterov"])
        if self.method is not AdamW:
            return tuple([float(group[name]) for name in self.numbers])
        try:
            beta1, beta2 = group["betas"]
        except (TypeError, ValueError):
            raise ValueError(f"betas are {group['betas']}, expected two numbers") from None
        return float(beta1), float(beta2), float(group["eps"])

    def method_of(self, numbers: tuple[Any, ...]) -> Method:
        """See `Kind.method_of`."""
        return self.method(*numbers)


class Numbers:
    """The numbers of a method that some groups have, as a `koala_method`. Those of KOALA-V and KOALA-M move with each
    step.

    Attributes:
        struct: What the next step takes: a `koala_method *`, or NULL for KOALA++.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._known: tuple[Any, ...] = ()
        # As the groups say it.
        self._given: Any = ffi.NULL
        self.struct: Any = ffi.NULL

    def take(self, numbers: tuple[Any, ...]) -> None:
        """Goes on with what `Kind.numbers_of` returned.

        Raises:
            ValueError: A number is out of its range.
        """
        if numbers != self._known:
            method = self._kind.method_of(numbers)
            self._given = ffi.NULL if method is None else method.to_c()
            self._known = numbers
        self.struct = self._given
        if self._kind.learns and not self._kind.predicts:
            # KOALA-V's prediction moves no parameter, and is a part of its step.
            self.struct = _moved(self._given, lib.koala_method_predict, 0.0, 0)

    def predict(self, distance_squared: float, parameters: int) -> Group:
        """Takes a prediction of KOALA-M into account: see `koala_method_predict`. Returns what all groups have then."""
        return self._go_on(_moved(self._given, lib.koala_method_predict, distance_squared, parameters))

    def learn(self, gain: float) -> Group:
        """Learns from a step: see `koala_method_correct`. Returns what all groups have then."""
        return self._go_on(_moved(self.struct, lib.koala_method_correct, gain))

    def _go_on(self, struct: Any) -> Group:
        entries = {name: getattr(struct, name) for name in self._kind.numbers}
        self._given, self._known = struct, tuple(entries.values())
        return entries


def _moved(struct: Any, move: Any, *arguments: Any) -> Any:
    """A copy of a `koala_method`, which that function of libkoala has moved."""
    copy = ffi.new("koala_method *", struct[0])
    check(move(copy, *arguments))
    return copy


def settings_of(group: Group) -> Settings:
    """KOALA++'s settings of a group.

    Raises:
        ValueError: One of them is out of its range.
    """
    names = ("lr", "weight_decay", "initial_variance", "process_noise", "prior_variance")
    rate, decay, variance, noise, prior = (float(group[name]) for name in names)
    return Settings(rate, decay, variance, noise, group["variant"], prior)


def to_group(method: Method) -> Group:
    """The numbers of a method as the entries of a group: those of AdamW and SGD have PyTorch's names."""
    if isinstance(method, AdamW):
        return {"betas": (method.beta1, method.beta2), "eps": method.epsilon}
    numbers: Group = asdict(method)  # type: ignore[call-overload]
    return numbers


def _vectors_of(method: Method) -> tuple[str, ...]:
    return tuple(name for name, kept in zip(("h", "v"), method.vectors) if kept)


KINDS: dict[str, Kind] = {KOALA_PLUS_PLUS: Kind(), **{name: OtherKind(method) for name, method in METHODS.items()}}


def as_now(state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict as it is now. Some ways to save make a list of a tuple; older versions had the method, with its
    numbers, in one entry, and KOALA++ without a prior variance.

    Raises:
        ValueError: Such an entry is of no method, or lacks a number.
    """
    if "param_groups" not in state_dict:
        return state_dict
    return {**state_dict, "param_groups": [_group_as_now(group) for group in state_dict["param_groups"]]}


def _group_as_now(group: Group) -> Group:
    if "variant" in group:
        return {"prior_variance": 0.0, **group}
    given = group.get("method")
    if not isinstance(given, dict):
        return {**group, "betas": tuple(group["betas"])} if isinstance(group.get("betas"), list) else group
    method = METHODS.get(given.get("name", ""))
    if method is None:
        raise ValueError(f"the method is {given}, expected one of {', '.join(METHODS)}")
    names = [field.name for field in fields(method)]  # type: ignore[arg-type]
    if {*given} != {"name", *names}:
        raise ValueError(f"the method is {given}, expected {', '.join(names)} of {method.name}")
    now = method(**{name: given[name] for name in names})
    return {"maximize": False, **group, **to_group(now), "method": method.name}
