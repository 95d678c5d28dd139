"""Checks pass on the notebook's solution; on stub and wrong answers they say what is wrong.

The answers are read out of the notebooks, so what a reader sees is what is tested.
"""

import ast
import inspect
import re
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stage_lite as sl
from stage_lite import checks
from stage_lite.audio import mix
from stage_lite.checks import base, fine_tuning, quickstart
from stage_lite.metrics.beats import beat_f1_of_times

ROOT = Path(sl.__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FOLDED = re.compile(r"<details><summary>(.*?)</summary>(.*?)</details>", re.DOTALL)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)

# What the message must name, for each wrong answer that the notebooks list.
SAYS = {
    "build_song": {
        "the click is still there": "heard 'click' + 'drums, rock'; expected 'drums, rock'",
        "only the last one is heard": "heard 'bass, rock'; expected 'drums, rock' + 'bass, rock'",
        "my click is changed": "changed its argument 'click'",
    },
    "kbit_per_s": {
        "hundreds of times too much": "one frame per hop",
        "factor of 0.69": "nats: a bit is a choice between two",
        "a quarter of it": "That is one codebook",
    },
    "residual_codes": {
        "one codebook and fail two": "Every codebook quantised the latents themselves",
        "two codebooks and fail three": "yours forgets all but the last (3 codebooks)",
        "the shape is not": "got [N, K], expected [K, N]",
    },
    "delay_by_hand": {
        "one step short": "Shift codebook k by k + 1",
        "gaps hold zeros": "hold 0, which is a code like any other",
        "one codebook and fail three": "All codebooks are shifted alike",
    },
    "known_frames": {
        "as if the order were flat": "That is the flat order",
        "as if there were no delay": "chosen at once and know nothing of one another",
        "fail frame 0": "cannot have written fewer than 0 frames",
    },
    "embed_steps": {
        "too wide": "added, not concatenated",
        "I took the mean": "averaged; MusicGen adds them up",
        "positions included": "positions are in there K times",
    },
    "attend_step": {
        "I forget": "the cache is still empty",
        "I come last": "A step does not see itself",
        "too sure": "not divided by the square root",
    },
    "sampling_probs": {
        "the sum is below 1": "the others were not scaled up",
        "hot is cold": "The temperature multiplies",
        "the sum is 2": "probabilities were divided by the temperature",
    },
    "guided": {
        "As audiocraft has it": "that of the model's own coefficient, 3: this is the bug",
        "fail 0": "`cfg_coef or own_coef` loses it",
        "to the letter": "With coefficient 1 the result is the conditional logits",
    },
    "rows_of_batch": {
        "As audiocraft has it": "`assert [False]` never fails",
        "by an assert": "raise ValueError with a sentence",
        "what was not given": "leave None out before you compare",
    },
    "are_codes": {
        "As audiocraft has it": "the special token: it is no code",
        "only upwards": "look at the lower end too",
        "ambiguous": "are_codes raised RuntimeError: Boolean value of Tensor",
    },
    "longer_table": {
        "fail the old rows": "The old rows are not the same to the last bit",
        "cannot learn": "the token would never learn",
        "over an old one": "The last old row was replaced",
    },
    "lay_out": {
        "delayed both parts": "The delay runs over the whole",
        "codebook 0 only": "it is one frame, in all K codebooks",
        "no token": "The token is missing",
    },
    "mask_and_positions": {
        "from the left edge": "The positions do not start anew",
        "pad on the right": "pad on the left",
        "the one without context": "A row without context has no token either",
    },
    "target_loss": {
        "did not shift": "Logits at step s are compared with the codes at step s",
        "out of bounds": "target_loss raised IndexError",
        "length of the target": "The loss is summed",
    },
    "click_by_hand": {
        "fail those that are close": "the second one wiped out the first",
        "size of a tensor": "goes on beyond the end of the track",
        "the range of a wav": "The sum leaves [-1, 1]",
    },
    "beats_of_curve": {
        "fail a tempo that jumps": "placed by the tempo at the beat before",
        "evenly spaced": "That is the mean tempo",
        "hundreds of beats": "Sixty times too many beats",
    },
    "f1_by_hand": {
        "three beats heard twice": "a beat that was heard twice counts twice",
        "fail half of it": "the share of the beats that were heard, the recall",
        "I am at 0": "beats are compared by their number",
    },
    "octave_error": {
        "forgive nothing": "that forgives nothing",
        "far too large": "the octave is right, and still in the percent",
        "100 and 247 bpm": "as a ratio: a tempo is multiplied",
    },
    "dropped_rows": {
        "same rows go without in every step": "every step drops the same rows",
        "Each call gives other rows": "could not go on as it would have",
        "The whole batch": "one number was drawn for all of them",
    },
    "train_step": {
        "counts the context too": "The loss counts the context too",
        "far too large": "the warm-up is missing",
        "the second is not": "The gradients of earlier steps are still in there",
    },
    "snapshot": {
        "the optimizer is forgotten": "the snapshot has no 'optimizer'",
        "other random numbers": "'random' is not the generator's state",
        "the state of the end": "state_dict() is no copy",
    },
    "play_and_rest": {
        "told of a leak": "that is a leak: 1.00 of the drums' own waveform",
        "in pieces": "the hum is in pieces within a burst",
        "told the length is wrong": "got 83200 samples for a window of 2.6 s at 16000 Hz",
        "wrong places": "does the function read the song from its start",
    },
    "leak": {
        "fail the late one": "look at every shift, not only at none",
        "upside down": "A wav times -1 sounds the same",
        "get nan": "0 / 0 is no number",
    },
    "step_positions": {
        "round and round": "Counting goes round",
        "one number late": "the token takes 0",
        "two ways": "Aligned or not, your numbers are the same",
    },
    "head_weights": {
        "do not sum to 1": "Yours was masked after the softmax",
        "know the future": "The future is visible",
        "too sure": "not divided by the square root of d",
    },
    "diagonal_share": {
        "mean of the rows": "Sum first, divide then",
        "the past only": "Only what is earlier counts",
        "when they look elsewhere": "not by the number of frames",
    },
    "cut_head": {
        "I cut rows": "Rows are cut",
        "every n-th column": "stand side by side",
        "changed an argument": "changed its argument 'matrix'",
    },
    "count_parameters": {
        "one attention a layer": "One attention a layer is missing",
        "tables like heads": "A table has card + 1 rows",
        "counted biases": "These matrices have no biases",
    },
    "rename_layer": {
        "every third row": "blocks of dim rows below one another: chunk, not [::3]",
        "fail layer 1": "is three entries there, 3, 4, 5",
        "did not cut": "in_proj_weight is still one matrix",
    },
    "cache_bytes": {
        "half of it": "the cache holds both",
        "four times as much": "whatever the number of codebooks",
        "square of the steps": "The cache grows with the steps",
    },
    "song_interval": {
        "too narrow": "windows of one song are alike",
        "in another order": "draw with replacement",
        "fail the long one": "the mean of the songs' means",
    },
    "frechet": {
        "sets of one size": "The axes are swapped",
        "root of each entry": "is not the matrix of the roots",
        "is a distance": "squared distance of the means",
    },
    "ranks_of_right": {
        "argsort": "argsort tells which mix stands in place m",
        "of everything finds all": "The right mix wins every tie",
        "along the rows": "You ranked stems for each mix",
    },
}


