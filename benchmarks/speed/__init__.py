"""The speed benchmark: what is measured is named here, how and on what is kept with the numbers.

`divqat bench speed` runs *suites*. A suite is one module of this package and one line of
:data:`~benchmarks.speed.suite.SUITES`; the module is imported only when its suite is run or
published. It has two functions, and imports what is heavy (torch, onnxruntime, ...) inside the
first::

    def measure(context: Context) -> Record: ...
    def section(record: Record) -> Section: ...

``measure`` returns what it found as a JSON-able dictionary; the frame adds versions, processor,
threads, the hash of the source and the load of the machine, and writes
``benchmarks/speed/<suite>.json``. It shall

- time contestants with :func:`~benchmarks.speed.timing.interleaved` (A B C A B C ...), so that
  a noisy machine is noisy for all of them, and compare them by
  :func:`~benchmarks.speed.timing.ratio`, the median over rounds of the ratio within a round;
- run on ``context.threads`` threads, ``context.rounds`` rounds, and at the smallest sizes that run
  at all where ``context.quick`` is set (tests use it);
- check that contestants compute the same before it times them, and say how in the record;
- name under ``"not_run"`` what could not be run here, with the reason; only where nothing of the
  suite runs does it raise ``ToolMissingError``.

``section`` makes of that record, and of nothing else, the suite's part of
``benchmarks/speed/README.md`` and its lines of that page's summary. A suite with curves has a third
function, ``charts(record) -> list[Chart]``, drawn in ``benchmarks/speed/<suite>.svg``.

Example of a suite, whole::

    def measure(context):
        import numpy as np

        a = np.random.default_rng(0).random((256, 256))
        timings = interleaved(
            {"matmul": lambda: a @ a, "einsum": lambda: np.einsum("ij,jk", a, a)}, context.rounds
        )
        return {
            "timings": {name: timing.record() for name, timing in timings.items()},
            "ratio": ratio(timings["einsum"], timings["matmul"]).record(),
        }


    def section(record):
        found = record["ratio"]
        return Section(
            title="Matrix products",
            lines=[f"`einsum` takes {shown_ratio(found)} the time of `matmul`."],
            summary=[Line("256 x 256 product", "einsum", shown_ratio(found), "matmul")],
        )
"""
