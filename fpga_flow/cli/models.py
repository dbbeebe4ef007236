"""Commands about one model file: `divqat check`, `divqat finn-config`, `divqat serve`."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from divqat_brevitas.errors import InputError
from fpga_flow.cli.options import PATH, Examples, emit, json_option, print_json

if TYPE_CHECKING:
    from divqat_brevitas.extraction.detection.tripwire import Tripwire


@click.command(
    cls=Examples,
    epilog="""divqat check runs/smoke/export/qat.onnx
              divqat check runs/demo/export/qat.onnx --bisect --built runs/demo/compile/qat""",
)
@click.argument("model", type=PATH)
@click.option("--bisect", is_flag=True, help="Compare QONNX, FINN's steps and RTL, in order.")
@click.option("--built", type=PATH, help="The model's folder of the compile stage.")
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
    from fpga_flow.api import check as check_model

    result = check_model(model, bisect=bisect, built=built, inputs=inputs)
    emit(as_json, result.document, lambda: result)
    return 0 if result.passed else 1


@click.command(
    "finn-config",
    cls=Examples,
    epilog="""divqat finn-config runs/demo/export/qat.onnx --out finn
              finn build finn/finn.yaml runs/demo/export/qat.onnx""",
)
@click.argument("model", type=PATH)
@click.option("--target", metavar="NAME", default="pynq-z1", show_default=True, help="Board.")
@click.option("--clock-ns", type=float, default=10.0, show_default=True, help="Clock period.")
@click.option("--target-fps", type=int, default=1000, show_default=True, help="Images a second.")
@click.option("--folding", type=PATH, help="A FINN folding JSON.")
@click.option("--estimates-only", is_flag=True, help="Stop before code generation: no Vivado.")
@click.option("--out", type=PATH, default=Path("finn"), show_default=True)
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
    written = {name: path and str(path) for name, path in vars(files).items()}
    emit(as_json, lambda: written, lambda: "\n".join(filter(None, written.values())))


@click.command(
    "serve",
    cls=Examples,
    epilog="""divqat serve model.onnx --oracle soft --budget 5000
              divqat serve runs/smoke --victim divqat --oracle top1 --port 0
              divqat serve model.onnx --defence reverse-sigmoid:0.5 --clients clients.toml
              divqat serve model.onnx --oracle top1 --fingerprint owner/opening.json
              divqat serve model.onnx --reject-class 10 --tripwire 0.02,0.4,1e-4
              curl http://127.0.0.1:8080/info""",
)
@click.argument("model", metavar="MODEL.onnx|RUN_DIR", type=PATH)
@click.option("--victim", metavar="NAME", help="Victim of a run directory, such as qat.")
@click.option("--engine", default="integer", show_default=True, help="integer, qonnx, finn, rtl.")
@click.option("--oracle", default="soft", show_default=True, help="What a response shows.")
@click.option("--k", type=int, help="How many classes the oracle topk shows.")
@click.option("--decimals", type=int, help="Decimals that the oracle rounded shows.")
@click.option(
    "--defence", default="none", show_default=True, metavar="SPEC", help="Defence of responses."
)
@click.option("--seed", default=0, show_default=True, help="Seed of a randomised defence.")
@click.option("--budget", type=click.IntRange(0), default=5000, show_default=True, help="Queries.")
@click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that counts the queries across restarts [next to the model].",
)
@click.option(
    "--clients",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of tokens and budgets; without it, everyone who reaches the address may ask.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option(
    "--public", is_flag=True, help="Allow a --host that other machines reach, without TLS."
)
@click.option(
    "--reject-class",
    type=click.IntRange(0),
    help="Class that means rejected, for the tripwire [what the chip's answer unit rejects].",
)
@click.option(
    "--tripwire",
    metavar="P0,P1,ALPHA",
    help="Watch each token: rejection rates of honest users and of attackers, and the bound of "
    "false alarms a user.",
)
@click.option(
    "--policy",
    default="label-only",
    show_default=True,
    help="What the tripwire does: report, label-only, slow, lock.",
)
@click.option("--fingerprint", type=PATH, help="From `divqat ownership commit`.")
@click.option("--slow-seconds", type=click.FloatRange(0), default=0.1, show_default=True)
@click.option("--max-images", type=click.IntRange(1), default=1024, show_default=True)
@click.option("--max-bytes", type=click.IntRange(1024), default=16 * 2**20, show_default=True)
@click.option("--max-concurrent", type=click.IntRange(1), default=8, show_default=True)
@json_option
def serve(
    model: Path,
    victim: str | None,
    engine: str,
    oracle: str,
    k: int | None,
    decimals: int | None,
    defence: str,
    seed: int,
    budget: int,
    ledger: Path | None,
    clients: Path | None,
    host: str,
    port: int,
    public: bool,
    reject_class: int | None,
    tripwire: str | None,
    policy: str,
    fingerprint: Path | None,
    slow_seconds: float,
    max_images: int,
    max_bytes: int,
    max_concurrent: int,
    as_json: bool,
) -> int:
    """Serve a victim over HTTP, up to a budget that outlives restarts.

    GET /info describes the victim. POST /query takes images as JSON ({"images": ...}) or npy
    (Content-Type: application/x-npy) and responds with JSON. A failed request costs nothing, and
    a request repeated with the same Idempotency-Key is counted once. Ctrl-C stops the server
    after the requests under way.
    """
    from fpga_flow.serve.limits import Limits, check_reach, read_clients

    limits = Limits(images_per_request=max_images, body_bytes=max_bytes, concurrent=max_concurrent)
    known = read_clients(clients) if clients is not None else []
    local = check_reach(host, public)
    given = {"k": k, "decimals": decimals}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    detector = _tripwire(tripwire, reject_class, policy)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries warn of is for developers
        from divqat_brevitas.extraction import Victim
        from divqat_brevitas.extraction.defences import make_defence
        from fpga_flow.serve.guard import Guard, RejectWatch
        from fpga_flow.serve.ledger import QueryLedger
        from fpga_flow.serve.loading import load_served
        from fpga_flow.serve.server import Service
        from fpga_flow.serve.server import serve as run_server

        served = load_served(model, engine, victim)
    shown = make_defence(defence, seed=seed)
    if fingerprint is not None:
        from divqat_brevitas.extraction.defences.base import Composition
        from fpga_flow.serve.ownership import fingerprinted

        marking = fingerprinted(fingerprint, served.identity["model"])
        shown = marking if shown.name == "none" else Composition([marking, shown])
    predictor, guard = served.predictor, None
    if detector is not None:
        predictor = watch = RejectWatch(predictor, reject_class)
        guard = Guard(detector, watch, slow_seconds, _echo_alarm)
    target = Victim(predictor, oracle, budget, shown, **options)
    about = served.identity | {
        "oracle": target.oracle,
        "oracle_options": target.options,
        "defence": target.defence,
    }
    file = ledger or served.ledger
    count = QueryLedger(file, about, budget, {client.name: client.budget for client in known})
    service = Service(
        target,
        served.shape,
        served.classes,
        count,
        limits=limits,
        clients=known,
        local=local,
        model=served.name,
        guard=guard,
    )

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url, "ledger": str(file), **service.about()})
        else:
            used, left = count.used(), count.budget - count.used()
            click.echo(f"{served.name} at {url}: {target.oracle}, defence {target.defence}")
            click.echo(f"{used} of {budget} queries used, {max(0, left)} left ({file})")
            if guard is not None and guard.alarms:
                click.echo(f"tripwire: alarms of before: {', '.join(map(repr, guard.alarms))}")
        if not local:
            tokens = "tokens and images" if known else "no token is asked for, and images"
            click.echo(
                f"warning: {host} can be reached from other machines; there is no TLS: {tokens} "
                "travel in the clear.",
                err=True,
            )

    try:
        run_server(service, host, port, public=public, ready=ready)
    finally:
        count.close()
    return 0


def _tripwire(rates: str | None, reject_class: int | None, policy: str) -> "Tripwire | None":
    """The tripwire of `--tripwire`; None without the option."""
    from divqat_brevitas.extraction.detection.tripwire import design_tripwire

    if rates is None:
        if reject_class is not None:
            raise InputError("--reject-class is for a tripwire: add --tripwire P0,P1,ALPHA.")
        return None
    try:
        p0, p1, alpha = (float(part) for part in rates.split(","))
    except ValueError as e:
        raise InputError(
            f"--tripwire {rates!r} must be three numbers, such as 0.02,0.4,1e-4: rejection rates "
            "of honest users and of attackers, and the bound of false alarms."
        ) from e
    return design_tripwire(p0, p1, alpha, policy=policy)


def _echo_alarm(client: str, queries: int) -> None:
    who = repr(client) if client else "a user"
    click.echo(f"tripwire: {who} raised the alarm after {queries} queries", err=True)