def exercises():
    """(notebook, names it imports, check, {title: code}, stub) of every exercise."""
    for file in NOTEBOOKS:
        cells = nbformat.read(file, 4).cells
        (setup,) = [c.source for c in cells if c.cell_type == "code" and "SEED =" in c.source]
        imports = [n for n in ast.parse(setup).body if isinstance(n, ast.Import | ast.ImportFrom)]
        for i, cell in enumerate(cells):
            called = re.fullmatch(r"checks\.(\w+)\((\w+)\)", cell.source.strip())
            if called:
                answers = {}
                for title, text in FOLDED.findall(cells[i + 1].source):
                    for code in CODE.findall(text):
                        assert title not in answers, title
                        answers[title] = code
                yield file.stem, ast.unparse(imports), called[1], answers, cells[i - 1].source


EXERCISES = list(exercises())
NAMES = [check for _, _, check, _, _ in EXERCISES]
ANSWERS = [
    pytest.param(imports, check, title, code, id=f"{notebook}-{check}-{title}")
    for notebook, imports, check, answers, _ in EXERCISES
    for title, code in answers.items()
]


def function_of(code, name, imports="import torch"):
    names = {}
    exec(compile(imports, "set-up", "exec"), names)
    exec(compile(code, "answer", "exec"), names)
    return names[name]


