"""AttentionViewer: what it sends is the model's attention, and the browser reads it so."""

import numpy as np
import pytest
import stage_widgets
import torch
from browser import axe
from mount import mount
from stage_widgets import AttentionViewer
from stage_widgets.attention import MAP_BYTES, _pool, _pooled, _quantise
from test_attention import example
from test_widgets_js import in_node

import stage_lite as sl
from stage_lite.attention import diagonal, frame_attention, shares_by_frame
from stage_lite.batch import hide_history, make_batch
from stage_lite.errors import StageLiteError

BEATS = np.array([0.1, 0.2, 0.3])


@pytest.fixture
def batch(tiny_model):
    return make_batch(tiny_model, [example(30, 20), example(12, 20, seed=1)])


def viewer_of(model, batch, **more):
    return AttentionViewer(model, batch, **({"beats": BEATS, "downbeats": BEATS[:1]} | more))


def map_bytes(viewer):
    entry = viewer._packed.index[-1]
    assert entry["name"] == "map"
    return viewer._packed.data[entry["offset"] :]


def in_browser(viewer, expression):
    """What the browser makes of it: `a` is its AttentionMap."""
    return in_node(
        "attention_map.js",
        "(() => { const a = new m.AttentionMap(Uint8Array.from(v.bytes), v.map); "
        f"return {expression}; }})()",
        bytes=list(map_bytes(viewer)),
        map=viewer._map,
    )


def test_the_browser_reads_the_models_attention(tiny_model, batch):
    for row, n_context in ((0, 30), (1, 12)):
        viewer = viewer_of(tiny_model, batch, row=row)
        att = sl.attention(tiny_model, batch, row=row)
        frames = frame_attention(att, batch, row).numpy()
        expected = [*frames.reshape(4, 20, n_context), frames[1].mean(0), frames.mean((0, 1))]
        places = [(0, 0), (0, 1), (1, 0), (1, 1), (1, -1), (-1, -1)]
        for (layer, head), exact in zip(places, expected, strict=True):
            found = in_browser(viewer, f"[...a.all({layer}, {head})]")
            # A square root in 255 parts of the row's top: half a step is 1 part in 255 at the top.
            error = np.abs(np.array(found).reshape(20, -1) - exact)
            assert (error <= exact.max(1, keepdims=True) / 255).all()
        given = shares_by_frame(att, batch, row)[:, 1, 0, 7]
        names = ("context", "token", "start", "own")
        found = in_browser(viewer, "a.shares(1, 0, 7)")
        np.testing.assert_allclose([found[n] for n in names], given, atol=1 / 255)
        score = diagonal(frame_attention(att, batch, row), 50.0)
        viewer.layer, viewer.head = 1, 0
        assert viewer.score == pytest.approx([float(s[1, 0]) for s in score], abs=1e-4)
        viewer.time_s = 0.11
        np.testing.assert_allclose(viewer.weights, frames[1, 0, 5], atol=frames.max() / 255)


def test_it_opens_on_the_head_that_listens_most(tiny_model, batch):
    viewer = viewer_of(tiny_model, batch)
    order = viewer._scores["order"]
    assert sorted(order) == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert [viewer.layer, viewer.head] == order[0]
    frames = frame_attention(sl.attention(tiny_model, batch), batch)
    score, chance = diagonal(frames, 50.0)
    worth = (score - chance) * frames.sum(-1).mean(-1)
    assert order[0] == list(divmod(int(worth.argmax()), 2))


def test_chosen_layers_and_heads_keep_their_numbers(tiny_model, batch):
    viewer = viewer_of(tiny_model, batch, layers=[1], heads=[1])
    assert viewer._map["layers"] == [1] and viewer._map["heads"] == [1]
    assert [viewer.layer, viewer.head] == [1, 1]
    exact = frame_attention(sl.attention(tiny_model, batch), batch)[1, 1, 0]
    found = in_browser(viewer, "[...a.row(1, 1, 0)]")
    np.testing.assert_allclose(found, exact, atol=float(exact.max()) / 255)
    with pytest.raises(StageLiteError, match=r"layer is 0; expected one of \[1\], or -1"):
        viewer.layer = 0


# --- sizes ---------------------------------------------------------------------------------------


