"""What every oracle must do; runs over each file in the folder, so its author writes no test."""

import dataclasses
import inspect
import socket
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dpo_diag import registry
from dpo_diag.errors import DataError
from dpo_diag.oracles._base import Oracle

ODD_TEXTS = ("", " ", "\n\n", "?!", "naïve 你好 🙂", "a" * 5000, "word " * 3000, "\x00", '"""')


@pytest.fixture(params=registry.names("oracles"))
def module(request: pytest.FixtureRequest) -> ModuleType:
    return registry.load_module("oracles", request.param)


@pytest.fixture
def oracle(module: ModuleType, tmp_path: Path) -> Oracle:
    example = getattr(module, "example_parameters", None)
    name = module.__name__.rsplit(".", 1)[-1]
    return registry.build("oracles", name, example(tmp_path) if example else {})


@pytest.fixture
def texts(module: ModuleType) -> tuple[list[str], list[str], list[str]]:
    """Each example in both orders, and each of its answers against itself."""
    rows = [
        (prompt, first, second)
        for prompt, better, other in module.EXAMPLES
        for first, second in ((better, other), (other, better), (better, better), (other, other))
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))


def test_there_are_oracles() -> None:
    assert {"sandbox_group", "python_callable"} <= set(registry.names("oracles"))


def test_class_is_a_frozen_dataclass_that_says_what_it_cannot_see(module: ModuleType) -> None:
    kind = module.ORACLE
    assert issubclass(kind, Oracle) and dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert module.__doc__ and kind.__doc__
    assert len(kind.blindness) > 20


def test_identity_names_file_and_every_parameter(oracle: Oracle, module: ModuleType) -> None:
    name = module.__name__.rsplit(".", 1)[-1]
    assert oracle.name.startswith(name) and oracle.oracle_def.startswith(f"{name}(")
    for field in dataclasses.fields(oracle):
        # how a judge is reached is no part of who it is
        assert (f"{field.name}=" in oracle.oracle_def) == field.repr


def test_it_says_whether_a_best_answer_exists(oracle: Oracle) -> None:
    assert isinstance(oracle.is_transitive, bool)


def test_parameter_without_default_is_asked_for_by_name(module: ModuleType) -> None:
    required = [
        f.name
        for f in dataclasses.fields(module.ORACLE)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    assert bool(required) == hasattr(module, "example_parameters")
    for name in required:
        with pytest.raises(DataError, match=name):
            registry.build("oracles", module.__name__.rsplit(".", 1)[-1], {})


def test_better_answer_of_each_example_is_preferred(oracle: Oracle, module: ModuleType) -> None:
    assert len(module.EXAMPLES) >= 3
    for prompt, better, other in module.EXAMPLES:
        assert oracle.prefer([prompt], [better], [other])[0] > 0.5, (prompt, better, other)


def test_one_probability_per_pair(oracle: Oracle, texts) -> None:
    wins = oracle.prefer(*texts)
    assert wins.shape == (len(texts[0]),) and wins.dtype == np.float64
    assert ((wins >= 0.0) & (wins <= 1.0)).all()  # the examples are no occasion to abstain


def test_either_the_first_or_the_second_is_preferred(oracle: Oracle, texts) -> None:
    prompts, first, second = texts
    there, back = oracle.prefer(*texts), oracle.prefer(prompts, second, first)
    np.testing.assert_allclose(there + back, 1.0, atol=1e-9)


def test_an_answer_is_as_good_as_itself(oracle: Oracle, texts) -> None:
    prompts, first, _ = texts
    np.testing.assert_allclose(oracle.prefer(prompts, first, first), 0.5, atol=1e-9)


def test_batch_and_order_do_not_matter(oracle: Oracle, texts) -> None:
    together = oracle.prefer(*texts)
    alone = [oracle.prefer([p], [a], [b])[0] for p, a, b in zip(*texts, strict=True)]
    order = np.random.default_rng(0).permutation(len(together))
    shuffled = oracle.prefer(*([column[i] for i in order] for column in texts))
    # 1e-6: padding changes the order of float32 sums inside a neural judge
    np.testing.assert_allclose(alone, together, atol=1e-6)
    np.testing.assert_allclose(shuffled, together[order], atol=1e-6)


def test_matrix_is_prefer_of_all_pairs(oracle: Oracle, module: ModuleType) -> None:
    prompt = module.EXAMPLES[0][0]
    answers = [answer for _, *pair in module.EXAMPLES for answer in pair]
    n = len(answers)
    asked = oracle.prefer([prompt] * n * n, [a for a in answers for _ in answers], answers * n)
    matrix = oracle.matrix(prompt, answers)
    assert matrix.shape == (n, n)
    np.testing.assert_allclose(matrix, asked.reshape(n, n), atol=1e-6)


def test_nothing_asked_gives_nothing(oracle: Oracle) -> None:
    wins = oracle.prefer([], [], [])
    assert wins.shape == (0,) and wins.dtype == np.float64
    assert oracle.matrix("how do i clean the stove ?", []).shape == (0, 0)


def test_inputs_are_unchanged_and_tuples_do(oracle: Oracle, texts) -> None:
    given = tuple(list(column) for column in texts)
    wins = oracle.prefer(*given)
    assert given == texts
    np.testing.assert_allclose(oracle.prefer(*(tuple(c) for c in texts)), wins, atol=1e-6)


def test_odd_texts_give_a_probability_or_an_abstention(oracle: Oracle, module: ModuleType) -> None:
    prompt, better, _ = module.EXAMPLES[0]
    n = len(ODD_TEXTS)
    for asked in (
        ([prompt] * n, list(ODD_TEXTS), [better] * n),
        ([prompt] * n, list(ODD_TEXTS), list(ODD_TEXTS)[::-1]),
        (list(ODD_TEXTS), [better] * n, list(ODD_TEXTS)),
    ):
        wins = oracle.prefer(*asked)
        back = oracle.prefer(asked[0], asked[2], asked[1])
        judged = ~np.isnan(wins)
        assert wins.shape == (n,)
        assert ((wins[judged] >= 0.0) & (wins[judged] <= 1.0)).all()
        np.testing.assert_allclose(wins + back, np.where(judged, 1.0, np.nan), atol=1e-9)


def test_unequal_numbers_are_refused(oracle: Oracle) -> None:
    with pytest.raises(DataError, match="2 prompts, 1 first and 2 second"):
        oracle.prefer(["a", "b"], ["c"], ["d", "e"])


def test_no_network(oracle: Oracle, texts, monkeypatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"{oracle.name} opened a connection to {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert len(oracle.prefer(*texts)) == len(texts[0])


def test_signature_is_the_familys(module: ModuleType) -> None:
    parameters = list(inspect.signature(module.ORACLE.prefer).parameters)
    assert parameters == ["self", "prompts", "first", "second"]