def solution_of(name):
    (found,) = [(i, a["Solution"]) for _, i, check, a, _ in EXERCISES if check == name]
    return function_of(found[1], name, found[0])


def public_checks():
    return set(checks.__all__) - {"NotYet", "passed"}


def test_there_are_exercises_and_every_check_has_one():
    assert set(NAMES) == public_checks() and len(NAMES) == len(set(NAMES))
    for name in public_checks():
        module = inspect.getmodule(getattr(checks, name))
        (notebook,) = [n for n, _, check, _, _ in EXERCISES if check == name]
        assert module.__doc__.rstrip().endswith(f"Notebook: {notebook}.")


@pytest.mark.parametrize(
    "imports, check, answers, stub", [e[1:] for e in EXERCISES], ids=NAMES
)  # fmt: skip
def test_stub_and_folded_parts(imports, check, answers, stub):
    assert "Solution" in answers, "the solution is not there, or not folded"
    assert len(answers) >= 4, "expected three wrong answers beside the solution"
    assert '"""' in stub and "->" in stub, "a stub has types and a docstring"
    with pytest.raises(checks.NotYet, match=f"{check} is still the stub.*first hint") as error:
        getattr(checks, check)(function_of(stub, check, imports))
    assert error.value._render_traceback_() == [f"Not yet: {error.value}"]


@pytest.mark.parametrize("imports, check, title, code", ANSWERS)
def test_answers_of_the_notebook(imports, check, title, code, capsys):
    answer = function_of(code, check, imports)
    assert not checks.passed(answer)
    if title == "Solution":
        getattr(checks, check)(answer)
        assert "Passed" in capsys.readouterr().out and checks.passed(answer)
        return
    (message,) = [says for part, says in SAYS[check].items() if part in title]
    with pytest.raises(checks.NotYet, match=re.escape(message)):
        getattr(checks, check)(answer)
    assert not checks.passed(answer)


def test_every_message_expected_belongs_to_an_answer():
    listed = {(check, title) for _, _, check, answers, _ in EXERCISES for title in answers}
    for check, parts in SAYS.items():
        for part in parts:
            assert [t for c, t in listed if c == check and part in t], (check, part)


# --- any exercise, any nonsense ------------------------------------------------------------------


def endless(*arguments):
    while True:
        pass


def failing(*arguments):
    return {}["nothing"]


NONSENSE = {
    "None": lambda *a: None,
    "a string": lambda *a: "drums",
    "a list": lambda *a: ["drums"],
    "a tuple": lambda *a: (None, None),
    "another shape": lambda *a: torch.zeros(2, 7, 5),
    "another type": lambda *a: torch.zeros(3, dtype=torch.complex64),
    "no numbers": lambda *a: torch.zeros(0),
    "not a number": lambda *a: torch.full((2, 3), float("nan")),
    "minus one": lambda *a: -1,
}


@pytest.mark.parametrize("name", NAMES)
def test_nonsense_gets_a_sentence(name, unchecked_types):
    for what, function in NONSENSE.items():
        with pytest.raises(checks.NotYet) as error:
            getattr(checks, name)(function)
        assert len(str(error.value)) > 15, (name, what)
    with pytest.raises(checks.NotYet, match="raised KeyError: 'nothing', in its line 2: `return"):
        getattr(checks, name)(failing)
    with pytest.raises(checks.NotYet, match="got a int; expected the function itself"):
        getattr(checks, name)(3)


@pytest.mark.parametrize("name", NAMES)
def test_an_endless_loop_ends(name, monkeypatch):
    monkeypatch.setattr(base, "TIME_LIMIT_S", 0.05)
    before = threading.active_count()
    with pytest.raises(checks.NotYet, match=r"still running after 0\.05 s"):
        getattr(checks, name)(endless)
    for _ in range(1000):  # the loop itself is ended, too
        if threading.active_count() <= before:
            return
        time.sleep(0.01)
    raise AssertionError("the reader's loop goes on in the background")


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("kbit_per_s", "known_frames",
                                  "rows_of_batch", "mask_and_positions", "play_and_rest",
                                  "count_parameters", "cache_bytes",
                                  "step_positions", "dropped_rows", "train_step",
                                  "snapshot", "octave_error")])  # fmt: skip
