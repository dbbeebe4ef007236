"""An answer unit behind the last layer: its modules, their memories, their streams.

What the codes mean is defined in ``fpga_flow.lowering.answer``.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fpga_flow.lowering.answer import AnswerUnit, ScoreRule
from fpga_flow.lowering.ir import bits_for
from fpga_flow.rtl.design import Stream

LABEL, CODES = "LabelSelect", "AnswerCodes"
OPS = (LABEL, CODES)
_MODULES = {LABEL: "label_select", CODES: "answer_codes"}
_THRESHOLDS = "answer_thresholds.dat"
_SHOWN = "answer_misdirection.dat"


def operator(unit: AnswerUnit) -> str:
    """Which of ``OPS`` gives a unit's codes."""
    return LABEL if unit.label_only else CODES


def answer_stream(unit: AnswerUnit) -> Stream:
    """What leaves: one label an image, or one code a class."""
    beats = 1 if unit.label_only else unit.outputs
    return Stream(lanes=1, bits=unit.code_bits + unit.flagged, signed=False, beats=beats)


def answer_cycles(unit: AnswerUnit, serial: bool = False) -> int:
    """Clock cycles an image, where nothing stalls; see ``answer_codes.sv``.

    Args:
        unit: the answer codes.
        serial: scores come from an adder, bit by bit, and not from a multiplier.
    """
    classes = unit.outputs
    scores = classes * (_steps(unit.rule) + 3) if serial else classes
    if unit.label_only:
        return scores
    scores += 1 if serial else 4
    searches = max(0, unit.keep - 1) * (2 * classes + 1)
    gate = 4 if unit.decoy is not None else 0
    return scores + gate + searches + classes * (2 * _count_bits(unit) + 3)


def answer_memories(unit: AnswerUnit, serial: bool = False) -> dict[str, str]:
    """The module's memory files: name -> text; ``serial`` as of `answer_cycles`."""
    words = serial_words(unit.rule) if serial else score_words(unit.rule)
    files = {_scores_file(unit): words}
    if unit.thresholds:
        width = _threshold_bits(unit)
        # The first word is none of the thresholds: a gate's margin is there.
        levels = (-unit.margin, *unit.thresholds)
        files[_THRESHOLDS] = "".join(f"{_hex(level, width)}\n" for level in levels)
    if unit.misdirection:
        files[_SHOWN] = "".join(f"{word:x}\n" for word in _shown_words(unit))
    return files


def score_words(rule: ScoreRule) -> str:
    """A rule as the words that ``class_score.sv`` reads: shift and scale of a class."""
    scale, shift = rule.scale_bits, rule.shift_bits
    words = (
        ((b % (1 << shift)) << scale) | (m % (1 << scale))
        for m, b in zip(rule.scales, rule.shifts, strict=True)
    )
    return "".join(f"{_hex(word, scale + shift)}\n" for word in words)


def serial_words(rule: ScoreRule) -> str:
    """A rule bit by bit, as ``class_score.sv`` with SERIAL reads it."""
    bits = range(_steps(rule) - 1, -1, -1)
    # Python's shift of a negative number keeps its sign: these are two's complement bits.
    words = (
        2 * (shift >> bit & 1) + (scale >> bit & 1)
        for scale, shift in zip(rule.scales, rule.shifts, strict=True)
        for bit in bits
    )
    return "".join(f"{word}\n" for word in words)


def _shown_words(unit: AnswerUnit) -> list[int]:
    """The misdirection at { label, runner-up }; words at no pair of classes are 0."""
    classes, codes = unit.classes, range(1 << unit.code_bits)
    return [
        unit.misdirection[label * classes + second] if max(label, second) < classes else 0
        for label in codes
        for second in codes
    ]


