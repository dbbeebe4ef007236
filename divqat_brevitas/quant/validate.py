"""Refuse quantizer settings that nothing would ever read.

Brevitas' injectors accept any keyword: ``weight_bitwidth=4`` silently gives 8 bits. Here a
name is valid when something can read it: the quantizer's own declarations, an argument of
any of its components, or an argument of any component that Brevitas ships.
"""

import difflib
import inspect
import sys
from functools import cache
from typing import Any

from divqat_brevitas.errors import InputError

# Names that layers and proxies set or read on every injector.
_FROM_LAYERS = frozenset(
    {
        "module",
        "proxy_module",
        "tracked_parameter_list",
        "act_impl",
        "passthrough_act",
        "requires_input_scale",
        "update_state_dict_impl",
        "dtype",
        "device",
        "inplace_act",
    }
)
_COMPONENTS = ("brevitas.core", "brevitas.quant", "divqat_brevitas.core", "divqat_brevitas.quant")


def validate_quantizer(injector: Any) -> None:
    """Check every setting of a quantizer class, overrides included.

    Args:
        injector: a quantizer class (``brevitas.inject.ExtendedInjector``).

    Raises:
        InputError: a name that nothing reads, with the right name; a bit width below 2.

    Example:
        >>> from divqat_brevitas.quant import Int4WeightPerChannelFloatDivQAT
        >>> validate_quantizer(Int4WeightPerChannelFloatDivQAT.let(bitwidth=4))
        Traceback (most recent call last):
        ...
        divqat_brevitas.errors.InputError: quantizer setting 'bitwidth' ...
    """
    specs: dict[str, Any] = injector.__dependencies__
    read = {argument for spec in specs.values() for argument in spec[2]} | _FROM_LAYERS
    for name in sorted(set(specs) - read):
        if name not in _vocabulary():
            near = difflib.get_close_matches(name, sorted(_vocabulary() | read), n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}" if near else "remove it"
            raise InputError(
                f"quantizer setting {name!r} is not read by anything: {hint}? "
                "(On a layer the name carries its prefix: weight_bit_width=4.)"
            )
    _check_bit_width(specs)


def _check_bit_width(specs: dict[str, Any]) -> None:
    spec = specs.get("bit_width")
    if spec is None or spec[2]:  # computed from other settings: checked when it is known
        return
    bits = spec[1]()
    if isinstance(bits, int | float) and not (2 <= bits <= 32 and bits == int(bits)):
        raise InputError(
            f"bit_width={bits!r}: a DivQAT quantizer takes a whole number of bits from 2 to 32. "
            "For 1 bit use Brevitas' SignedBinaryWeightPerTensorConst or "
            "SignedBinaryActPerTensorConst."
        )


@cache
def _vocabulary() -> frozenset[str]:
    """Every name that some quantizer declares or some component takes as an argument."""
    names = set(_FROM_LAYERS)
    for module_name, module in list(sys.modules.items()):
        if module is None or not module_name.startswith(_COMPONENTS):
            continue
        for _, member in inspect.getmembers(module, inspect.isclass):
            if not member.__module__.startswith(_COMPONENTS):
                continue
            declared = getattr(member, "__dict__", {}).get("__dependencies__")
            if declared is not None:
                names.update(declared)
                names.update(argument for spec in declared.values() for argument in spec[2])
            else:
                names.update(_arguments(member))
    return frozenset(names)


def _arguments(component: type) -> set[str]:
    try:
        return set(inspect.signature(component).parameters)
    except (TypeError, ValueError):  # a few builtins and enums have no signature
        return set()