def test_arguments_stay_as_they_were(name):
    """A function that is right, and writes into what it was given."""
    right = solution_of(name)
    tensors = []

    def rude(*arguments):
        result = right(*arguments)
        tensors[:] = [t for t in base._flat(list(arguments)) if t.numel()]
        with torch.no_grad():
            tensors[0].add_(1)
        return result

    with pytest.raises(checks.NotYet, match="changed its argument"):
        getattr(checks, name)(rude)


def test_where_the_reader_went_wrong_is_said_without_its_source_too():
    code = "def are_codes(codes, card):\n    x = 1\n    return x / 0\n"
    with pytest.raises(checks.NotYet, match="ZeroDivisionError: division by zero, in its line 3$"):
        checks.are_codes(function_of(code, "are_codes"))


def test_a_stub_within_a_loop_or_an_exit_is_no_end():
    def leave(*arguments):
        raise SystemExit

    with pytest.raises(checks.NotYet, match="raised SystemExit: no message"):
        checks.are_codes(leave)


# --- more ways to be wrong, and to be right, exercise by exercise --------------------------------


@pytest.mark.parametrize(
    "name, function, message",
    [
        ("kbit_per_s", lambda r, h, q, c: r / h * q * c / 1000, "log2"),
        ("kbit_per_s", lambda r, h, q, c: 1800.0, "That is in bits a second"),
        ("kbit_per_s", lambda r, h, q, c: 1.0, "expected 1.8: frames a second"),
        ("kbit_per_s", lambda r, h, q, c: True, "got a bool; expected a number"),
        ("residual_codes", lambda x, b: torch.cdist(x, b[0]).argmax(1)[None], "farthest"),
        ("residual_codes", lambda x, b: solution_of("residual_codes")(x, b).float(),
         "got torch.float32; expected whole numbers"),
        ("delay_by_hand", lambda c, s: torch.roll(c, 1, -1), r"got the shape \[1, 3, 4\]"),
        ("delay_by_hand", lambda c, s: sl.delay(c, s)[..., : c.shape[2]], "The end is cut off"),
        ("delay_by_hand", lambda c, s: sl.delay(c, s).float(), "expected whole numbers"),
        ("known_frames", lambda k, t, n: [max(0, t - k + j) for j in range(n)], "turned round"),
        ("known_frames", lambda k, t, n: [t + k - j + 1 for j in range(n)], "One too many"),
        ("known_frames", lambda k, t, n: [0] * n, "count what stands left"),
        ("known_frames", lambda k, t, n: [0.5] * n, "whole numbers, one per codebook; got"),
        ("embed_steps", lambda t, s, p: sum(t[0][s[:, k]] for k in range(len(t))) + p,
         "first table"),
        ("embed_steps", lambda t, s, p: sum(t[k][s[:, k]] for k in range(len(t))),
         "positions are missing"),
        ("embed_steps", lambda t, s, p: t[0][s[:, 0]] + p, "Only codebook 0"),
        ("attend_step", lambda q, k, v, c: c.append(1) or v, "sees only itself"),
        ("attend_step", lambda q, k, v, c: c.extend([1, 1]) or v, "12 entries"),
        ("attend_step", lambda q, k, v, c: v[:2], r"got the shape \[2\]"),
        ("sampling_probs", lambda x, t, k: x.softmax(0), "temperature was ignored"),
        ("sampling_probs", lambda x, t, k: (x / t).softmax(0), "top_k was ignored"),
        ("sampling_probs", lambda x, t, k: x / t, "Those are logits"),
        ("guided", lambda y, n, c, o: y + (o if c is None else c) * (n - y), "roles are swapped"),
        ("guided", lambda y, n, c, o: n + (o if c is None else c) * (n - y), "wrong sign"),
        ("rows_of_batch", lambda sizes: 3, "passed .got 3., although the rows disagree"),
        ("are_codes", lambda c, card: (c >= 0) & (c < card), "expected one True or False"),
        ("are_codes", lambda c, card: bool((c < card).any()), "look|special|no code"),
        ("longer_table", lambda t, r: torch.cat([t.weight, r[None]]), "got a Tensor"),
        ("longer_table", lambda t, r: nn.Embedding.from_pretrained(
            torch.cat([r[None], t.weight.detach()]), freeze=False), "stands first"),
        ("longer_table", lambda t, r: nn.Embedding.from_pretrained(
            torch.cat([t.weight.detach().float(), r[None]]), freeze=False),
         "was torch.float16 and became"),
        ("longer_table", lambda t, r: t, "has not grown"),
        ("lay_out", lambda c, t, s, x: torch.cat([c, torch.full((len(c), 1), x), t], 1),
         "There is no delay yet"),
        ("lay_out", lambda c, t, s, x: solution_of("lay_out")(t, c, s, x), "changed places"),
        ("lay_out", lambda c, t, s, x: solution_of("lay_out")(c, t, s, s), "special token"),
        ("mask_and_positions", lambda *a: solution_of("mask_and_positions")(*a)[0],
         "got a Tensor; expected two tensors"),
        ("mask_and_positions", lambda *a: (lambda m, p: (~m, p))(
            *solution_of("mask_and_positions")(*a)), "turned round"),
        ("mask_and_positions", lambda *a: (lambda m, p: (torch.ones_like(m), p))(
            *solution_of("mask_and_positions")(*a)), "Nothing is masked"),
        ("mask_and_positions", lambda *a: (lambda m, p: (m, p + 1))(
            *solution_of("mask_and_positions")(*a)), "begin with 1"),
        ("mask_and_positions", lambda *a: (lambda m, p: (m.long(), p))(
            *solution_of("mask_and_positions")(*a)), "int64; expected bools"),
        ("target_loss", lambda x, s, m: F.cross_entropy(x[:, :-1][m[:, :-1]],
            s[:, 1:].clamp(max=x.shape[2] - 1)[m[:, :-1]]), "moved the wrong way"),
        ("target_loss", lambda x, s, m: -solution_of("target_loss")(x, s, m), "the loss: 1 of 1"),
        ("count_parameters", lambda q, c, d, n: solution_of("count_parameters")(q, c, d, n) - 2 * d,
         "The last norm"),
        ("count_parameters", lambda q, c, d, n: solution_of("count_parameters")(q, c, d, n) + q * d,
         "A head has card columns"),
        ("count_parameters", lambda q, c, d, n: solution_of("count_parameters")(q, c, d, 1),
         "That is one layer"),
        ("count_parameters", lambda q, c, d, n: 1.5, "expected a whole number"),
        ("count_parameters", lambda q, c, d, n: 7, "got 7, expected .* too few"),
        ("rename_layer", lambda s, i: list(s), "got a list; expected a dictionary"),
        ("rename_layer", lambda s, i: {n: x.t() if x.dim() == 2 and "ff" in n else x
            for n, x in solution_of("rename_layer")(s, i).items()}, "is transposed"),
        ("rename_layer", lambda s, i: (lambda o: o | {n: o[n.replace("to_q", "to_v")] for n in o
            if "to_q" in n})(solution_of("rename_layer")(s, i)), "another third of the matrix"),
        ("rename_layer", lambda s, i: solution_of("rename_layer")(s, i) | {"out_norm.bias": 1},
         "'out_norm.bias' is no part of layer 0"),
        ("rename_layer", lambda s, i: {}, "layer 0: there is no 'lm.decoder"),
        ("rename_layer", lambda s, i: {
            n: x + 1 for n, x in solution_of("rename_layer")(s, i).items()}, "or changed numbers"),
        ("cache_bytes", lambda n, h, w, r, s, b: 2 * n * h * w * r * s, "That is how many numbers"),
        ("cache_bytes", lambda n, h, w, r, s, b: 2 * n * w * r * s * b, "That is one head"),
        ("cache_bytes", lambda n, h, w, r, s, b: 3 * n * h * w * r * s * b, "Queries are not kept"),
        ("click_by_hand", lambda s, t, a, n, r: solution_of("click_by_hand")(
            s, t, np.ones_like(a), n, r), "equally loud"),
        ("click_by_hand", lambda s, t, a, n, r: solution_of("click_by_hand")(s, t, a, n, r)[0],
         r"got the shape \[8000\]"),
        ("beats_of_curve", lambda b, s: solution_of("beats_of_curve")(b, s)[1:],
         "Beat 0 is missing"),
        ("beats_of_curve", lambda b, s: solution_of("beats_of_curve")(3600 / b, s),
         "length of a beat was integrated"),
        ("beats_of_curve", lambda b, s: solution_of("beats_of_curve")(b, s)[:-1],
         "got 3 beats; expected 4"),
        ("beats_of_curve", lambda b, s: solution_of("beats_of_curve")(b, s) + 0.1, "where the sum"),
        ("f1_by_hand", lambda b, h, w: solution_of("f1_by_hand")(b, h, w)
         * (len(b) + len(h)) / 2 / max(1, len(h)), "the precision"),
        ("f1_by_hand", lambda b, h, w: solution_of("f1_by_hand")(b, h, 0.07), "narrow window"),
        ("f1_by_hand", lambda b, h, w: solution_of("f1_by_hand")(b, h, w) if h[0] >= 0 else 0,
         "nothing heard: .*F1 is 0"),
        ("octave_error", lambda a, h: solution_of("octave_error")(h, a), "turned round"),
        ("octave_error", lambda a, h: (lambda o, p: (o, p / 100))(
            *solution_of("octave_error")(a, h)), "that is a share"),
        ("octave_error", lambda a, h: solution_of("octave_error")(a, h)[1], "expected two numbers"),
        ("dropped_rows", lambda n, p, s: torch.tensor(
            [i * 0.618 % 1 < p for i in n]), "the seed takes no part"),
        ("dropped_rows", lambda n, p, s: ~solution_of("dropped_rows")(n, p, s),
         "Is the comparison turned round"),
        ("dropped_rows", lambda n, p, s: torch.rand(len(n), generator=torch.Generator()
            .manual_seed(s + n[0])) < p, "changes with the batch that it is in"),
        ("train_step", lambda m, o, p, s, c: fine_tuning._step(
            m, o, p, s, warm=lambda step, n: min(1.0, step / n)), "count from .step . 1"),
        ("train_step", lambda m, o, p, s, c: fine_tuning._step(
            m, o, p, s, warm=lambda step, n: (step + 1) / n), "goes on rising"),
        ("train_step", lambda m, o, p, s, c: fine_tuning._step(m, o, p, s, clip=False),
         "The gradient is not clipped"),
        ("train_step", lambda m, o, p, s, c: 1.0, "Nothing has moved"),
        ("train_step", lambda m, o, p, s, c: fine_tuning._step(m, o, p, s) + 1, "the loss of step"),
        ("train_step", lambda m, o, p, s, c: (fine_tuning._step(m, o, p, s), torch.zeros(
            [], requires_grad=True) * 1)[1], "return float"),
        ("snapshot", lambda m, o, g, s: solution_of("snapshot")(m, o, g, s + 1), "'step' is 4"),
        ("snapshot", lambda m, o, g, s: {**solution_of("snapshot")(m, o, g, s),
            "lm": m.state_dict()}, "'lm' has changed since"),
        ("snapshot", lambda m, o, g, s: (solution_of("snapshot")(m, o, g, s),
            torch.rand(1, generator=g))[0], "a snapshot is a look"),
        ("play_and_rest", lambda s, w: solution_of("play_and_rest")(s, w)
         + 0.3 * s.stem(w.target, w.start_s, w.duration_s), "that is a leak: 0"),
        ("play_and_rest", lambda s, w: 0.5 * s.mix(None, w.start_s, w.duration_s),
         "that is a leak"),
        ("play_and_rest", lambda s, w: torch.full((1, round(w.duration_s * s.sample_rate)), 0.1),
         "The hum never stops|the hum never stops"),
        ("play_and_rest", lambda s, w: torch.zeros(1, round(w.duration_s * s.sample_rate)),
         "does not sound where the drums do"),
        ("play_and_rest", lambda s, w: solution_of("play_and_rest")(s, w)[0], "one channel"),
        ("play_and_rest", lambda s, w: 0.5 * solution_of("play_and_rest")(s, w),
         "level of 0.035 .RMS.; expected 0.071"),
        ("play_and_rest", lambda s, w: solution_of("play_and_rest")(
            s, sl.Window(s, w.start_s, w.duration_s, "drums", 0)), "always the drums"),
        ("play_and_rest", lambda s, w: solution_of("play_and_rest")(s, w)
         * (1 + 0.01 * torch.rand(1)), "two different wavs"),
        ("leak", lambda c, t: (c * t).sum().abs(), "A copy has 1: divide by both norms"),
        ("leak", lambda c, t: float(solution_of("leak")(c, t) * (t.norm() / c.norm())),
         "A quiet copy is a copy"),
        ("leak", lambda c, t: 1.0, "a copy that is late: got 1"),
        ("step_positions", lambda c, t, k, a: torch.arange(c + 1 + t + k) - a * (c + 1),
         "most at"),
        ("step_positions", lambda c, t, k, a: solution_of("step_positions")(c + a, t - a, k, a),
         "one number early"),
        ("step_positions", lambda c, t, k, a: solution_of("step_positions")(c, t, k, not a),
         "Aligned or not|most at"),
    ],
)  # fmt: skip
def test_other_ways_to_be_wrong(name, function, message):
    with pytest.raises(checks.NotYet, match=message):
        getattr(checks, name)(function)
    assert not checks.passed(function)


