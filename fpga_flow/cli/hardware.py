"""Commands of the hardware side: `divqat check`, `divqat finn-config`."""

from pathlib import Path

import click

from fpga_flow.cli.options import Examples, json_option, print_json


@click.command(
    cls=Examples,
    epilog="""divqat check runs/smoke/export/qat.onnx
              divqat check runs/demo/export/qat.onnx --bisect --built runs/demo/compile/qat""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--bisect", is_flag=True, help="Compare QONNX, FINN's steps and RTL, in order.")
@click.option(
    "--built", type=click.Path(path_type=Path), help="The model's folder of the compile stage."
)
@click.option(
    "--inputs", type=click.IntRange(1), default=16, show_default=True, help="Random images."
)
@json_option
def check(model: Path, bisect: bool, built: Path | None, inputs: int, as_json: bool) -> int:
    """Show a QONNX file's layers, and what has no hardware.

    With --bisect: execute every verification level on random images, layer by layer, and name
    the first step and layer that differ from the integer engine. Exit code 1 if FINN has no
    hardware for a layer, a kernel of the integer engine is wrong on this machine, or a level
    differs. Layers that only need AMD's tools are named.
    """
    from fpga_flow.api.checking import check as check_model

    result = check_model(model, bisect=bisect, built=built, inputs=inputs)
    if as_json:
        print_json(result.document())
    else:
        click.echo(str(result))
    return 0 if result.passed else 1


@click.command(
    "finn-config",
    cls=Examples,
    epilog="""divqat finn-config runs/demo/export/qat.onnx --out finn
              finn build finn/finn.yaml runs/demo/export/qat.onnx""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", metavar="NAME", default="pynq-z1", show_default=True, help="Board.")
@click.option("--clock-ns", type=float, default=10.0, show_default=True, help="Clock period.")
@click.option("--target-fps", type=int, default=1000, show_default=True, help="Images a second.")
@click.option("--folding", type=click.Path(path_type=Path), help="A FINN folding JSON.")
@click.option("--estimates-only", is_flag=True, help="Stop before code generation: no Vivado.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("finn"), show_default=True)
@json_option
def finn_config(
    model: Path,
    target: str,
    clock_ns: float,
    target_fps: int,
    folding: Path | None,
    estimates_only: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Write the YAML and JSON files with which stock FINN builds a QONNX file.

    FINN's own command line takes them; our steps are in them by their dotted names.
    """
    from fpga_flow.compile.configuration import VivadoSettings
    from fpga_flow.compile.finn_yaml import write_finn_config

    settings = VivadoSettings(
        target=target, clock_ns=clock_ns, target_fps=target_fps, folding_json=folding
    )
    files = write_finn_config(model, out, settings, estimates_only=estimates_only)
    if as_json:
        print_json({name: path and str(path) for name, path in vars(files).items()})
    else:
        for path in vars(files).values():
            if path is not None:
                click.echo(path)
