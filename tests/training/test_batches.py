from dataclasses import dataclass

import numpy as np

from dpo_diag.training.batches import (
    by_length,
    epoch_order,
    pack,
    pack_answers,
    pack_pairs,
    step_units,
)


@dataclass(frozen=True)
class Item:
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


def test_pack_of_two_sequences_by_hand() -> None:
    """Prompt 5 6 and answer 7 8; prompt 1 and answer 2: width is 2 + 2 - 1 = 3.

    Token 7 is predicted from place 1 of row 0, token 8 from place 2, token 2 from place 0 of row
    1, which is place 3 of the flattened rows.
    """
    batch = pack([Item((5, 6), (7, 8)), Item((1,), (2,))])
    assert batch.input_ids.tolist() == [[5, 6, 7], [1, 0, 0]]
    assert batch.positions.tolist() == [1, 2, 3]
    assert batch.targets.tolist() == [7, 8, 2]
    assert batch.rows.tolist() == [0, 0, 1]
    assert batch.columns.tolist() == [0, 1, 0]
    assert batch.n_tokens.tolist() == [2, 1]


def test_a_pair_in_one_row_by_hand() -> None:
    """Prompt 5 6, chosen 7 8, rejected 9 3 4: the row is 5 6 | 7 | 9 3.

    7 and 9 are both predicted from place 1, 8 from place 2 (the 7), 3 and 4 from places 3 and 4.
    The answers' inputs stand at positions 2; 2, 3. Place 3 (the 9) sees the prompt and itself.
    """
    batch = pack_pairs([Item((5, 6), (7, 8))], [Item((5, 6), (9, 3, 4))])
    assert batch.input_ids.tolist() == [[5, 6, 7, 9, 3]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 2, 3]]
    assert batch.positions.tolist() == [1, 2, 1, 3, 4]
    assert batch.targets.tolist() == [7, 8, 9, 3, 4]
    assert batch.rows.tolist() == [0, 0, 1, 1, 1]
    assert batch.n_tokens.tolist() == [2, 3]
    assert batch.mask[0, 0, 3].tolist() == [True, True, False, True, False]


def test_two_prompts_in_one_row_by_hand() -> None:
    """Stretches of 6, 2 and 3 inputs: the longest goes with the shortest, which saves 2 of 18.

    Row 0 is 5 | 1 2 | 3 4 | 6 (prompt, then answers 1 2 9; 3 4 9; 6 9) and 7 | 8 (an answer 8 9,
    two of one token, which are no inputs); row 1 is 4 4 | 5. Place 7 (the 8) sees the 7 and
    itself; the 8 stands at position 1 of its own text.
    """
    one, two, three = (
        [Item((5,), (1, 2, 9)), Item((7,), (8, 9)), Item((4, 4), (5, 9))],
        [Item((5,), (3, 4, 9)), Item((7,), (9,)), Item((4, 4), (9,))],
        [Item((5,), (6, 9)), Item((7,), (9,)), Item((4, 4), (9,))],
    )
    batch = pack_answers((one, two, three), fold=True)
    assert batch.input_ids.tolist() == [[5, 1, 2, 3, 4, 6, 7, 8], [4, 4, 5, 0, 0, 0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 1, 2, 1, 0, 1], [0, 1, 2, 0, 0, 0, 0, 0]]
    # sequences: 1 2 9; 8 9; 5 9; 3 4 9; 9; 9; 6 9; 9; 9
    by_hand = [[0, 1, 2], [6, 7], [9, 10], [0, 3, 4], [6], [9], [0, 5], [6], [9]]
    assert batch.positions.tolist() == [place for places in by_hand for place in places]
    assert batch.mask[0, 0, 7].tolist() == [False] * 6 + [True] * 2
    assert batch.mask[0, 0, 5].tolist() == [True, False, False, False, False, True, False, False]
    assert pack_answers((one, two, three)).input_ids.shape == (3, 6)


def test_stretches_of_one_length_keep_rows_of_their_own() -> None:
    items = [Item((1, 2), (3, 4))] * 4
    assert pack_answers((items, items, items), fold=True).input_ids.shape == (4, 5)


def test_batches_by_length_hold_everything_once_longest_first() -> None:
    items = [Item((1,) * n, (2,)) for n in (3, 1, 4, 1, 5)]
    batches = list(by_length(items, 2))
    assert sorted(np.concatenate(batches).tolist()) == [0, 1, 2, 3, 4]
    assert batches[0].tolist() == [4, 2]


def test_every_unit_comes_once_per_epoch() -> None:
    steps = [step_units(0, step, n=10, batch_size=4) for step in range(3)]
    assert [len(step) for step in steps] == [4, 4, 2]
    assert sorted(np.concatenate(steps).tolist()) == list(range(10))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert (epoch_order(1, 0, 50) == epoch_order(1, 0, 50)).all()
    assert (epoch_order(1, 0, 50) != epoch_order(1, 1, 50)).any()
    assert (epoch_order(1, 0, 50) != epoch_order(2, 0, 50)).any()
