"""ListeningTest: blind in everything that is sent, written after each answer, resumable."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
import stage_widgets.listening as listening
import torch
from mount import mount
from stage_widgets import ListeningTest

from stage_lite.audio import save_audio
from stage_lite.errors import StageLiteError
from stage_lite.listening_answers import append_answer
from stage_lite.listening_test import (
    LOW_PASS,
    ListeningItem,
    load_listening_test,
    write_listening_test,
)

RATE = 16000
SYSTEMS = ("real", "nano", "shuffled")
SECRET = re.compile(rf"real|nano|shuffled|item-|low-pass|{LOW_PASS}|flac|audio/[0-9a-f]{3}")


def noise(seed, seconds=1.0, level=0.05):
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(1, round(seconds * RATE), generator=generator).clamp(-3, 3)


def make_items(n=2, systems=SYSTEMS, seconds=1.0):
    return [
        ListeningItem(
            f"item-{i}",
            {s: (noise(10 * i + j, seconds, 0.02 * 3**j), RATE) for j, s in enumerate(systems)},
            (noise(10 * i + 9, seconds), RATE),
        )
        for i in range(n)
    ]


@pytest.fixture
def pairs(tmp_path):
    return ListeningTest(make_items(), folder=tmp_path / "t")


@pytest.fixture
def sheets(tmp_path):
    return ListeningTest(make_items(), folder=tmp_path / "t", form="sheets", listener=2)


def says(widget, **content):
    """A message of the browser; its traceback is the test's."""
    widget._on_message(widget, {"kind": "answer", "trial": widget.trial.id, **content}, [])


# --- blind -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pairs", "sheets"])
def test_nothing_that_is_sent_tells_which_is_which(form, tmp_path):
    widget = ListeningTest(make_items(), folder=tmp_path / "t", form=form)
    data, _ = widget._repr_mimebundle_()
    state = {k: v for k, v in widget.get_state().items() if k not in ("_esm", "_css", "_pcm")}
    for text in (json.dumps(state, default=str), data["text/html"], data["text/plain"]):
        outside = re.sub(r"base64,[^\"]*", "", text)
        assert not SECRET.search(outside), SECRET.search(outside)
    sizes = {(e["channels"], e["samples"]) for e in widget._clips}
    assert len(sizes) == 1, "clips differ in length"
    names = [e["name"].partition("/")[2] for e in widget._clips]
    expected = ["1", "2"] if form == "pairs" else ["1", "2", "3", "4", "reference"]
    assert names == [*expected, "context"]
    players = re.findall(r"base64,([^\"]*)", data["text/html"])
    assert len(players) == len(names)
    assert len({len(p) for p in players}) == 1 and len(set(players)) == len(players)
    assert len(data["text/html"]) < 50_000


def test_the_hidden_reference_is_the_open_one_but_not_in_its_bytes(sheets):
    test = load_listening_test(sheets._test.folder)
    trial = next(t for t in test.pages(2) if t.id == sheets.trial.id)
    hidden = str(trial.systems.index("real") + 1)
    clips = {
        e["name"].partition("/")[2]: sheets._packed.clip(e["name"])[0] for e in sheets._packed.index
    }
    assert not np.array_equal(clips[hidden], clips["reference"])
    assert np.abs(clips[hidden] - clips["reference"]).max() <= 4 / 32768
    wav, _ = soundfile.read(trial.reference, dtype="float32")
    assert np.abs(clips["reference"] - wav).max() <= 2 / 32768
    others = [clips[str(i)] for i in range(1, 5) if str(i) != hidden]
    assert all(np.abs(clip - clips["reference"]).max() > 0.01 for clip in others)


def test_clips_are_those_of_the_plan_in_its_order(pairs):
    test = load_listening_test(pairs._test.folder)
    for _ in range(pairs.n_pages):
        trial = next(t for t in test.pages(1) if t.id == pairs.trial.id)
        for i, file in enumerate(trial.stimuli, start=1):
            wav, _ = soundfile.read(file, dtype="float32")
            heard = pairs._packed.clip(f"{trial.id}/{i}")[0]
            np.testing.assert_allclose(heard, wav, atol=2 / 32768)
        pairs.answer("left")
    assert pairs.trial is None and pairs._pcm == b"" and pairs._clips == []


# --- answers -----------------------------------------------------------------------------------


