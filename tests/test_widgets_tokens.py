"""TokenGrid: the same tokens in Python and in the browser, and what each codebook sounds like."""

import numpy as np
import pytest
import stage_widgets
import torch
from browser import axe
from mount import mount
from stage_widgets import TokenGrid
from test_attention import example
from test_widgets_js import in_node

from stage_lite.batch import hide_history, make_batch
from stage_lite.codec import decode, decode_codebooks
from stage_lite.delay import undelay
from stage_lite.errors import StageLiteError


def codes(frames=20, seed=0, n_q=4, card=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, card, (n_q, frames), generator=generator)


def grid_of(model, **more):
    return TokenGrid(model, codes(20), **({"context_codes": codes(30, 1)} | more))


def shown(grid, expression):
    """What the browser makes of it: `c` is its Cells."""
    return in_node(
        "token_cells.js",
        f"(() => {{ const c = new m.Cells(v.text, v.sizes); return {expression}; }})()",
        text=grid._tokens,
        sizes=grid._sizes,
    )


ALL = "[...Array(c.k).keys()].map((k) => [...Array(c.columns(d)).keys()].map((i) => c.at(k, i, d)))"


def test_the_browser_shows_the_sequence_and_its_masks(tiny_model):
    rows = [example(30), example(12, seed=1), example(None, seed=2)]
    batch = make_batch(tiny_model, rows)
    for row in range(3):
        grid = TokenGrid(tiny_model, batch, row=row)
        cells = shown(grid, ALL.replace("(d)", "(4)").replace(", d)", ", 4)"))
        pick = {key: np.array([[c[key] for c in line] for line in cells]) for key in cells[0][0]}
        np.testing.assert_array_equal(pick["id"], batch.inputs[row])
        np.testing.assert_array_equal(pick["loss"], batch.prefix.loss_mask[row])
        visible = batch.prefix.attention_mask[row].expand(4, -1)
        np.testing.assert_array_equal(~pick["masked"], visible)
        assert (pick["kind"] == "token").sum() == (0 if row == 2 else 4)
        n_context = [30, 12, 0][row]
        assert (pick["part"] == "context").sum() == 4 * n_context
        assert (pick["part"] == "target").sum() == 4 * 20


def test_without_the_delay_the_columns_are_frames(tiny_model):
    grid = grid_of(tiny_model)
    cells = shown(grid, ALL.replace("(d)", "(0)").replace(", d)", ", 0)"))
    ids = torch.tensor([[c["id"] for c in line] for line in cells])
    token = torch.full((4, 1), tiny_model.context_token_id)
    assert torch.equal(ids, torch.cat([codes(30, 1), token, codes(20)], 1))
    assert torch.equal(ids, undelay(torch.from_numpy(grid.sequence)[None])[0])
    half = shown(grid, ALL.replace("(d)", "(2)").replace(", d)", ", 2)"))
    for k, line in enumerate(half):
        first = min(k + 1, 2)
        assert [c["id"] for c in line][first : first + 51] == ids[k].tolist()
        assert all(c["kind"] == "special" for c in [*line[:first], *line[first + 51 :]])


# --- sound ---------------------------------------------------------------------------------------


def test_some_codebooks_are_a_sum_of_their_vectors(tiny_model):
    codec, some = tiny_model.codec, codes(20)[None]
    layers = codec.quantizer.vq.layers
    with torch.no_grad():
        for chosen in ([1], [0, 2], [3, 1]):
            latents = sum(layers[k].decode(some[:, k]) for k in chosen)
            expected = codec.decoder(latents)
            found = decode_codebooks(codec, some, chosen)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for n in (1, 2, 4):
        assert torch.equal(
            decode_codebooks(codec, some, list(range(n))[::-1]), decode(codec, some[:, :n])
        )
    silence = decode_codebooks(codec, some, [])
    assert silence.shape == (1, 1, 20 * 640) and not silence.any()
    assert decode_codebooks(codec, some[..., :0], [1]).shape == (1, 1, 0)
    long = codes(150)[None]
    torch.testing.assert_close(
        decode_codebooks(codec, long, [1, 3], chunk_s=1.0),
        decode_codebooks(codec, long, [1, 3], chunk_s=None),
        rtol=0,
        atol=1e-5,
    )


def test_codebooks_that_are_not_there(tiny_model):
    with pytest.raises(StageLiteError, match="there is no codebook 4; expected some of 0 to 3"):
        decode_codebooks(tiny_model.codec, codes()[None], [1, 4])
    with pytest.raises(StageLiteError, match="decode got code 16"):
        decode_codebooks(tiny_model.codec, torch.full((1, 4, 9), 16), [1])
    late = codes()[None].clone()
    late[0, 3, 5] = 17
    with pytest.raises(StageLiteError, match="code 17 at batch 0, codebook 3, frame 5"):
        decode_codebooks(tiny_model.codec, late, [3])