@pytest.mark.parametrize(
    "name, function",
    [
        ("kbit_per_s", lambda r, h, q, c: torch.tensor(r / h * q).double() * (c.bit_length() - 1)
         / 1000),
        ("residual_codes", lambda x, b: solution_of("residual_codes")(x, b).int()),
        ("delay_by_hand", sl.delay),
        ("known_frames", lambda k, t, n: torch.arange(n).neg().add(t + k).clamp(min=0)),
        ("embed_steps", lambda t, s, p: torch.stack([w[s[:, k]] for k, w in enumerate(t)]).sum(0)
         + p[None]),
        ("sampling_probs", lambda x, t, k: solution_of("sampling_probs")(x - x.max(), t, k)),
        ("guided", lambda y, n, c, o: torch.lerp(n, y, o if c is None else c)),
        ("are_codes", lambda c, card: ((c >= 0) & (c < card)).all()),
        ("lay_out", lambda c, t, s, x: sl.build_prefix(
            c[None], t[None], special_token_id=s, context_token_id=x).sequence[0]),
        ("target_loss", lambda x, s, m: solution_of("target_loss")(x, s, m).item()),
        ("click_by_hand", lambda s, t, a, n, r: solution_of("click_by_hand")(
            s, t, a, n, r).numpy()),
        ("beats_of_curve", lambda b, s: solution_of("beats_of_curve")(b, s).tolist()),
        ("f1_by_hand", lambda b, h, w: torch.tensor(solution_of("f1_by_hand")(b, h, w))),
        ("f1_by_hand", lambda b, h, w: beat_f1_of_times(b, h, w)),
        ("octave_error", lambda a, h: [np.float64(x) for x in solution_of("octave_error")(a, h)]),
        ("train_step", lambda m, o, p, s, c: torch.tensor(fine_tuning._step(m, o, p, s))),
        ("play_and_rest", lambda s, w: None if s.stem(w.target, w.start_s, w.duration_s).norm() < 1
         else solution_of("play_and_rest")(s, w).double()),
        ("leak", lambda c, t: torch.tensor(solution_of("leak")(t, c))),
        ("step_positions", lambda c, t, k, a: torch.cat([torch.arange(c + 1), torch.arange(t + k)
         + (0 if a else c + 1)])),
    ],
)  # fmt: skip
def test_other_ways_to_be_right(name, function):
    getattr(checks, name)(function)
    assert checks.passed(function)