def test_each_answer_is_on_disk_at_once_and_a_new_widget_goes_on(pairs):
    folder = pairs._test.folder
    assert list(pairs.answers.columns) == ["listener", "trial", "choice", "seconds"]
    assert len(pairs.answers) == 0 and not pairs.answers_file.exists()
    first = pairs.trial.id
    says(pairs, answer="right", seconds=3.256)
    assert pairs.message == "" and pairs.n_left == 5
    written = pairs.answers_file.read_text().splitlines()
    assert written == ["listener,trial,choice,seconds", f"1,{first},right,3.26"]
    pairs.close()
    again = ListeningTest(folder)
    assert again.trial.id == pairs.trial.id != first and again._page["number"] == 2
    while again.trial is not None:
        again.answer("left", 1.0)
    assert again._page["done"] and again._page["file"] == "listener-01.csv"
    assert len(again.answers) == again.n_pages == 6
    results = again.results()
    assert set(results["winner"]) | set(results["loser"]) == set(SYSTEMS)
    trial = next(t for t in load_listening_test(folder).pages(1) if t.id == first)
    row = results.set_index("trial").loc[first]
    assert (row["winner"], row["loser"]) == (trial.systems[1], trial.systems[0])
    assert repr(ListeningTest(folder)) == "ListeningTest(pairs, listener 1, 6 of 6 pages)"
    with pytest.raises(StageLiteError, match="all pages are answered"):
        again.answer("left")


def test_a_sheet(sheets):
    first = sheets.trial.id
    says(sheets, answer=[0, 100, 50, 12], seconds=9)
    assert sheets.message == ""
    row = sheets.answers.iloc[0]
    assert row["trial"] == first
    assert [row[f"slider_{i}"] for i in range(1, 5)] == [0, 100, 50, 12]
    systems = next(t.systems for t in load_listening_test(sheets._test.folder).pages(2))
    ratings = sheets.results().set_index("system")["rating"].to_dict()
    assert ratings == dict(zip(systems, [0, 100, 50, 12], strict=True))
    assert LOW_PASS in ratings


@pytest.mark.parametrize(
    "answer", [None, "middle", 3, ["left"], [1, 2, 3], [1, 2, 3, 101], [1, 2, 3, "x"], {"a": 1}]
)
def test_nonsense_is_a_sentence_and_nothing_is_written(answer, pairs):
    says(pairs, answer=answer, seconds=1)
    assert "expected 'left' or 'right'" in pairs.message
    assert not pairs.answers_file.exists() and pairs._page["number"] == 1
    says(pairs, answer="left", seconds="soon")
    assert pairs.message == "" and pairs.answers["seconds"][0] == 0


def test_sheets_refuse_what_is_no_rating(sheets):
    for answer in ("left", [1, 2, 3], [1, 2, 3, 101], [1, 2, 3, None], [1, 2, 3, float("nan")]):
        says(sheets, answer=answer)
        assert "expected 4 numbers, 0 to 100" in sheets.message
    assert not sheets.answers_file.exists()


def test_a_page_is_answered_once(pairs):
    """Two views, or a key pressed twice: the second message is of a page that is gone."""
    trial = pairs.trial.id
    says(pairs, answer="left")
    pairs._on_message(pairs, {"kind": "answer", "trial": trial, "answer": "right"}, [])
    assert pairs.n_left == 5 and list(pairs.answers["choice"]) == ["left"]