def test_what_is_sent_and_what_is_asked_for(tiny_model):
    grid = grid_of(tiny_model)
    names = [clip["name"] for clip in grid._packed.index]
    assert names == ["0", "0,1", "0,1,2", "0,1,2,3"]
    for n, name in enumerate(names, 1):
        expected = tiny_model.decode(codes(20)[None, :n])[0]
        np.testing.assert_allclose(grid._packed.clip(name), expected, atol=2e-5)
    torch.testing.assert_close(grid.wav, tiny_model.decode(codes(20)[None])[0])
    grid.codebooks = [3, 0]
    assert grid.codebooks == [0, 3]
    said = []
    grid.send = lambda content, buffers=None: said.append((content, buffers))
    grid._handle_custom_msg({"kind": "decode", "codebooks": [0, 3]}, [])
    ((content, (data,)),) = said
    assert content == {"kind": "decoded", "codebooks": [0, 3]}
    np.testing.assert_allclose(np.frombuffer(data, "<i2") / 32768, grid.wav[0], atol=2e-5)
    for wrong in ([9], None, [0, 0], ["0"], [True]):
        grid._handle_custom_msg({"kind": "decode", "codebooks": wrong}, [])
        assert "expected some of 0 to 3, none of them twice" in grid.message
    assert len(said) == 1


def test_what_the_chosen_codebooks_leave_out(tiny_model):
    grid = grid_of(tiny_model)
    whole = grid.wav
    assert not grid.lost
    grid.codebooks = [0, 2]
    part = grid.wav
    grid.lost = True
    torch.testing.assert_close(grid.wav, (whole - part).clamp(-1, 1), rtol=0, atol=0)
    assert float(grid.wav.abs().max()) > 1e-4, "something is lost"
    grid.codebooks = [0, 1, 2, 3]
    assert not grid.wav.any()
    grid.codebooks = []
    torch.testing.assert_close(grid.wav, whole, rtol=0, atol=0)


def test_a_hidden_past_is_shown_and_not_decoded(tiny_model):
    batch = make_batch(tiny_model, [example(30)])
    hidden = hide_history(batch, torch.ones_like(batch.prefix.attention_mask), 16)
    grid = TokenGrid(tiny_model, hidden)
    assert (grid.sequence[:, batch.prefix.target_start + 3 :] == 16).all()
    assert grid._packed.index == [] and grid.listen_for == ""
    assert "0 frames of target" in repr(grid) and "<audio" not in grid._twin()
    longer = make_batch(tiny_model, [example(30, 20), example(30, 12, seed=3)])
    assert TokenGrid(tiny_model, longer, row=1)._codes.shape == (4, 12), "the row's own end"


def test_a_generation(tiny_model):
    context = torch.rand(1, 16000) - 0.5
    out = tiny_model.generate(
        context=context, context_sample_rate=32000, duration_s=0.4, seed=0, description="drums"
    )
    grid = TokenGrid(tiny_model, out)
    torch.testing.assert_close(grid.wav, out.wav[0], rtol=0, atol=1e-6)
    assert repr(grid) == "TokenGrid(4 codebooks, 50 steps, 20 frames of target)"
    plain = TokenGrid(tiny_model, tiny_model.generate(duration_s=0.4, seed=0))
    assert "no context token" in plain._twin()


def test_sizes(tiny_model):
    grid = TokenGrid(tiny_model, codes(1500), context_codes=codes(1500, 1), label="<i>a</i>")
    assert len(grid._packed.data) <= 8_000_000
    html = grid._twin()
    assert len(html) <= 50_000 and "&lt;i&gt;a" in html and "<i>a" not in html
    assert html.count("<audio") == 2 and "30.0 s" in html
    assert "1500 frames of context, the context token in orange" in html
    grid.close()
    assert grid._packed.data == b"" and grid._codes.shape[1] == 0


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(3, 5, dtype=torch.long), "tokens has 3 codebooks; expected 4"),
        (torch.zeros(4, 0, dtype=torch.long), "tokens has no frames"),
        (torch.zeros(2, 4, 5, dtype=torch.long), r"tokens has the shape \[2, 4, 5\]"),
        (torch.zeros(4, 5), "type torch.float32; expected"),
        (torch.full((4, 5), 17), r"target_codes\[0, 0, 0\] is 17"),
        (-torch.ones(4, 5, dtype=torch.long), r"is -1: expected codes in"),
        ("drums", "tokens"),
        (None, "tokens"),
        (torch.zeros(4, 6001, dtype=torch.long), "6001 frames are too many for one grid"),
    ],
)
def test_what_are_no_codes(tiny_model, tokens, message):
    with pytest.raises(StageLiteError, match=message):
        TokenGrid(tiny_model, tokens)


