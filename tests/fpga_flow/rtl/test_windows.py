"""Choices the generator makes for our modules."""

from typing import Any

from fpga_flow.rtl.windows import fused, searches_in_turn, weight_memories


def _weights(**sizes: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {"name": name, "weights": {"depth": depth, "width": width}}
        for name, (depth, width) in sizes.items()
    ]


def test_few_words_are_logic_others_block_ram() -> None:
    styles = weight_memories([*_weights(few=(6, 50), many=(1500, 64)), {"name": "pool"}])
    assert styles == {"few": "logic", "many": "block"}


def test_short_block_ram_is_packed_tightly_then_shallow_words_become_logic() -> None:
    # 1500 words rounded to 2048 of 9 bits: 8 blocks for 64 bits; as 3 * 512 of 36 bits: 6.
    tight = weight_memories(_weights(**{f"l{i}": (1500, 64) for i in range(20)}))
    assert set(tight.values()) == {"auto", "block"}
    # 8 blocks of 20 too many need 5 of these to save 2 each.
    assert list(tight.values()).count("auto") == 5
    shallow = weight_memories(_weights(wide=(40, 1440), deep=(16384, 144)))
    assert shallow == {"wide": "logic", "deep": "auto"}


def _window(**changes: Any) -> dict[str, Any]:
    facts = {"rows": 8, "cols": 8, "k_rows": 2, "k_cols": 2, "s_rows": 2, "s_cols": 2, "fold": 4}
    facts |= {"dense": True, "depthwise": True, "parallel": False} | changes
    return {
        "name": "swg",
        "op": "ConvolutionInputGenerator",
        "window": facts,
        "input": {"lanes": 2},
        "cycles": 70,
    }


def test_a_max_pool_takes_the_image_itself_where_windows_tile_it() -> None:
    pool = {
        "name": "pool",
        "op": "Pool",
        "input": {"lanes": 8},
        "cycles": 64,
        "pool": {"window": 4},
    }
    window = _window()
    (record,) = fused([window, pool])
    assert record["name"] == "pool"
    assert record["input"] == window["input"]
    assert record["pool"] == {"window": 4, "grid": window["window"]}
    for overlapping in ({"s_rows": 1}, {"dense": False}, {"parallel": True}):
        assert len(fused([_window(**overlapping), pool])) == 2


def test_thresholds_are_searched_in_turn_only_behind_slow_enough_layers() -> None:
    record = {"output": {"bits": 2}}
    unit = {"op": "MVAU", "cycles": 700, "output": {"beats": 100}}
    assert searches_in_turn(record, unit)
    assert not searches_in_turn(record, {**unit, "cycles": 600})
    assert not searches_in_turn(record, {**unit, "op": "Pool"})
    assert not searches_in_turn(record, None)
