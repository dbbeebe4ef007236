"""The last layer as a label: scale, shift and the highest score in integers, on the chip."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fpga_flow.lowering.ir import bits_for
from fpga_flow.rtl.design import Integers, Stream

NAME = "label_select"
OP = "LabelSelect"
DATA = f"{NAME}.dat"
_SCALE_BITS = 18  # of the largest scale: what a multiplier of an FPGA takes


@dataclass(frozen=True)
class LabelRule:
    """``label = argmax(sums * scales + shifts)``, the lowest of equals.

    Attributes:
        scales: one a class, in units of 2^-k of the logits' scale.
        shifts: one a class, in the same units.
    """

    scales: tuple[int, ...]
    shifts: tuple[int, ...]

    @property
    def scale_bits(self) -> int:
        """Two's complement bits of a scale."""
        return bits_for(min(-1, *self.scales), max(self.scales))

    @property
    def shift_bits(self) -> int:
        """Two's complement bits of a shift."""
        return bits_for(min(-1, *self.shifts), max(self.shifts))

    def labels(self, sums: Integers) -> Integers:
        """Labels, int64 (N,), of sums (N, classes)."""
        scores = sums * np.array(self.scales) + np.array(self.shifts)
        labels: npt.NDArray[np.int64] = scores.argmax(axis=1)
        return labels

    def memory(self) -> str:
        """The words of ``label_select``'s file."""
        scale, shift = self.scale_bits, self.shift_bits
        digits = -(-(scale + shift) // 4)
        words = (
            ((b % (1 << shift)) << scale) | (m % (1 << scale))
            for m, b in zip(self.scales, self.shifts, strict=True)
        )
        return "".join(f"{word:0{digits}x}\n" for word in words)


def label_rule(scale: Sequence[float], bias: Sequence[float], classes: int) -> LabelRule:
    """Logits' scale and bias in integers.

    The largest scale gets 18 bits; rounding moves a logit by at most ``(|sum| + 1) / 2`` of its
    last place. Where all scales and all biases are equal, sums are compared as they are.

    Args:
        scale: ``logits = sums * scale + bias``; one, or one a class.
        bias: one, or one a class.
        classes: number of them.

    Example:
        >>> label_rule([0.5], [0.0], 3)
        LabelRule(scales=(1, 1, 1), shifts=(0, 0, 0))
    """
    scales = np.broadcast_to(np.array(scale, dtype=np.float64), classes)
    biases = np.broadcast_to(np.array(bias, dtype=np.float64), classes)
    if np.all(scales == scales[0]) and np.all(biases == biases[0]) and scales[0] > 0:
        return LabelRule((1,) * classes, (0,) * classes)
    places = _SCALE_BITS - 1 - np.frexp(np.abs(scales).max())[1]
    units = 2.0**places
    # A number just below a power of two could be rounded up to it.
    top = (1 << (_SCALE_BITS - 1)) - 1
    return LabelRule(
        tuple(int(m) for m in np.rint(scales * units).clip(-top, top)),
        tuple(int(b) for b in np.rint(biases * units)),
    )


def label_body(rule: LabelRule, stream: Stream) -> str:
    """SystemVerilog of the node's module, without its ports.

    Args:
        rule: scales and shifts.
        stream: the sums, one a beat.
    """
    labels = label_stream(stream.beats)
    return f"""	wire [{labels.bits - 1}:0]  odat;
	label_select #(
		.CLASSES({stream.beats}), .WIDTH({stream.bits}), .SIGNED({stream.signed:d}),
		.SCALE_WIDTH({rule.scale_bits}), .SHIFT_WIDTH({rule.shift_bits}),
		.LABEL_WIDTH({labels.bits}), .INIT_FILE("{DATA}")
	) {NAME} (
		.clk(ap_clk), .rst(!ap_rst_n),
		.idat(s_axis_tdata[{stream.bits - 1}:0]), .ivld(s_axis_tvalid), .irdy(s_axis_tready),
		.odat(odat), .ovld(m_axis_tvalid), .ordy(m_axis_tready)
	);
	assign	m_axis_tdata = odat;"""


def label_stream(classes: int) -> Stream:
    """What ``label_select`` gives: one label an image."""
    return Stream(lanes=1, bits=max(1, (classes - 1).bit_length()), signed=False, beats=1)


def label_records(last: Mapping[str, Any], rule: LabelRule) -> list[dict[str, Any]]:
    """Layer records, as of ``hardware.generate``, that turn the last layer's sums into a label.

    Args:
        last: record of the last layer.
        rule: scales and shifts.
    """
    given = Stream(**last["output"])
    one = Stream(1, given.bits, given.signed, given.lanes * given.beats)
    plain: dict[str, Any] = {"cycles": one.beats, "pe": None, "simd": None, "files": []}
    records: list[dict[str, Any]] = []
    if given.lanes > 1:
        name, converter = f"{last['name']}_dwc", "StreamingDataWidthConverter"
        streams = {"input": asdict(given), "output": asdict(one)}
        records.append({"name": name, "op": converter, **streams, **plain})
    streams = {"input": asdict(one), "output": asdict(label_stream(one.beats))}
    records.append({"name": NAME, "op": OP, **streams, **plain, "rule": rule})
    return records