@pytest.mark.parametrize("model", ["nano", None, 3, torch.nn.Linear(1, 1)])
def test_what_is_no_model(model):
    with pytest.raises(StageLiteError, match="model is .*; expected a StageModel, for instance"):
        TokenGrid(model, codes())


def test_as_many_frames_as_it_says(tiny_model):
    """6000 in all; the context token is none of them."""
    grid = TokenGrid(tiny_model, codes(2000), context_codes=codes(4000))
    assert grid.sequence.shape == (4, 6005)
    with pytest.raises(StageLiteError, match="6001 frames are too many"):
        TokenGrid(tiny_model, codes(2001), context_codes=codes(4000))


def test_bad_choices(tiny_model):
    batch = make_batch(tiny_model, [example()])
    with pytest.raises(StageLiteError, match="row is 1; expected one of the 1 rows"):
        TokenGrid(tiny_model, batch, row=1)
    with pytest.raises(StageLiteError, match="context_codes came with a finished sequence"):
        TokenGrid(tiny_model, batch, context_codes=codes())
    with pytest.raises(StageLiteError, match="context_codes has 3 codebooks"):
        TokenGrid(tiny_model, codes(), context_codes=codes(n_q=3))
    with pytest.raises(StageLiteError, match="the widget is named ''"):
        TokenGrid(tiny_model, codes(), label="")
    grid = grid_of(tiny_model)
    for name, value, message in [
        ("codebooks", [4], r"codebooks is \[4\]; expected some of 0 to 3"),
        ("delay", 5, "delay is 5; expected 0"),
        ("masks", ["lost"], "masks names 'lost'"),
        ("cursor", [4, 0], r"cursor is \[4, 0\]; expected"),
        ("cursor", [0], r"cursor is \[0\]"),
    ]:
        before = getattr(grid, name)
        with pytest.raises(StageLiteError, match=message):
            setattr(grid, name, value)
        assert getattr(grid, name) == before


# --- in a browser --------------------------------------------------------------------------------


def test_keys_and_clicks(page, tiny_model):
    there = mount(page, grid_of(tiny_model), how="Uint8Array", lose="first").ready()
    grid, root = there.widget, there.root
    root.focus()
    for key in ("ArrowDown", "ArrowRight", "[", "[", "a", "l", "1"):
        page.keyboard.press(key)
    there.wait(lambda: grid.codebooks == [0, 2, 3])
    assert grid.delay == 2 and grid.masks == ["attention", "loss"]
    assert there.status().startswith("column 33 · codebook 1 · code") or there.status() == ""
    there.wait(lambda: "Off: codebook 1." in root.inner_text())
    assert {"kind": "decode", "codebooks": [0, 2, 3]} in there.sent
    root.get_by_role("button", name="codebook 1", exact=True).click()
    there.wait(lambda: grid.codebooks == [0, 1, 2, 3])
    there.wait(lambda: "All codebooks are heard." in root.inner_text())
    # Step 32 + 1 of codebook 1, then a click on another cell.
    assert grid.cursor == [1, 33]
    cells = root.locator(".stage-cells")
    box = cells.bounding_box()
    page.mouse.click(box["x"] + 3, box["y"] + 18 + 3 * 26 + 8)
    there.wait(lambda: grid.cursor[0] == 3)
    root.get_by_role("button", name="One step of the delay on").click()
    there.wait(lambda: grid.delay == 3)
    grid.delay = 4  # from Python
    there.wait(lambda: "The sequence of the model" in root.inner_text())
    assert root.get_by_role("button", name="One step of the delay on").is_disabled()
    assert page.problems == []


def cell(there, k, column, wide=32):
    """The middle of a cell of the window, in the page's pixels."""
    box = there.root.locator(".stage-cells").bounding_box()
    first = there.page.evaluate("window.first")
    x = box["x"] + (column - first + 0.5) * box["width"] / wide
    return x, box["y"] + 18 + k * 26 + 12