def test_a_disk_that_refuses_loses_nothing(pairs, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    trial = pairs.trial
    monkeypatch.setattr(listening, "append_answer", full)
    says(pairs, answer="left")
    assert "No space left" in pairs.message and "nothing is lost" in pairs.message
    assert pairs.trial is trial
    monkeypatch.undo()
    says(pairs, answer="left")
    assert pairs.message == "" and list(pairs.answers["trial"]) == [trial.id]


# --- what it is made of ------------------------------------------------------------------------


def test_folder_object_and_mapping_are_the_same_test(tmp_path):
    items = [ListeningItem(i.id, i.clips) for i in make_items()]
    written = write_listening_test(tmp_path / "a", items, seed=3)
    kinds = [
        ListeningTest(tmp_path / "a", 2),
        ListeningTest(str(tmp_path / "a"), 2),
        ListeningTest(written, 2),
        ListeningTest({i.id: i.clips for i in items}, 2, folder=tmp_path / "b", seed=3),
    ]
    assert len({json.dumps(w._page) for w in kinds}) == 1
    assert not kinds[0]._page["context"]
    kinds[0].answers_file = tmp_path / "mine.csv"
    kinds[0].answer("left")
    assert len(ListeningTest(tmp_path / "a", 2, answers=tmp_path / "mine.csv").answers) == 1


def test_run_again_a_cell_of_items_goes_on(tmp_path):
    first = ListeningTest(make_items(), folder=tmp_path / "t", seed=1)
    first.answer("left")
    again = ListeningTest(make_items(), folder=tmp_path / "t", seed=1)
    assert again.n_left == first.n_left == 5
    for items, options in [
        (make_items(), {"form": "sheets"}),
        (make_items(), {"seed": 2}),
        (make_items(1), {}),
        (make_items(systems=("real", "other")), {}),
    ]:
        with pytest.raises(StageLiteError, match="choose another folder"):
            ListeningTest(items, folder=tmp_path / "t", **options)


def test_a_test_without_its_key(tmp_path):
    write_listening_test(tmp_path / "t", make_items())
    key = (tmp_path / "t" / "key.json").rename(tmp_path / "key.json")
    widget = ListeningTest(tmp_path / "t")
    widget.answer("left")
    with pytest.raises(StageLiteError, match=r"key\.json is missing"):
        widget.results()
    assert len(widget.results(key)) == 1


def test_bad_input(tmp_path):
    write_listening_test(tmp_path / "t", make_items(), n_listeners=2)
    with pytest.raises(StageLiteError, match="expected a number from 1 to 2"):
        ListeningTest(tmp_path / "t", 3)
    with pytest.raises(StageLiteError, match=r"trials\.json is missing"):
        ListeningTest(tmp_path)
    with pytest.raises(StageLiteError, match="only beside items"):
        ListeningTest(tmp_path / "t", form="sheets")
    with pytest.raises(StageLiteError, match="without a folder"):
        ListeningTest(make_items())
    with pytest.raises(StageLiteError, match="test is a int"):
        ListeningTest(3, folder=tmp_path / "x")
    for listener in ("me", 0, None, 10**6, 1.5):
        with pytest.raises(StageLiteError, match="expected a whole number, 1 to 1000"):
            ListeningTest(make_items(), listener, folder=tmp_path / "x")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StageLiteError, match="could not be written .*; choose another folder"):
        ListeningTest(make_items(), folder=tmp_path / "file" / "x")
    with pytest.raises(StageLiteError, match="item 'a' is a list"):
        ListeningTest({"a": []}, folder=tmp_path / "x")
    answers = tmp_path / "other.csv"
    answers.write_text("listener,trial,choice,seconds\n7,7-01,left,1\n")
    with pytest.raises(StageLiteError, match="is no page of this test"):
        ListeningTest(tmp_path / "t", answers=answers)
    file = next((tmp_path / "t" / "audio").iterdir())
    save_audio(file, noise(77), RATE)
    with pytest.raises(StageLiteError, match="is broken"):
        ListeningTest(tmp_path / "t")


def test_a_hundred_stems_and_too_long_ones(tmp_path):
    many = make_items(1, [f"s{i}" for i in range(99)] + ["real"], 0.5)
    with pytest.raises(StageLiteError, match="100 clips to rate; expected at most 12"):
        ListeningTest(many, folder=tmp_path / "many", form="sheets")
    assert not (tmp_path / "many").exists()
    wav = noise(0, 1.0).repeat(1, 60)
    clips = {s: (torch.roll(wav, i, 1), RATE) for i, s in enumerate(SYSTEMS)}
    long = write_listening_test(
        tmp_path / "long", [ListeningItem("x", clips)], "sheets", sample_rate=32000, n_listeners=1
    )
    with pytest.raises(StageLiteError, match=r"5 clips of page 1-01 last 300 s together"):
        ListeningTest(long)


