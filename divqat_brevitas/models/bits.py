"""Bit widths by name: "w4a4" and the quantizers that go with it."""

import re
from dataclasses import dataclass

from torch import nn

from divqat_brevitas import quant
from divqat_brevitas.errors import InputError
from divqat_brevitas.quant.swap import swap_quantizers


@dataclass(frozen=True)
class Bits:
    """Bit widths of weights and activations, each 1, 2, 3, 4 or 8."""

    weight: int
    act: int

    def __str__(self) -> str:
        return f"w{self.weight}a{self.act}"


def parse_bits(text: str) -> Bits:
    """Read "w4a4".

    Raises:
        InputError: another form, or a bit width that is not 1, 2, 3, 4 or 8.

    Example:
        >>> parse_bits("w2a4")
        Bits(weight=2, act=4)
    """
    match = re.fullmatch(r"w([12348])a([12348])", text.lower())
    if match is None:
        raise InputError(
            f"bits={text!r}: write the bit widths of weights and activations as in 'w4a4', "
            "each 1, 2, 3, 4 or 8."
        )
    return Bits(int(match[1]), int(match[2]))


def quantize(
    model: nn.Module,
    bits: str | Bits,
    *,
    per_channel: bool = True,
    power_of_two: bool = False,
    first_bit_width: int | None = None,
    last_bit_width: int | None = None,
    join_bit_width: int | None = None,
) -> nn.Module:
    """A quantized copy of a float model at named bit widths, see ``swap_quantizers``.

    Activations of one bit are signs, -1 and +1, in place of the ReLUs.

    Args:
        model: float network for images in [0, 1].
        bits: such as "w4a4".
        per_channel: one weight scale an output channel, else one a tensor.
        power_of_two: power-of-two ("FixedPoint") scales, else float scales.
        first_bit_width: weight bit width of the first layer; None as ``bits``.
        last_bit_width: weight bit width of the last layer; None as ``bits``.
        join_bit_width: bit width of the branches of residual sums; None as the activations.
    """
    bits = bits if isinstance(bits, Bits) else parse_bits(bits)
    per = "PerChannel" if per_channel else "PerTensor"
    scale = "FixedPoint" if power_of_two else "Float"
    weight = "SignedBinary" if bits.weight == 1 else f"Int{bits.weight}"
    act = f"Uint{bits.act}ActPerTensor{scale}" if bits.act > 1 else "SignedBinaryActPerTensorConst"
    return swap_quantizers(
        model,
        weight=getattr(quant, f"{weight}Weight{per}{scale}DivQAT"),
        act=getattr(quant, f"{act}DivQAT"),
        first_bit_width=first_bit_width,
        last_bit_width=last_bit_width,
        join_bit_width=join_bit_width,
    )