def test_hovering_tells_step_time_code_and_codebook(page, tiny_model):
    """Of every row of some columns: what the line says is what the sequence holds."""
    there = mount(page, grid_of(tiny_model)).ready()
    grid, line = there.widget, there.root.locator(".stage-readout")
    page.evaluate("window.first = 16")  # the window is 32 of 55 columns around step 32
    for k, column in ((0, 20), (1, 25), (2, 36), (3, 40), (0, 44)):
        page.mouse.move(*cell(there, k, column))
        code = int(grid.sequence[k, column])
        frame = column - k - 1
        part, place = ("context", frame) if frame < 30 else ("target", frame - 31)
        expected = f"step {column} · codebook {k} · code {code} · frame {place} of the {part}, "
        assert line.inner_text().startswith(expected + f"{place / 50:.2f} s · position "), k
    page.mouse.move(*cell(there, 1, 32))
    assert line.inner_text().startswith("step 32 · codebook 1 · context token 17")
    told = there.root.locator(".stage-cells").get_attribute("aria-label").partition("Chosen: ")[2]
    page.mouse.move(5, 5)
    assert line.inner_text() == told, "the chosen one again"
    assert page.problems == []


COLOURS = """e => { const { data } = e.getContext('2d').getImageData(0, 0, e.width, e.height);
    const found = {}; for (let i = 0; i < data.length; i += 4) {
      const key = [data[i], data[i + 1], data[i + 2]].join(); found[key] = (found[key] || 0) + 1; }
    return found; }"""
GREEN, RED = "0,158,115", "213,94,0"  # counts in the loss; hidden from other steps


def test_masks_are_drawn_and_explained(page, tiny_model):
    """Green under what counts in the loss, red over what others do not see, each with its word."""
    rows = [example(30, 20), example(12, 20, seed=1)]
    grid = TokenGrid(tiny_model, make_batch(tiny_model, rows), row=1)  # padded on the left
    there = mount(page, grid).ready()
    page.set_viewport_size({"width": 900, "height": 700})
    cells, words = there.root.locator(".stage-cells"), there.root.locator(".stage-legend")
    assert "loss" not in words.inner_text() and "hidden" not in words.inner_text()
    there.root.focus()
    page.keyboard.press("Home")  # the padding is at the beginning
    page.keyboard.press("-")
    page.wait_for_timeout(150)
    before = cells.evaluate(COLOURS)
    assert before.get(GREEN, 0) == before.get(RED, 0) == 0
    for key, colour, word in (("l", GREEN, "counts in the loss"), ("a", RED, "hidden from other")):
        page.keyboard.press(key)
        there.wait(lambda word=word: word in words.inner_text())
        page.wait_for_timeout(150)
        assert cells.evaluate(COLOURS).get(colour, 0) > 100
    page.keyboard.press("l")
    there.wait(lambda: "loss" not in words.inner_text())
    page.wait_for_timeout(150)
    assert cells.evaluate(COLOURS).get(GREEN, 0) == 0 and page.problems == []


def test_what_is_lost_is_a_switch(page, tiny_model):
    there = mount(page, grid_of(tiny_model)).ready()
    grid, root = there.widget, there.root
    root.get_by_role("button", name="codebook 3", exact=True).click()
    root.get_by_role("button", name="what is lost").click()
    there.wait(lambda: grid.lost and grid.codebooks == [0, 1, 2])
    assert "You hear what is lost." in root.inner_text()
    root.focus()
    page.keyboard.press("d")
    there.wait(lambda: not grid.lost)
    assert "You hear" not in root.inner_text()
    grid.lost = True  # from Python
    there.wait(lambda: "You hear what is lost." in root.inner_text())
    assert page.problems == []


def test_sound_starts_with_a_click_and_keeps_its_place(page, tiny_model):
    there = mount(page, TokenGrid(tiny_model, codes(1500))).ready()
    there.root.get_by_role("button", name="Play", exact=True).click()
    there.wait(lambda: there.widget.playing)
    there.root.get_by_role("button", name="codebook 3", exact=True).click()
    there.wait(lambda: there.widget.codebooks == [0, 1, 2])
    assert there.widget.playing, "30 s are not over yet"
    there.root.get_by_role("button", name="Pause").click()
    there.wait(lambda: not there.widget.playing)
    there.widget.close()
    there.sync()
    page.wait_for_function("!document.querySelector('.stage-widget button')")
    assert page.problems == []


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_and_dark(page, tiny_model, dark):
    there = mount(page, grid_of(tiny_model, label="<b>x</b>"), width=600, dark=dark).ready()
    fits = "e => e.scrollWidth <= e.clientWidth && e.getBoundingClientRect().right <= 610"
    assert there.root.evaluate(fits)
    assert axe(page) == []
    assert page.locator(".stage-widget b").count() == 0, "a label was read as HTML"
    label = there.root.locator(".stage-cells").get_attribute("aria-label")
    assert label.startswith("Tokens, 4 codebooks by 55 columns. Chosen: step 32")


def test_it_is_named():
    assert "TokenGrid" in stage_widgets.__all__
