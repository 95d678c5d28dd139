"""Checks pass on the notebook's solution; on stub and wrong answers they say what is wrong.

The answers are read out of the notebooks, so what a reader sees is what is tested.
"""

import inspect
import re
from pathlib import Path

import nbformat
import pytest
import torch
from torch import Tensor

import stage_lite as sl
from stage_lite import checks
from stage_lite.audio import mix

ROOT = Path(sl.__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = {"sl": sl, "mix": mix, "Tensor": Tensor, "torch": torch}
FOLDED = re.compile(r"<details><summary>(.*?)</summary>(.*?)</details>", re.DOTALL)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)

# What the message must name, for each wrong answer that the notebook lists.
SAYS = {
    "the click is still there": "heard 'click' + 'drums, rock'; expected 'drums, rock'",
    "only the last one is heard": "heard 'bass, rock'; expected 'drums, rock' + 'bass, rock'",
    "my click is changed": "changed the click that it was given",
}


def exercises():
    """(notebook, check, {title: code}, stub) of every exercise."""
    for file in NOTEBOOKS:
        cells = nbformat.read(file, 4).cells
        for i, cell in enumerate(cells):
            called = re.fullmatch(r"checks\.(\w+)\((\w+)\)", cell.source.strip())
            if called:
                answers = {}
                for title, text in FOLDED.findall(cells[i + 1].source):
                    for code in CODE.findall(text):
                        answers[title] = code
                yield file.stem, called[1], answers, cells[i - 1].source


EXERCISES = list(exercises())
ANSWERS = [
    pytest.param(check, title, code, id=f"{notebook}-{check}-{title}")
    for notebook, check, answers, _ in EXERCISES
    for title, code in answers.items()
]


def function_of(code, name):
    names = dict(NAMES)
    exec(compile(code, "answer", "exec"), names)
    return names[name]


def test_there_are_exercises_and_every_check_has_one():
    public = {
        name
        for name, thing in vars(checks).items()
        if inspect.isfunction(thing)
        and thing.__module__ == checks.__name__
        and not name.startswith("_")
    } - {"passed"}
    assert {check for _, check, _, _ in EXERCISES} == public


@pytest.mark.parametrize("notebook, check, answers, stub", EXERCISES, ids=lambda v: str(v)[:20])
def test_stub_and_folded_parts(notebook, check, answers, stub):
    assert "Solution" in answers, "the solution is not there, or not folded"
    assert len(answers) >= 4, "expected three wrong answers beside the solution"
    assert '"""' in stub and "->" in stub, "a stub has types and a docstring"
    with pytest.raises(checks.NotYet, match=f"{check} is still the stub.*first hint") as error:
        getattr(checks, check)(function_of(stub, check))
    assert error.value._render_traceback_() == [f"Not yet: {error.value}"]


@pytest.mark.parametrize("check, title, code", ANSWERS)
def test_answers_of_the_notebook(check, title, code, capsys):
    answer = function_of(code, check)
    assert not checks.passed(answer)
    if title == "Solution":
        getattr(checks, check)(answer)
        assert "Passed" in capsys.readouterr().out and checks.passed(answer)
        return
    (message,) = [says for part, says in SAYS.items() if part in title]
    with pytest.raises(checks.NotYet, match=re.escape(message)):
        getattr(checks, check)(answer)
    assert not checks.passed(answer)


# --- build_song: more ways to be wrong, and to be right ----------------------------------------


def song_builder(
    context_of=lambda click, stems: mix(stems) if stems else click,
    keep=lambda out: out.wav[0],
    result=lambda stems: stems,
    rate=lambda model: model.sample_rate,
    order=lambda descriptions: descriptions,
    seed_of=lambda seed: seed,
):
    def build(model, click, descriptions, seed):
        stems = []
        for description in order(descriptions):
            out = model.generate(
                context=context_of(click, stems),
                context_sample_rate=rate(model),
                description=description,
                seed=seed_of(seed),
            )
            stems.append(keep(out))
        return result(stems)

    return build


@pytest.mark.parametrize(
    "context_of",
    [
        lambda click, stems: sum(stems) if stems else click,
        lambda click, stems: (sum(stems) if stems else click)[0],  # [L]
        lambda click, stems: (sum(stems) if stems else click)[None],  # [1, 1, L]
        lambda click, stems: (sum(stems) if stems else click).numpy(),
    ],
)
def test_other_ways_to_be_right(context_of):
    checks.build_song(song_builder(context_of))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"context_of": lambda click, stems: click}, "The click is for the first stem only"),
        ({"context_of": lambda click, stems: None}, "had no context.*the click"),
        ({"context_of": lambda click, stems: click * 0}, "heard silence; expected 'click'"),
        (
            {"context_of": lambda click, stems: sum(stems) / len(stems) if stems else click},
            "at 0.50 of its level.*do not average",
        ),
        ({"rate": lambda model: None}, "context_sample_rate = None"),
        ({"rate": lambda model: 44100}, "context_sample_rate = 44100"),
        ({"order": lambda descriptions: descriptions[::-1]}, "the model was told .'keys, rock'"),
        ({"order": lambda descriptions: descriptions[:2]}, "called 2 times for 3 descriptions"),
        ({"result": lambda stems: None}, "returned NoneType.*return stems"),
        ({"result": lambda stems: stems[:1]}, "returned 1 stems; expected 3"),
        ({"result": lambda stems: stems[::-1]}, "where 'drums, rock' should be"),
        ({"result": lambda stems: [s[None] for s in stems]}, r"shape \(1, 1, \d+\); expected"),
        ({"result": lambda stems: [s.numpy() for s in stems]}, "is a ndarray; expected its audio"),
        ({"seed_of": lambda seed: None}, "pass seed=seed on"),
    ],
)
def test_other_ways_to_be_wrong(wrong, message):
    build = song_builder(**wrong)
    with pytest.raises(checks.NotYet, match=message):
        checks.build_song(build)
    assert not checks.passed(build)


def test_an_error_of_the_readers_own_is_shown_as_it_is():
    def build(model, click, descriptions, seed):
        return descriptions[99]

    with pytest.raises(IndexError):
        checks.build_song(build)


def test_the_stand_in_is_called_as_the_model_is():
    """A solution that passes runs with the real model: same parameters, same order."""
    real = inspect.signature(sl.StageModel.generate).parameters
    fake = [n for n, p in inspect.signature(checks._Band.generate).parameters.items()
            if p.kind is not p.VAR_KEYWORD]  # fmt: skip
    assert fake == [name for name in real if name in fake]
    assert fake[1:5] == list(real)[1:5]


def test_the_solution_runs_with_a_real_model(tiny_model):
    (code,) = [answers["Solution"] for _, check, answers, _ in EXERCISES if check == "build_song"]
    build = function_of(code, "build_song")
    click = sl.click_track([0.1, 0.6], duration_s=1.0, sample_rate=tiny_model.sample_rate)
    stems = build(tiny_model, click, ["drums, rock", "bass, rock"], 0)
    assert [stem.shape for stem in stems] == [(1, tiny_model.sample_rate)] * 2