def test_frames_are_pooled_until_they_fit():
    assert _pool(6, 4, 400, 400) == 1  # nano
    pool = _pool(24, 16, 400, 400)  # MusicGen-small
    assert pool == 4 and 384 * 100 * 108 <= MAP_BYTES
    with pytest.raises(StageLiteError, match="48 layers of 32 heads over 1500 and 1500 frames"):
        _pool(48, 32, 1500, 1500)


def test_pooling_keeps_what_goes_to_the_context():
    frames = torch.rand(1, 2, 23, 17, generator=torch.Generator().manual_seed(0))
    pooled = _pooled(frames, 4)
    assert pooled.shape == (1, 2, 6, 5)
    np.testing.assert_allclose(
        pooled[0, :, 1, 2], frames[0, :, 4:8, 8:12].sum(-1).mean(-1), atol=1e-6
    )
    np.testing.assert_allclose(
        pooled[0, :, 5, 4], frames[0, :, 20:, 16:].sum(-1).mean(-1), atol=1e-6
    )
    np.testing.assert_array_equal(_pooled(frames, 1), frames.numpy())


def test_quantised_rows_of_very_different_size():
    values = np.array([[[[1e-9, 0.0, 5e-10], [0.7, 1e-3, 0.0], [0.0, 0.0, 0.0]]]], np.float32)
    bits, tops = _quantise(values)
    back = (bits / 255.0) ** 2 * tops[..., None]
    # Half a step of the square root: relative to the row, and small values are told apart.
    assert (abs(back - values) <= np.sqrt(values * tops[..., None]) / 255 + 1e-5 * tops.max()).all()
    assert back[0, 0, 0, 2] == pytest.approx(5e-10, rel=0.01) and back[0, 0, 1, 1] > 0


def test_at_most_8_mb_and_a_small_twin(tiny_model):
    long = make_batch(tiny_model, [example(1500, 1500)])
    viewer = viewer_of(tiny_model, long, label="<i>a</i>")
    assert len(viewer._packed.data) <= 8_000_000 and viewer._map["pool"] == 2
    html = viewer._twin()
    assert len(html) <= 50_000 and "&lt;i&gt;a" in html and "<i>a" not in html
    assert html.count("<audio") == 2 and html.count("<img alt=") == 3
    assert "by chance" in html and "near its own time" in html
    assert repr(viewer) == (
        "AttentionViewer(2 layers of 2 heads, 30.00 s of target, 30.00 s of context)"
    )
    viewer.close()
    assert viewer._packed.data == b""


# --- sound ---------------------------------------------------------------------------------------


def test_sound_is_that_of_the_codes_or_what_was_given(tiny_model):
    context = 0.5 * (torch.rand(1, 16000, generator=torch.Generator().manual_seed(0)) - 0.5)
    out = tiny_model.generate(
        context=context, context_sample_rate=32000, duration_s=0.4, seed=0, description="drums"
    )
    viewer = viewer_of(tiny_model, out)
    np.testing.assert_allclose(viewer._packed.clip("target"), out.wav[0], atol=2e-5)
    heard = tiny_model.decode(tiny_model.encode(context, 32000))[0]
    np.testing.assert_allclose(viewer._packed.clip("context"), heard, atol=2e-5)
    given = viewer_of(tiny_model, out, context=context, context_sample_rate=32000)
    np.testing.assert_allclose(given._packed.clip("context"), context, atol=2e-5)


def test_codes_that_are_hidden_make_no_sound(tiny_model, batch):
    hidden = hide_history(batch, torch.ones_like(batch.prefix.attention_mask), 16)
    viewer = viewer_of(tiny_model, hidden)
    assert [clip["name"] for clip in viewer._packed.index] == ["context", "map"]
    assert viewer._twin().count("<audio") == 1


# --- bad input -----------------------------------------------------------------------------------