def test_names_with_html_are_never_shown(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    clips = {evil: (noise(0), RATE), "b": (noise(1), RATE)}
    question = "Which <b>one</b>?"
    widget = ListeningTest({evil: clips}, folder=tmp_path / "t", question=question)
    html = widget._repr_mimebundle_()[0]["text/html"]
    assert "<img" not in html and "Which &lt;b&gt;one&lt;/b&gt;?" in html


def test_players_of_the_twin_are_the_beginnings_of_the_clips(pairs):
    html = pairs._repr_mimebundle_()[0]["text/html"]
    data = base64.b64decode(re.search(r"Clip 2.*?base64,([^\"]*)", html, re.DOTALL)[1])
    samples, rate = soundfile.read(io.BytesIO(data))
    heard = pairs._packed.clip(f"{pairs.trial.id}/2")[0]
    assert rate == RATE
    # The encoder begins a little late: compare at the best shift.
    n = 8000
    score = max(
        abs(np.corrcoef(samples[shift : shift + n], heard[:n])[0, 1]) for shift in range(0, 2400)
    )
    assert score > 0.6


# --- on a page ---------------------------------------------------------------------------------


COUNT = (
    "() => { window.made = 0; class C extends AudioContext { constructor(o) { super(o); "
    "window.made++; } } window.AudioContext = C; }"
)


@pytest.fixture
def short_pairs(tmp_path):
    return ListeningTest(
        make_items(), folder=tmp_path / "t", pairs=[("real", "nano")], listener=1, n_listeners=1
    )


def test_pairs_by_mouse_and_by_key(short_pairs, page):
    page.evaluate(COUNT)
    there = mount(page, short_pairs, width=600).ready()
    assert page.evaluate("window.made") == 0, "no AudioContext before a click"
    button = there.root.get_by_role("button", name="Next page")
    button.click()
    assert there.status() == "Listen to left, right first."
    there.root.get_by_role("button", name="Hear left").click()
    there.root.get_by_role("button", name="Hear right").click()
    page.wait_for_timeout(200)
    button.click()
    assert there.status() == "Choose left or right."
    there.root.get_by_role("button", name="Right is better").click()
    button.click()
    there.wait(lambda: short_pairs.n_left == 1)
    there.wait(lambda: there.root.get_by_text("Page 2 of 2").count())
    page.screenshot(path=_picture("listening_pairs"))

    page.keyboard.press("1")
    page.keyboard.press("2")
    page.wait_for_timeout(200)
    page.keyboard.press("Space")
    assert there.root.get_by_role("button", name="Play").count() == 1
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    there.wait(lambda: there.root.get_by_text("Thank you.").count())
    assert list(short_pairs.answers["choice"]) == ["right", "left"]
    assert all(short_pairs.answers["seconds"] > 0)
    assert page.evaluate("window.made") == 1 and page.problems == []
    assert there.root.evaluate("e => e.scrollWidth <= e.clientWidth")
    words = there.root.evaluate("e => e.outerHTML")
    assert not SECRET.search(words)


@pytest.mark.parametrize("dark", [False, True])
def test_sheets_on_a_page(sheets, page, dark):
    from browser import axe

    there = mount(page, sheets, "Uint8Array", lose="first", width=600, dark=dark).ready()
    there.root.focus()
    for i, value in enumerate([90, 10, 30, 70], start=1):
        page.keyboard.press(str(i))
        page.wait_for_timeout(150)
        there.root.get_by_role("slider", name=f"Clip {i}").fill(str(value))
    page.keyboard.press("ArrowRight")  # of the last slider, which has the focus
    assert there.root.get_by_text("71, good").count() == 1
    page.screenshot(path=_picture(f"listening_sheets_{'dark' if dark else 'light'}"))
    assert axe(page) == []
    page.keyboard.press("Enter")
    there.wait(lambda: sheets.n_left == 1)
    row = sheets.answers.iloc[0]
    assert [row[f"slider_{i}"] for i in range(1, 5)] == [90, 10, 30, 71]
    assert there.root.evaluate("e => e.scrollWidth <= e.clientWidth") and page.problems == []
    there.clean()


def test_an_answer_that_cannot_be_written_can_be_sent_again(short_pairs, page):
    there = mount(page, short_pairs).ready()
    there.root.focus()
    for key in "12":
        page.keyboard.press(key)
        page.wait_for_timeout(150)
    page.keyboard.press("ArrowLeft")
    trial = short_pairs.trial.id
    # Another program has answered this page, so that the file refuses it.
    append_answer(short_pairs.answers_file, short_pairs._test, trial, "right", 1.0)
    page.keyboard.press("Enter")
    there.wait(lambda: "was answered before" in there.status())
    short_pairs.answers_file.unlink()
    there.root.get_by_role("button", name="Next page").click()
    there.wait(lambda: short_pairs.n_left == 1)
    assert list(short_pairs.answers["choice"]) == ["left"]


def _picture(name):
    from browser import PICTURES

    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES / f"{name}.png"
