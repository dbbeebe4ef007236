"""Whether a quantizer class can be used: its settings, training, export, integers, FINN.

Brevitas' injectors accept any keyword: ``weight_bitwidth=4`` silently gives 8 bits. Here a
name is valid when something can read it: the quantizer's own declarations, an argument of
any of its components, or an argument of any component that Brevitas ships. The rest is tried, on
a layer of a few weights.
"""

import difflib
import inspect
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from divqat_brevitas.errors import InputError

if TYPE_CHECKING:
    from divqat_brevitas.quant.describe import Quantization

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
_COMPONENTS = ("brevitas.core", "brevitas.quant", "divqat_brevitas.quant")


@dataclass(frozen=True)
class QuantizerReport:
    """What a quantizer class can be used for.

    Attributes:
        quantization: what it does to a small layer, before any training.
        trains: None, or why no gradient passes through it, with the fix.
        lowers: None, or why the integer engine cannot take it, with the fix.
        finn: None, or why FINN cannot take it, with the fix.
    """

    quantization: "Quantization"
    trains: str | None
    lowers: str | None
    finn: str | None

    @property
    def usable(self) -> bool:
        """Whether it trains and becomes integers."""
        return self.trains is None and self.lowers is None

    def __str__(self) -> str:
        rows = (("training", self.trains), ("integer engine", self.lowers), ("FINN", self.finn))
        verdicts = [f"{name}: {'yes' if why is None else f'no, {why}'}" for name, why in rows]
        return "\n".join([self.quantization.quantizer, *(f"  {line}" for line in verdicts)])


def validate_quantizer(quantizer: Any) -> QuantizerReport:
    """Say whether a quantizer class, yours or Brevitas', can be used with DivQAT.

    Raises:
        InputError: no weight or activation quantizer; a setting that nothing reads, with the
            right name; or Brevitas cannot build it, with the reason.

    Example:
        >>> from brevitas.quant import Uint8ActPerTensorFloat, ShiftedUint8WeightPerTensorFloat
        >>> print(validate_quantizer(Uint8ActPerTensorFloat))
        Uint8ActPerTensorFloat
          training: yes
          integer engine: yes
          FINN: yes
        >>> validate_quantizer(ShiftedUint8WeightPerTensorFloat).lowers
        'its zero-point is not 0: use a symmetric quantizer (not a Shifted... class)'
        >>> validate_quantizer(Uint8ActPerTensorFloat.let(bitwidth=4))
        Traceback (most recent call last):
        ...
        divqat_brevitas.errors.InputError: quantizer setting 'bitwidth' ...
    """
    from divqat_brevitas.quant.describe import ROLES, describe

    if not hasattr(quantizer, "__dependencies__"):
        raise InputError(
            f"{quantizer!r} is no quantizer class: pass a class such as "
            "Int4WeightPerChannelFloatDivQAT, not an instance or a name."
        )
    check_settings(quantizer)
    layer, role = _small_layer(quantizer)
    if not getattr(layer, ROLES[role]).is_quant_enabled:
        raise InputError(f"{quantizer.__name__} quantizes nothing: its quantizer is disabled.")
    try:
        quantization = describe(layer, role)
    except Exception as e:  # whatever a user's components raise
        raise _unbuilt(quantizer, e) from e
    return QuantizerReport(
        quantization,
        trains=_gradient_problem(layer, role),
        lowers=quantization.integer_problem,
        finn=quantization.finn_problem,
    )


def _small_layer(quantizer: Any) -> tuple[Any, str]:
    """A layer that uses it, and the quantizer's role there."""
    import brevitas.nn as qnn
    from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjectorBase
    from brevitas.proxy.runtime_quant import ActQuantProxyFromInjectorBase
    from brevitas.quant import Int8ActPerTensorFloat

    try:
        proxy = quantizer.proxy_class
        with torch.random.fork_rng(devices=[]):  # layers draw their weights globally
            torch.manual_seed(0)
            if issubclass(proxy, WeightQuantProxyFromInjectorBase):
                layer = qnn.QuantConv2d(
                    4, 6, 3, bias=False, weight_quant=quantizer, input_quant=Int8ActPerTensorFloat
                )
                return layer, "weight"
            if issubclass(proxy, ActQuantProxyFromInjectorBase):
                return qnn.QuantIdentity(act_quant=quantizer), "activation"
    except InputError:
        raise
    except Exception as e:  # whatever a user's components raise
        raise _unbuilt(quantizer, e) from e
    raise InputError(
        f"{quantizer.__name__} quantizes neither weights nor activations (its proxy is "
        f"{proxy.__name__}): validate_quantizer checks weight_quant and act_quant classes."
    )


def _unbuilt(quantizer: Any, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(
        f"{quantizer.__name__} cannot be built or run by Brevitas ({type(error).__name__}: "
        f"{reason}). Derive it from a class that works, such as Int8WeightPerTensorFloat or "
        "Uint8ActPerTensorFloat, and set what is missing."
    )


def _gradient_problem(layer: Any, role: str) -> str | None:
    """Why a training step would not learn through the quantizer; None: it would."""
    x = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    try:
        output = layer.train()(x)
        loss = getattr(output, "value", output).square().sum()
        if loss.requires_grad:
            loss.backward()
    except Exception as e:  # whatever a user's components raise
        reason = " ".join(str(e).split())
        return f"a training step raises {type(e).__name__} ({reason})"
    gradient = layer.weight.grad if role == "weight" else x.grad
    if gradient is None or not bool(gradient.any()):
        return "no gradient passes: use straight-through rounding (brevitas.function.round_ste)"
    if not bool(gradient.isfinite().all()):
        return "its gradient is not finite: keep the scale away from 0 (scaling_min_val)"
    return None


def check_settings(injector: Any) -> None:
    """Check every setting of a quantizer class, overrides included.

    Raises:
        InputError: a name that nothing reads, with the right name; for a DivQAT quantizer a bit
            width below 2, or below 1 for one that is named SignedBinary.
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
    bases = "".join(base.__name__ for base in injector.__mro__)
    if "Learned" in bases:
        _check_bit_width(specs, least=1 if "SignedBinary" in bases else 2)


def _check_bit_width(specs: dict[str, Any], least: int) -> None:
    spec = specs.get("bit_width")
    if spec is None or spec[2]:  # computed from other settings: checked when it is known
        return
    bits = spec[1]()
    if isinstance(bits, int | float) and not (least <= bits <= 32 and bits == int(bits)):
        raise InputError(
            f"bit_width={bits!r}: this quantizer takes a whole number of bits from {least} to 32. "
            "For 1 bit use SignedBinaryWeightPerChannelFloatDivQAT or "
            "SignedBinaryActPerTensorConstDivQAT."
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