def test_bad_input(tiny_model, batch):
    with pytest.raises(StageLiteError, match="model is 'nano'; expected a StageModel"):
        viewer_of("nano", batch)
    none = make_batch(tiny_model, [example(None)])
    with pytest.raises(StageLiteError, match="row 0 has no context: there is nothing to look at"):
        viewer_of(tiny_model, none)
    with pytest.raises(StageLiteError, match="row is 2: expected one of the 2 rows"):
        viewer_of(tiny_model, batch, row=2)
    with pytest.raises(StageLiteError, match=r"layers holds 2: expected whole numbers in \[0, 1\]"):
        viewer_of(tiny_model, batch, layers=[2])
    with pytest.raises(StageLiteError, match="beats does not increase"):
        viewer_of(tiny_model, batch, beats=[0.2, 0.1])
    with pytest.raises(StageLiteError, match="context has no sample rate"):
        viewer_of(tiny_model, batch, context=torch.zeros(1, 32000))
    with pytest.raises(StageLiteError, match="the widget is named ''"):
        viewer_of(tiny_model, batch, label="")
    viewer = viewer_of(tiny_model, batch)
    for name, value, message in [
        ("head", 7, r"head is 7; expected one of \[0, 1\], or -1 for the mean"),
        ("time_s", 0.5, "time_s is 0.5; expected 0 to 0.4 seconds"),
        ("time_s", -0.1, "time_s is -0.1"),
        ("sounds", ["drums"], "sounds names 'drums'"),
    ]:
        before = getattr(viewer, name)
        with pytest.raises(StageLiteError, match=message):
            setattr(viewer, name, value)
        assert getattr(viewer, name) == before


# --- in a browser --------------------------------------------------------------------------------


def test_keys_clicks_and_sound(page, tiny_model):
    long = make_batch(tiny_model, [example(1500, 1500)])
    beats = np.arange(0, 30, 0.5)
    viewer = viewer_of(tiny_model, long, beats=beats, downbeats=beats[::4])
    there = mount(page, viewer, how="Uint8Array", lose="first").ready()
    root = there.root
    root.focus()
    first = list(viewer._scores["order"])
    page.keyboard.press("n")
    there.wait(lambda: [viewer.layer, viewer.head] == first[1])
    viewer.time_s = 1.01
    there.wait(lambda: "At 1.01 s of the target (bar 1.3)" in root.inner_text())
    page.keyboard.press("Shift+ArrowRight")
    there.wait(lambda: viewer.time_s == 1.5)
    page.keyboard.press("ArrowRight")
    there.wait(
        lambda: viewer.time_s == pytest.approx(1.54)
    )  # the middle of the next group of frames
    root.get_by_role("combobox", name="layer").select_option("all layers")
    there.wait(lambda: viewer.layer == viewer.head == -1)
    assert "Mean of all heads" in root.inner_text()
    root.get_by_role("combobox", name="head").select_option("head 1")
    there.wait(lambda: [viewer.layer, viewer.head] == [0, 1])
    box = root.locator(".stage-att-main").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    there.wait(lambda: viewer.time_s == pytest.approx(15, abs=0.2))
    heads = root.locator(".stage-att-heads").bounding_box()
    page.mouse.click(heads["x"] + 5, heads["y"] + heads["height"] - 5)
    there.wait(lambda: [viewer.layer, viewer.head] == [1, 0])

    root.get_by_role("button", name="Play", exact=True).click()
    there.wait(lambda: viewer.playing)
    root.get_by_role("button", name="context", exact=True).click()
    there.wait(lambda: viewer.sounds == ["target", "context", "head"])
    root.get_by_role("button", name="Hear this step").click()
    there.wait(lambda: not viewer.playing)
    there.wait(lambda: there.status().startswith("Heard: the context from"))
    viewer.close()
    there.sync()
    page.wait_for_function("!document.querySelector('.stage-widget button')")
    assert page.problems == []


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_and_dark(page, tiny_model, batch, dark):
    viewer = viewer_of(tiny_model, batch, label="<b>x</b>")
    there = mount(page, viewer, width=600, dark=dark).ready()
    fits = "e => e.scrollWidth <= e.clientWidth && e.getBoundingClientRect().right <= 610"
    assert there.root.evaluate(fits)
    assert axe(page) == []
    assert page.locator(".stage-widget b").count() == 0, "a label was read as HTML"
    label = there.root.locator(".stage-att-main").get_attribute("aria-label")
    assert label.startswith(f"Attention map of Layer {viewer.layer} head {viewer.head}.")


def test_it_is_named():
    assert "AttentionViewer" in stage_widgets.__all__
