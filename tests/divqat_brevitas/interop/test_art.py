import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import BudgetExceededError, TorchPredictor, Victim

pytest.importorskip("art", reason="ART is not installed: pip install 'divqat[art]'")

from art.attacks.evasion import HopSkipJump
from art.attacks.extraction import CopycatCNN, KnockoffNets
from art.estimators.classification import PyTorchClassifier

from divqat_brevitas.interop import as_art_classifier

SHAPE, CLASSES = (1, 8, 8), 4


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))


@pytest.fixture
def victim():
    return Victim(network(), oracle="soft", budget=60)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((80, *SHAPE), np.float32)


@pytest.fixture(autouse=True)
def _numpy_state():
    """ART draws from NumPy's global state; it is given back as it was."""
    before = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(before)


def classifier(victim):
    return as_art_classifier(victim, input_shape=SHAPE, classes=CLASSES)


def clone():
    module = network()
    return PyTorchClassifier(
        module,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(module.parameters(), 0.1),
        input_shape=SHAPE,
        nb_classes=CLASSES,
        clip_values=(0, 1),
        device_type="cpu",
    )


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (KnockoffNets, {"sampling_strategy": "random", "use_probability": True}),
        (KnockoffNets, {"sampling_strategy": "adaptive", "verbose": False}),
        (CopycatCNN, {}),
    ],
)
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_arts_own_thefts_spend_exactly_what_they_were_allowed(
    victim, images, attack, options, batch
):
    extraction = attack(
        classifier(victim), nb_stolen=50, nb_epochs=1, batch_size_query=batch, **options
    )
    labels = np.arange(80) % CLASSES if options.get("sampling_strategy") == "adaptive" else None
    stolen = extraction.extract(images, labels, thieved_classifier=clone())
    assert stolen.predict(images[:3]).shape == (3, CLASSES)
    assert victim.queries_used == 50
    assert sum(row.images for row in victim.ledger) == 50
    if labels is None:
        assert [row.images for row in victim.ledger] == [
            min(batch, 50 - i) for i in range(0, 50, batch)
        ]


def test_predictions_are_the_victims_answers(images):
    model = network()
    art = classifier(Victim(model, oracle="logits", budget=80))
    np.testing.assert_array_equal(
        art.predict(images, batch_size=len(images)), TorchPredictor(model).predict(images)
    )


def test_a_theft_beyond_the_budget_meets_the_victims_error_and_spends_nothing(victim, images):
    extraction = KnockoffNets(classifier(victim), nb_stolen=61, nb_epochs=1, batch_size_query=10)
    with pytest.raises(BudgetExceededError, match="61 more queries do not fit: 0 of 60"):
        extraction.extract(images, thieved_classifier=clone())
    assert victim.queries_used == 0


def test_an_adaptive_theft_ends_where_the_budget_ends(victim, images):
    extraction = KnockoffNets(
        classifier(victim), nb_stolen=61, sampling_strategy="adaptive", verbose=False
    )
    with pytest.raises(BudgetExceededError, match="60 of 60 are used"):
        extraction.extract(images, np.arange(80) % CLASSES, thieved_classifier=clone())
    assert victim.queries_used == 60


def test_a_decision_based_attack_runs_and_is_counted(images):
    seen = []

    class Counting(TorchPredictor):
        def predict(self, images):
            seen.extend(images)
            return super().predict(images)

    victim = Victim(Counting(network()), oracle="top1", budget=5000)
    attack = HopSkipJump(
        classifier(victim), max_iter=1, max_eval=50, init_eval=10, init_size=20, verbose=False
    )
    found = attack.generate(images[:1])
    assert found.shape == (1, *SHAPE)
    assert found.min() >= 0
    assert found.max() <= 1
    assert victim.queries_used == len(seen) > 1


@pytest.mark.parametrize("bad", [np.zeros((2, 8, 8, 1)), np.zeros((2, 1, 8, 9)), np.zeros((1, 64))])
def test_images_of_another_shape_are_refused(victim, bad):
    with pytest.raises(InputError, match="this classifier was made for"):
        classifier(victim).predict(bad)
    assert victim.queries_used == 0


def test_pixels_up_to_255_are_refused(victim, images):
    with pytest.raises(InputError, match="Divide uint8 pixels by 255"):
        classifier(victim).predict((images * 255).astype(np.uint8))


def test_a_wrong_number_of_classes_is_named(victim, images):
    art = as_art_classifier(victim, input_shape=SHAPE, classes=10)
    with pytest.raises(InputError, match="classes=4"):
        art.predict(images[:1])


@pytest.mark.parametrize(
    ("shape", "classes"), [((8, 8), 4), ((0, 8, 8), 4), ((1, 8, 8), 1), ((1, 1, 8, 8), 4)]
)
def test_bad_shapes_and_classes_are_refused(victim, shape, classes):
    with pytest.raises(InputError):
        as_art_classifier(victim, input_shape=shape, classes=classes)