def answer_body(unit: AnswerUnit, stream: Stream, serial: bool = False) -> str:
    """SystemVerilog of the node's module, without its ports.

    Args:
        unit: the answer codes.
        stream: the sums, one a beat.
        serial: as of `answer_cycles`.
    """
    name, bits = _MODULES[operator(unit)], unit.code_bits
    if unit.label_only:
        special = (
            f".LABEL_WIDTH({bits}), .REJECT({unit.kind == 'reject':d}),\n"
            f"		.INSTEAD({unit.instead or 0}), .KEYED({bool(unit.misdirection):d}),\n"
            f'		.SHOWN_FILE("{_SHOWN}"),'
        )
    else:
        special = (
            f".BITS({_count_bits(unit)}), .THRESHOLD_WIDTH({_threshold_bits(unit)}),\n"
            f"		.RELATIVE({unit.relative:d}), .KEEP({unit.keep}), .CODE_WIDTH({bits}),\n"
            f"		.GATED({unit.decoy is not None:d}), .DECOY({unit.decoy or 0}),\n"
            f'		.THRESHOLD_FILE("{_THRESHOLDS}"),'
        )
    return f"""	wire [{bits - 1}:0]  odat;
	wire  answered, rejected;   // for what counts rejections
	{name} #(
		.CLASSES({stream.beats}), .WIDTH({stream.bits}), .SIGNED({stream.signed:d}),
		.SCALE_WIDTH({unit.rule.scale_bits}), .SHIFT_WIDTH({unit.rule.shift_bits}),
		.SERIAL({serial:d}),
		{special} .INIT_FILE("{_scores_file(unit)}")
	) {name} (
		.clk(ap_clk), .rst(!ap_rst_n),
		.idat(s_axis_tdata[{stream.bits - 1}:0]), .ivld(s_axis_tvalid), .irdy(s_axis_tready),
		.odat(odat), .ovld(m_axis_tvalid), .ordy(m_axis_tready),
		.answered(answered), .rejected(rejected)
	);
	assign	m_axis_tdata = {"{ rejected, odat }" if unit.flagged else "odat"};"""


def answer_records(
    last: Mapping[str, Any], unit: AnswerUnit, pace: int = 0
) -> list[dict[str, Any]]:
    """Layer records, as of ``hardware.generate``, that turn the last layer's sums into codes.

    Args:
        last: record of the last layer.
        unit: the answer codes.
        pace: clock cycles an image takes in the network. Where a unit without a multiplier needs
            no more than half of them, it gets none: a multiplier takes a thousand LUTs.
    """
    serial = answer_cycles(unit, serial=True) <= pace // 2
    given = Stream(**last["output"])
    one = Stream(1, given.bits, given.signed, given.lanes * given.beats)
    plain: dict[str, Any] = {"pe": None, "simd": None, "files": []}
    records: list[dict[str, Any]] = []
    if given.lanes > 1:
        name, converter = f"{last['name']}_dwc", "StreamingDataWidthConverter"
        streams = {"input": asdict(given), "output": asdict(one)}
        records.append({"name": name, "op": converter, **streams, **plain, "cycles": one.beats})
    streams = {"input": asdict(one), "output": asdict(answer_stream(unit))}
    op, cycles = operator(unit), answer_cycles(unit, serial)
    record = {"name": _MODULES[op], "op": op, **streams, **plain, "cycles": cycles}
    return [*records, record | {"unit": unit, "serial": serial}]


def _scores_file(unit: AnswerUnit) -> str:
    return f"{_MODULES[operator(unit)]}.dat"


def _steps(rule: ScoreRule) -> int:
    return max(rule.scale_bits, rule.shift_bits)


def _count_bits(unit: AnswerUnit) -> int:
    return len(unit.thresholds).bit_length()


def _threshold_bits(unit: AnswerUnit) -> int:
    return bits_for(min(-1, -unit.margin, *unit.thresholds), max(unit.thresholds))


def _hex(word: int, bits: int) -> str:
    return f"{word % (1 << bits):0{-(-bits // 4)}x}"
