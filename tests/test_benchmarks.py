"""The benchmarks run, compare the same work, and count it rightly. No timing is tested."""

import pytest

from benchmarks import generation, training
from benchmarks.side_by_side import Row, machine, seconds_each, table


def test_generation_is_the_same_work(tiny_model):
    assert generation.same_codes(tiny_model, 12) == 1.0
    rows = generation.compare(tiny_model, seconds=0.2, rounds=1)
    assert len(rows) == 2 and all(row.value > 0 and row.peer > 0 for row in rows)


def test_training_rows(tiny_model):
    rows = training.compare(tiny_model, seconds=0.2, batch_size=2, rounds=1)
    assert len(rows) == 2 and all(row.value > 0 and row.peer > 0 for row in rows)
    assert not tiny_model.lm.training
    assert all(p.grad is None for p in tiny_model.lm.parameters())


def test_ways_take_turns_and_the_first_round_does_not_count():
    calls = []
    taken = seconds_each({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert "".join(calls) == "baabba" and set(taken) == {"a", "b"}


def test_table_and_machine():
    rows = [Row("speed", 30.0, "frames/s", 10.0, "ratio at least 3"), Row("import", 0.1, "s")]
    text = table(rows)
    assert "| speed | 30 frames/s | 10 frames/s | 3.00 | ratio at least 3 |" in text
    assert "| import | 0.1 s |  |  |  |" in text
    assert rows[0].as_json()["ratio"] == pytest.approx(3)
    assert machine()["cores"] >= 1
