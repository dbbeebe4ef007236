"""The trainer: it trains, resumes to equal results, and stops with a reason."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from divqat_brevitas import DivQATLoss, freeze_reference
from divqat_brevitas.data import load
from divqat_brevitas.errors import InputError
from divqat_brevitas.models import build_model, parse_bits, quantize
from divqat_brevitas.models.resnet import ResidualArchitecture
from divqat_brevitas.training import (
    AccuracyGuard,
    GuardError,
    TrainingDivergedError,
    TrainResult,
    TrainSettings,
    accuracy,
    calibrate,
    load_weights,
    logits_of,
    save_weights,
    train,
)
from divqat_brevitas.training.checkpoint import save_tensors
from divqat_brevitas.training.loop import PlainLoss, augmented

Data = tuple[Tensor, Tensor]


def split(name: str) -> Data:
    images, labels = load("digits", name)
    return torch.tensor(images), torch.tensor(labels)


@pytest.fixture(scope="module")
def data() -> tuple[Data, Data]:
    return split("train"), split("val")


@pytest.fixture(scope="module")
def reference(data: tuple[Data, Data]) -> nn.Module:
    net = build_model("digits-cnn", (1, 8, 8), 10, seed=0)
    train(net, PlainLoss(), train=data[0], val=data[1], settings=TrainSettings(epochs=6))
    return net.eval()


def quantized(reference: nn.Module, data: tuple[Data, Data], bits: str = "w2a2") -> nn.Module:
    net = quantize(reference, bits)
    calibrate(net, data[0][0][:200])
    return net


def fit(net: nn.Module, data: tuple[Data, Data], criterion: object = None, **k: object):
    settings = TrainSettings(epochs=2, learning_rate=0.02, seed=3)
    return train(net, criterion or PlainLoss(), train=data[0], val=data[1], settings=settings, **k)  # type: ignore[arg-type]


def state(net: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_float_training_learns(reference: nn.Module, data: tuple[Data, Data]) -> None:
    assert accuracy(reference, *data[1]) > 0.9  # chance is 0.1


def test_plain_qat_really_trains(reference: nn.Module, data: tuple[Data, Data]) -> None:
    """A published "QAT" baseline trains nothing; ours moves codes, scales and accuracy."""
    net = quantized(reference, data)
    ptq_accuracy, before = accuracy(net, *data[1]), state(net)
    codes = net[3].quant_weight().int().clone()
    result = train(
        net,
        PlainLoss(),
        train=data[0],
        val=data[1],
        settings=TrainSettings(epochs=4, learning_rate=0.03),
    )
    after = state(net)
    for name in after:
        if "running" not in name and "num_batches" not in name:
            assert not torch.equal(before[name], after[name]), name
    assert not torch.equal(codes, net[3].quant_weight().int())
    assert result.val_accuracy > ptq_accuracy + 0.1


def test_one_bit_weights_train_within_their_bounds(
    reference: nn.Module, data: tuple[Data, Data]
) -> None:
    net = quantize(reference, "w1a1", first_bit_width=8, last_bit_width=8)
    calibrate(net, data[0][0][:200])
    before, signs = accuracy(net, *data[1]), net[3].quant_weight().int().clone()
    settings = TrainSettings(epochs=4, learning_rate=0.02)
    result = train(net, PlainLoss(), train=data[0], val=data[1], settings=settings)
    assert net[3].quant_weight().int().unique().tolist() == [-1, 1]
    assert not torch.equal(signs, net[3].quant_weight().int())
    assert result.val_accuracy > max(0.7, before + 0.1)  # chance is 0.1


def test_calibration_changes_nothing_but_ranges(
    reference: nn.Module, data: tuple[Data, Data]
) -> None:
    net = quantize(reference, "w8a8")
    before = state(net)
    calibrate(net, data[0][0][:200])
    after = state(net)
    assert {k for k in after if k not in before or not torch.equal(before[k], after[k])} == {
        k for k in after if "act_quant" in k and k.endswith("scaling_impl.value")
    }
    assert accuracy(net, *data[1]) > accuracy(reference, *data[1]) - 0.02  # 8 bits cost little


def test_same_seed_same_weights(reference: nn.Module, data: tuple[Data, Data]) -> None:
    first, second = quantized(reference, data), quantized(reference, data)
    torch.manual_seed(1)
    fit(first, data)
    torch.manual_seed(2)  # the global state must not matter
    fit(second, data)
    assert equal(state(first), state(second))


def test_weight_zero_trains_exactly_plain_qat(
    reference: nn.Module, data: tuple[Data, Data]
) -> None:
    plain, ours = quantized(reference, data), quantized(reference, data)
    fit(plain, data)
    fit(ours, data, DivQATLoss(freeze_reference(reference), "nasty", weight=0.0))
    assert equal(state(plain), state(ours))


class StopError(Exception):
    pass


def test_a_stopped_training_goes_on_with_shared_scales(tmp_path: Path) -> None:
    some = torch.randint(0, 256, (64, 1, 8, 8)).byte(), torch.arange(64) % 3
    net = nn.Sequential(*ResidualArchitecture((1,), (4,), 8, "small").layers(1, 3))

    def run(file: str, stop: int = 0) -> dict[str, Tensor]:
        shortcut = quantize(net, "w4a4", join_bit_width=6)
        calibrate(shortcut, some[0])

        def on_epoch(row: dict[str, float]) -> None:
            if row["epoch"] == stop:
                raise StopError

        settings = TrainSettings(epochs=2, batch_size=16)
        train(
            shortcut,
            PlainLoss(),
            train=some,
            val=some,
            settings=settings,
            checkpoint=tmp_path / file,
            on_epoch=on_epoch,
        )
        return state(shortcut)

    with pytest.raises(StopError):
        run("stopped", stop=1)
    assert equal(run("stopped"), run("whole"))


@pytest.mark.slow  # trains
@pytest.mark.parametrize(("after", "bits"), [(1, "w2a2"), (3, "w2a2"), (2, "w1a1")])
def test_a_stopped_training_resumes_to_equal_weights(
    after: int, bits: str, reference: nn.Module, data: tuple[Data, Data], tmp_path: Path
) -> None:
    guard = AccuracyGuard(twin=(0.999,) * 4, tolerance=0.0005, extra_epochs=0)

    def run(net: nn.Module, checkpoint: Path | None, stop: int = 0) -> TrainResult:
        def on_epoch(row: dict[str, float]) -> None:
            if row["epoch"] == stop:
                raise StopError

        return train(
            net,
            DivQATLoss(freeze_reference(reference), "nasty"),
            train=data[0],
            val=data[1],
            settings=TrainSettings(epochs=4, augment="shift"),
            checkpoint=checkpoint,
            guard=guard,
            on_epoch=on_epoch,
        )

    whole, net = quantized(reference, data, bits), quantized(reference, data, bits)
    with pytest.raises(GuardError):  # this guard can't be met: every epoch halves the weight
        run(whole, None)
    file = tmp_path / "c.safetensors"
    with pytest.raises(StopError):
        run(net, file, stop=after)
    resumed = quantized(reference, data, bits)  # as a new process would build it
    with pytest.raises(GuardError):
        run(resumed, file)
    assert equal(state(whole), state(resumed))


def test_a_checkpoint_of_another_training_is_refused(
    reference: nn.Module, data: tuple[Data, Data], tmp_path: Path
) -> None:
    file = tmp_path / "c.safetensors"
    fit(quantized(reference, data), data, checkpoint=file)
    with pytest.raises(InputError, match="other settings"):
        train(
            quantized(reference, data),
            PlainLoss(),
            train=data[0],
            val=data[1],
            settings=TrainSettings(epochs=3),
            checkpoint=file,
        )


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_a_corrupt_checkpoint_is_refused(damage: str, reference: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_weights(file, reference, {"bits": "float"})
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        content = content[:-100]
    elif damage == "flip":
        content[-50] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(b"not weights")
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"corrupt.*Delete it"):
        load_weights(file, reference)


def test_weights_round_trip(reference: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_weights(file, reference, {"bits": "float", "seed": 0})
    save_weights(tmp_path / "same.safetensors", reference, {"bits": "float", "seed": 0})
    assert file.read_bytes() == (tmp_path / "same.safetensors").read_bytes()
    other = build_model("digits-cnn", (1, 8, 8), 10, seed=5)
    assert load_weights(file, other) == {"bits": "float", "seed": 0}
    assert equal(state(reference), state(other))
    with pytest.raises(InputError, match="another network"):
        load_weights(file, build_model("mlp", (1, 8, 8), 10))
    with pytest.raises(InputError, match="does not exist"):
        load_weights(tmp_path / "nothing", other)


def test_two_values_for_a_shared_scale_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(*ResidualArchitecture((1,), (4,), 8, "small").layers(1, 3))
    shortcut = quantize(net, "w4a4", join_bit_width=6)
    calibrate(shortcut, torch.randint(0, 256, (64, 1, 8, 8)).byte())
    tensors = state(shortcut)
    (shared,) = (name for name in tensors if ".join." in name)
    save_tensors(tmp_path / "w.safetensors", tensors, {})
    load_weights(tmp_path / "w.safetensors", shortcut)
    save_tensors(tmp_path / "w.safetensors", tensors | {shared: tensors[shared] * 2}, {})
    with pytest.raises(InputError, match=r"several values for one parameter.*act_quant"):
        load_weights(tmp_path / "w.safetensors", shortcut)


def test_nan_stops_training_and_keeps_the_checkpoint(
    reference: nn.Module, data: tuple[Data, Data], tmp_path: Path
) -> None:
    class Breaks(PlainLoss):
        def __call__(self, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
            loss = super().__call__(logits, labels, inputs)
            return loss * float("nan") if self.progress >= 0.5 else loss

    file = tmp_path / "c.safetensors"
    with pytest.raises(TrainingDivergedError, match="epoch 2") as caught:
        fit(quantized(reference, data), data, Breaks(), checkpoint=file)
    assert caught.value.exit_code == 1
    assert file.is_file()


def test_guard_halves_the_weight_and_gives_up_last(
    reference: nn.Module, data: tuple[Data, Data]
) -> None:
    criterion = DivQATLoss(freeze_reference(reference), "nasty", weight=0.08)
    guard = AccuracyGuard(twin=(1.0, 1.0), tolerance=0.0, extra_epochs=2)
    with pytest.raises(GuardError, match=r"divqat\.weight") as caught:
        fit(quantized(reference, data), data, criterion, guard=guard)
    assert caught.value.exit_code == 1
    assert criterion.settings.weight == pytest.approx(0.08 / 2**4)  # 2 epochs and 2 more


def test_a_satisfied_guard_changes_nothing(reference: nn.Module, data: tuple[Data, Data]) -> None:
    nets = [quantized(reference, data) for _ in range(2)]
    for net, guard in zip(nets, (None, AccuracyGuard(twin=(0.0,))), strict=True):
        fit(net, data, DivQATLoss(freeze_reference(reference), "nasty"), guard=guard)
    assert equal(*[state(net) for net in nets])


def few(data: tuple[Data, Data]) -> tuple[Data, Data]:
    (images, labels), val = data
    return (images[:300], labels[:300]), val


def test_bfloat16_trains_as_well_and_resumes_to_equal_weights(
    reference: nn.Module, data: tuple[Data, Data], tmp_path: Path
) -> None:
    def run(net: nn.Module, checkpoint: Path | None = None, stop: int = 0) -> TrainResult:
        def on_epoch(row: dict[str, float]) -> None:
            if row["epoch"] == stop:
                raise StopError

        settings = TrainSettings(epochs=3, learning_rate=0.02, precision="bfloat16")
        images, val = few(data)
        return train(
            net, PlainLoss(), train=images, val=val, settings=settings, checkpoint=checkpoint,
            on_epoch=on_epoch,
        )  # fmt: skip

    whole, net = (quantized(reference, data, "w4a4") for _ in range(2))
    # 4 bits from a trained float network lose little; rounding products to 8 bits adds less.
    assert run(whole).val_accuracy > accuracy(reference, *data[1]) - 0.03
    assert {v.dtype for v in state(whole).values()} == {torch.float32, torch.int64}
    with pytest.raises(StopError):
        run(net, tmp_path / "c.safetensors", stop=2)
    resumed = quantized(reference, data, "w4a4")
    run(resumed, tmp_path / "c.safetensors")
    assert equal(state(whole), state(resumed))


@pytest.mark.parametrize(("precision", "channels"), [("float32", 3), ("bfloat16", 1)])
def test_a_step_runs_channels_last_in_float32_and_leaves_no_trace(
    precision: str, channels: int
) -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    class Look(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.dtype, x.is_contiguous()))
            return x

    float_net = build_model("digits-cnn", (channels, 8, 8), 4)
    net = quantize(float_net, "w4a4")
    net.insert(1, Look())
    net.insert(6, Look())
    images, labels = torch.randint(0, 256, (64, channels, 8, 8)).byte(), torch.arange(64) % 4
    calibrate(net, images)
    seen.clear()
    batches: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0]))
    train(
        net, PlainLoss(), train=(images, labels), val=(images, labels),
        settings=TrainSettings(epochs=1, batch_size=64, precision=precision),
    )  # fmt: skip
    in_training, in_evaluation = seen[:2], seen[2:]
    assert in_training == [(torch.float32, False)] * 2  # not NCHW in memory
    assert in_evaluation == [(torch.float32, True)] * 2
    # Strides that no kernel takes for NCHW, also where there is one channel.
    assert batches[0].stride() == (64 * channels, 1, 8 * channels, channels)
    assert all(p.is_contiguous() for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_augmentation_shifts_whole_images() -> None:
    x = torch.rand(64, 2, 16, 16)
    generator = torch.Generator().manual_seed(0)
    out = augmented(x, "shift", generator)
    padded = nn.functional.pad(x, (2, 2, 2, 2))
    windows = padded.unfold(2, 16, 1).unfold(3, 16, 1)  # every shift by up to 2 pixels
    found = (windows == out[:, :, None, None]).all(-1).all(-1).all(1).flatten(1)
    assert found.any(1).all()
    assert found.float().argmax(1).unique().numel() > 10
    assert torch.equal(augmented(x, "none", generator), x)


def test_evaluation_keeps_modes(reference: nn.Module) -> None:
    reference[1].train()
    logits_of(reference, torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert reference[1].training
    reference.eval()


@pytest.mark.parametrize("text", ["w4", "w5a4", "w0a1", "a4w4", "4", "w4a4b4"])
def test_bad_bits_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="w4a4"):
        parse_bits(text)


def test_models_by_name() -> None:
    from divqat_brevitas.models import MODELS

    for name in MODELS:
        side = max(MODELS[name].minimum, 8)
        before = torch.get_rng_state()
        a, b = (build_model(name, (3, side, side), 7, seed=4) for _ in range(2))
        assert torch.equal(before, torch.get_rng_state())
        assert equal(state(a), state(b))
        assert a.eval()(torch.rand(2, 3, side, side)).shape == (2, 7)
    with pytest.raises(InputError, match="digits-cnn"):
        build_model("digit-cnn", (1, 8, 8), 10)
    with pytest.raises(InputError, match="at least 32x32"):
        build_model("cnv", (3, 28, 28), 10)


@pytest.mark.parametrize(
    "kwargs",
    [{"epochs": 0}, {"learning_rate": -1.0}, {"augment": "twist"}, {"precision": "float16"}],
)
def test_bad_settings_are_refused(kwargs: dict) -> None:
    with pytest.raises(InputError):
        TrainSettings(**kwargs)
