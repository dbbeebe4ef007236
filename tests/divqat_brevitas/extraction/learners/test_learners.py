"""The other learners, each on a case planted for it."""

import numpy as np
import pytest
import torch
from clones import clean_responses, clone_accuracy, one_hot, plain
from safetensors.torch import save_file
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import PlainLearner, SurrogateTraining, TransferSet, build_surrogate
from divqat_brevitas.extraction.learners.skeptical import SkepticalLearner
from divqat_brevitas.extraction.learners.tuned import TunedLearner
from divqat_brevitas.extraction.learners.unlabelled import (
    ConsistentLearner,
    PretrainedLearner,
    views,
)
from divqat_brevitas.extraction.surrogates.networks import SURROGATES, head_of

STILL = SurrogateTraining(learning_rate=1e-30, weight_decay=0)
"""A clone that cannot learn shows what it started from: a step moves nothing but zeros."""


def body(model: nn.Module) -> dict[str, np.ndarray]:
    """Weights but the classifying layer's and the batch norms', which start alike everywhere."""
    head = head_of(model)
    parameters = model.named_parameters()
    return {k: v.detach().numpy() for k, v in parameters if v.ndim > 1 and not k.startswith(head)}


def test_argmax_and_drop_top_see_through_perturbation_and_wrong_classes(digits) -> None:
    clean = clean_responses(digits)
    wrong = one_hot((clean.argmax(axis=1) + 1) % 10)
    wrong_on_top = 0.6 * wrong + 0.4 * clean  # the wrong class on top, the right one under it
    assert clone_accuracy(plain("argmax"), digits, wrong_on_top) < 0.1
    assert clone_accuracy(plain("drop-top"), digits, wrong_on_top) > 0.8
    assert clone_accuracy(plain("second"), digits, wrong_on_top) > 0.8
    # Poison under the right label, of another class in seven of ten images: just below the top.
    top = 0.505 * one_hot(clean.argmax(axis=1))
    poison = top + 0.495 * one_hot(np.where(np.arange(700) % 10 < 7, 3, 8))
    assert clone_accuracy(plain("argmax"), digits, poison) > 0.8
    assert (
        clone_accuracy(plain(), digits, poison)
        < clone_accuracy(plain("argmax"), digits, poison) - 0.1
    )


def test_skeptical_student_learns_labels_under_poison(digits) -> None:
    clean = clean_responses(digits)
    poison = 0.505 * one_hot(clean.argmax(axis=1)) + 0.495 * one_hot(np.full(700, 3))
    learner = SkepticalLearner(surrogate="mlp", epochs=8)
    assert clone_accuracy(learner, digits, poison) > 0.8
    assert clone_accuracy(learner, digits, poison) > clone_accuracy(plain(), digits, poison) + 0.1


@pytest.mark.slow  # trains clones
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_skeptical_clone_is_the_surrogate_alone(surrogate: str) -> None:
    images = np.random.default_rng(0).random((8, 1, 8, 8), np.float32)
    transfer_set = TransferSet(images, one_hot(np.arange(8) % 3, 3))
    training = SurrogateTraining(batch_size=4)
    learner = SkepticalLearner(surrogate=surrogate, epochs=3, training=training)
    clone = learner.learn(transfer_set, 0).clone
    fresh = build_surrogate(surrogate, (1, 8, 8), 3, 0).state_dict()
    trained = clone.state_dict()
    assert trained.keys() == fresh.keys()
    # Every layer learns: the shallow ones from the exits, the deep ones from labels.
    assert all(not torch.equal(v, fresh[k]) for k, v in trained.items())


def test_pretraining_reaches_the_clone_but_not_its_head(digits) -> None:
    base = PlainLearner(surrogate="mlp", epochs=1, training=STILL)
    transfer_set = TransferSet(digits.pool[:60], clean_responses(digits, 60))
    untouched = base.learn(transfer_set, 3).clone
    # Pretraining that stands still as well: the weights are those of another fresh network.
    other = PretrainedLearner(base=base, epochs=1).learn(transfer_set, 3).clone
    assert len(body(other)) == 2
    assert all(not np.array_equal(v, body(other)[k]) for k, v in body(untouched).items())
    head = head_of(untouched)
    assert torch.equal(untouched.get_submodule(head).weight, other.get_submodule(head).weight)
    moving = PlainLearner(surrogate="mlp", epochs=1)
    learned = PretrainedLearner(base=moving, epochs=15, images=digits.pool).learn(transfer_set, 3)
    assert learned.notes["pretraining_loss"] < 0.5  # guessing among four turns: ln 4 = 1.39
    assert learned.clone.get_submodule(head).weight.shape == (10, 256)
    oblong = TransferSet(np.zeros((10, 1, 8, 12), np.float32), one_hot(np.arange(10) % 3, 3))
    PretrainedLearner(base=moving, epochs=1).learn(oblong, 0)


