"""What every similarity must do; runs over each file in the folder."""

import dataclasses
import importlib.util
import inspect
import socket
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.similarities._base import Similarity

REFERENCE = "wipe the stove with a cloth then check the lamp ."
NEAR = "wipe the oven with a cloth then check the lamp ."
FAR = "soil soil soil"
ODD_TEXTS = ("", " ", "\n\n", "?!", "naïve 你好 🙂", "a" * 3000, "word " * 3000, "\x00", '"""')
NAMES = registry.names("similarities")


@pytest.fixture(params=NAMES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return registry.load_module("similarities", request.param)


@pytest.fixture
def measure(module: ModuleType, parameters_of: Callable[[str], dict]) -> Similarity:
    name = module.__name__.rsplit(".", 1)[-1]
    return registry.build("similarities", name, parameters_of(name))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection was opened to {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield


def test_there_are_similarities() -> None:
    assert {"chrf", "meteor", "bertscore"} <= set(NAMES)


def test_class_is_a_frozen_dataclass_that_says_what_it_cannot_see(module: ModuleType) -> None:
    kind = module.SIMILARITY
    name = module.__name__.rsplit(".", 1)[-1]
    assert issubclass(kind, Similarity) and kind.__name__.lower() == name.replace("_", "")
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
    assert "Source" in module.__doc__ and kind.__doc__
    assert len(kind.blindness) > 20
    assert list(inspect.signature(kind.similarity).parameters) == [
        "self",
        "responses",
        "references",
    ]


def test_identity_names_file_and_every_parameter(measure: Similarity) -> None:
    assert measure.similarity_def.startswith(f"{measure.name}(")
    for field in dataclasses.fields(measure):
        assert f"{field.name}=" in measure.similarity_def


def test_unknown_parameter_is_refused(module: ModuleType) -> None:
    with pytest.raises(DataError, match="no parameter 'nonsense'"):
        registry.build("similarities", module.__name__.rsplit(".", 1)[-1], {"nonsense": 1})


def test_a_near_answer_is_more_similar_than_a_far_one(measure: Similarity) -> None:
    same, near, far = measure.similarity([REFERENCE, NEAR, FAR], [REFERENCE] * 3)
    assert same > near > far


def test_an_answer_is_at_least_as_similar_to_itself_as_to_anything_else(
    measure: Similarity,
) -> None:
    texts = [REFERENCE, NEAR, FAR, "wipe", "the the the stove", "cloth a with stove the wipe ."]
    answers = [a for _ in texts for a in texts]
    references = [b for b in texts for _ in texts]
    values = measure.similarity(answers, references).reshape(len(texts), len(texts))
    assert (np.diag(values) >= values.max(axis=1) - 1e-6).all()  # rows: one reference


def test_an_empty_answer_has_the_lowest_value(measure: Similarity) -> None:
    values = measure.similarity(["", "  \n", NEAR, FAR], [REFERENCE] * 4)
    assert values[0] == values[1] == measure.low == 0.0
    assert values.min() == values[0]


def test_odd_texts_give_finite_values_within_the_range(measure: Similarity) -> None:
    for answers, references in (
        (list(ODD_TEXTS), [REFERENCE] * len(ODD_TEXTS)),
        ([NEAR] * len(ODD_TEXTS), list(ODD_TEXTS)),
        (list(ODD_TEXTS), list(ODD_TEXTS)),
    ):
        values = measure.similarity(answers, references)
        assert values.shape == (len(ODD_TEXTS),) and values.dtype == np.float64
        assert np.isfinite(values).all()
        assert (values >= measure.low).all() and (values <= measure.high).all()


def test_batch_and_order_do_not_matter(measure: Similarity) -> None:
    answers = [REFERENCE, NEAR, FAR, "wipe the lamp", "check", ""]
    references = [NEAR, REFERENCE, NEAR, REFERENCE, FAR, NEAR]
    together = measure.similarity(answers, references)
    alone = [measure.similarity([a], [b])[0] for a, b in zip(answers, references, strict=True)]
    order = np.random.default_rng(0).permutation(len(answers))
    shuffled = measure.similarity([answers[i] for i in order], [references[i] for i in order])
    # 1e-5: padding changes the order of float32 sums inside an encoder
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)


def test_no_answers_give_no_values_and_unequal_numbers_are_refused(measure: Similarity) -> None:
    values = measure.similarity([], [])
    assert values.shape == (0,) and values.dtype == np.float64
    with pytest.raises(ValueError, match="zip"):
        measure.similarity(["a"], ["a", "b"])


def test_a_missing_library_names_the_command_that_installs_it(
    module: ModuleType,
    parameters_of: Callable[[str], dict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parameters = parameters_of(module.__name__.rsplit(".", 1)[-1])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(DataError, match=r"pip install 'dpo-diag\[similarities\]'"):
        module.SIMILARITY(**parameters)