def test_the_library_passes_its_own_exercises():
    """What the reader builds is what the library does."""

    def both(lengths, n_target, n_q):
        contexts = [None if n is None else torch.zeros(n_q, n, dtype=torch.long) for n in lengths]
        target = torch.zeros(len(lengths), n_q, n_target, dtype=torch.long)
        prefix = sl.build_prefix(contexts, target, special_token_id=8, context_token_id=9)
        return prefix.attention_mask, prefix.positions

    checks.mask_and_positions(both)


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
def test_other_ways_to_build_a_song(context_of):
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
def test_other_ways_to_build_it_wrong(wrong, message):
    build = song_builder(**wrong)
    with pytest.raises(checks.NotYet, match=message):
        checks.build_song(build)
    assert not checks.passed(build)


def test_the_stand_in_is_called_as_the_model_is():
    """A solution that passes runs with the real model: same parameters, same order."""
    real = inspect.signature(sl.StageModel.generate).parameters
    fake = [n for n, p in inspect.signature(quickstart._Band.generate).parameters.items()
            if p.kind is not p.VAR_KEYWORD]  # fmt: skip
    assert fake == [name for name in real if name in fake]
    assert fake[1:5] == list(real)[1:5]


def test_the_solution_runs_with_a_real_model(tiny_model):
    build = solution_of("build_song")
    click = sl.click_track([0.1, 0.6], duration_s=1.0, sample_rate=tiny_model.sample_rate)
    stems = build(tiny_model, click, ["drums, rock", "bass, rock"], 0)
    assert [stem.shape for stem in stems] == [(1, tiny_model.sample_rate)] * 2