def test_pretraining_refuses() -> None:
    with pytest.raises(InputError, match="not both"):
        PretrainedLearner(base=PlainLearner(init="x.safetensors"))
    with pytest.raises(InputError, match="epochs=0 must be at least 1"):
        PretrainedLearner(epochs=0)
    images = np.zeros((10, 1, 8, 8), np.float32)
    learner = PretrainedLearner(base=plain(epochs=1), images=np.zeros((10, 1, 9, 9), np.float32))
    with pytest.raises(InputError, match=r"\(1, 9, 9\), but those asked \(1, 8, 8\)"):
        learner.learn(TransferSet(images, one_hot(np.arange(10) % 2, 2)), 0)


def test_initial_weights_start_the_clone(tmp_path, digits) -> None:
    donor = build_surrogate("mlp", (1, 8, 8), 4, seed=9)
    save_file(donor.state_dict(), tmp_path / "a.safetensors")
    learner = PlainLearner(
        surrogate="mlp", epochs=1, training=STILL, init=tmp_path / "a.safetensors"
    )
    transfer_set = TransferSet(digits.pool[:60], clean_responses(digits, 60))
    clone = learner.learn(transfer_set, 0).clone
    assert all(np.array_equal(v, body(donor)[k]) for k, v in body(clone).items())
    assert learner.settings["init"] == str(tmp_path / "a.safetensors")


def test_tuned_finds_what_the_base_lacks(digits) -> None:
    transfer_set = TransferSet(digits.pool, clean_responses(digits))
    slow = SurrogateTraining(learning_rate=1e-4)
    base = PlainLearner(surrogate="mlp", epochs=3, training=slow)
    options = {"targets": ("argmax",), "learning_rate": (0.05,)}
    learned = TunedLearner(base=base, options=options).learn(transfer_set, 0)
    assert learned.notes["chosen"]["learning_rate"] == 0.05
    assert [t["option"] for t in learned.notes["trials"]] == ["base", *options]
    assert learned.notes["validation_responses"] == 140
    tuned = clone_accuracy(TunedLearner(base=base, options=options), digits, transfer_set.responses)
    assert tuned > clone_accuracy(base, digits, transfer_set.responses) + 0.2
    # The clone is the chosen configuration, trained on every response.
    chosen = PlainLearner(
        surrogate="mlp",
        epochs=3,
        targets=learned.notes["chosen"].get("targets", "soft"),
        training=SurrogateTraining(learning_rate=0.05),
    )
    assert chosen.learn(transfer_set, 0).history == learned.history


def test_tuned_refuses() -> None:
    with pytest.raises(InputError, match="cannot try 'momentun'"):
        TunedLearner(options={"momentun": (0.5,)})
    with pytest.raises(InputError, match="must be"):
        TunedLearner(options={"shift": (-1,)})
    with pytest.raises(InputError, match="validation"):
        TunedLearner(validation=0.9)


def test_consistent_clones_contradict_wrong_labels(digits) -> None:
    clean = clean_responses(digits)
    rng = np.random.default_rng(2)
    hit = rng.random(700) < 0.4
    wrong = one_hot((clean.argmax(axis=1) + rng.integers(1, 10, 700)) % 10)
    responses = np.where(hit[:, None], wrong, clean).astype(np.float32)
    transfer_set = TransferSet(digits.pool, responses)
    learned = ConsistentLearner(base=plain()).learn(transfer_set, 0)
    assert learned.notes["contradicted"] > 0.5 * hit.sum()
    assert learned.notes["contradicted"] < 1.1 * hit.sum()
    assert learned.notes["believed"] == 0
    assert clone_accuracy(ConsistentLearner(base=plain()), digits, responses) > (
        clone_accuracy(plain(), digits, responses) + 0.03
    )


def test_consistent_learns_from_images_never_asked(digits) -> None:
    responses = clean_responses(digits, 150)
    learner = ConsistentLearner(base=plain(epochs=20), images=digits.pool[150:])
    learned = learner.learn(TransferSet(digits.pool[:150], responses), 0)
    assert 150 < learned.notes["believed"] <= 550
    assert learner.settings["images"] == 550


def test_consistency_asks_for_the_views_that_training_had(images) -> None:
    plain_view = views(images, SurrogateTraining())
    assert len(plain_view) == 1
    assert np.array_equal(plain_view[0], images)
    all_views = views(images, SurrogateTraining(shift=2, flip=True))
    assert len(all_views) == 10
    up, down = all_views[2], all_views[1]
    assert np.array_equal(up[:, :, :-1], images[:, :, 1:])
    assert np.array_equal(down[:, :, 1:], images[:, :, :-1])
    assert np.array_equal(all_views[5], images[..., ::-1])
