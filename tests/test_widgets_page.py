"""The mixer and the metronome in a browser, without Jupyter: what is heard, bytes, keys.

What the engine renders is compared with the NumPy sum of the stems. `mount` is a short wire between
the real JavaScript and the real Python side.
"""

import base64
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import stage_widgets
import torch
from browser import axe
from mount import mount
from stage_widgets import MetronomePad, StemMixer

STATIC = Path(stage_widgets.__file__).parent / "static"
OFFLINE = Path(__file__).parent / "js" / "offline.js"
RATE = 16000
BEATS = np.arange(0, 2, 0.25)


def noise(seed=0, seconds=2.0, channels=1, level=0.1):
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(channels, int(seconds * RATE), generator=generator)


def mixer_of(**more):
    stems = {
        "drums": {"right": noise(0), "shuffled": noise(1)},
        "bass": noise(2, channels=2),
        "<b>keys</b>": noise(3, 1.5),
    }
    return StemMixer(stems, RATE, **({"beats": BEATS, "downbeats": BEATS[::4]} | more))


def press(there, name):
    there.root.get_by_role("button", name=name, exact=True).click()


def level_db(samples):
    return 20 * np.log10(max(np.sqrt(np.mean(np.square(samples))), 1e-12))


@pytest.fixture
def engine_page(page):
    """A page with the shared files as modules."""

    def serve(route):
        name = route.request.url.rpartition("/")[2]
        file = OFFLINE if name == OFFLINE.name else STATIC / name
        body, kind = (file.read_text(), "javascript") if name else ("<p></p>", "html")
        route.fulfill(body=body, content_type=f"text/{kind}")

    page.route("http://stage.test/**", serve)
    page.goto("http://stage.test/")
    return page


def pack_floats(samples):
    return base64.b64encode(np.ascontiguousarray(samples, np.float32).tobytes()).decode()


def render(page, tracks, duration_s, seconds, script="", last_s=None):
    """What the engine renders: tracks [{versions: [samples], level}], a script for `engine`."""
    coded = [
        {**track, "versions": [pack_floats(samples) for samples in track["versions"]]}
        for track in tracks
    ]
    result = page.evaluate(
        "async (words) => (await import('/offline.js')).render(words)",
        [coded, duration_s, seconds, RATE, script, last_s],
    )
    return np.frombuffer(base64.b64decode(result), np.float32)


# --- what is heard -----------------------------------------------------------------------------


def test_the_mix_is_the_numpy_sum(page, tmp_path):
    """Gain, mute, solo, a version and the click, clicked in the browser, downloaded as a file."""
    there = mount(page, mixer_of()).ready()
    mixer = there.widget

    def downloaded():
        with page.expect_download() as download:
            press(there, "Download mix")
        download.value.save_as(tmp_path / "mix.wav")
        samples, rate = soundfile.read(tmp_path / "mix.wav", always_2d=True)
        assert rate == RATE
        return samples.T

    def same():
        ours, heard = mixer.mix().numpy().clip(-1, 1), downloaded()  # a file clips
        assert heard.shape == ours.shape
        apart = level_db(heard - ours)
        assert apart < -80, f"{apart:.1f} dB from the sum, of {mixer.levels()}, {mixer.version}"
        shifted = level_db(heard[:, 1:] - ours[:, :-1])
        assert shifted > -30, "one sample apart would be heard by this test"

    same()
    there.root.get_by_role("slider", name="Gain of bass in dB").fill("-9")
    there.root.get_by_role("combobox", name="Version of drums").select_option("shuffled")
    press(there, "Mute click")
    there.wait(lambda: mixer.mute == [] and mixer.gain_db["bass"] == -9)
    same()
    press(there, "Solo bass")
    press(there, "Mute <b>keys</b>")
    there.wait(lambda: mixer.solo == ["bass"] and mixer.mute == ["<b>keys</b>"])
    same()
    with page.expect_download() as download:
        press(there, "Download drums")
    assert download.value.suggested_filename == "drums shuffled.wav"
    download.value.save_as(tmp_path / "drums.wav")
    samples, _ = soundfile.read(tmp_path / "drums.wav")
    assert level_db(samples - noise(1)[0].numpy()) < -80
    assert page.problems == []


@pytest.mark.slow
def test_after_three_minutes_of_looping_all_is_in_step(engine_page):
    stems = [noise(seed)[0].numpy() for seed in range(3)]
    start, end = round(0.4321 * RATE), round(1.7777 * RATE)
    tracks = [{"versions": [s], "level": g} for s, g in zip(stems, (1.0, 0.5, 0.25), strict=True)]
    script = "engine.setLoop([0.4321, 1.7777]); engine.play(0)"
    heard = render(engine_page, tracks, 2.0, 183.0, script, last_s=3.0)
    total = stems[0] + 0.5 * stems[1] + 0.25 * stems[2]
    places = np.arange(180 * RATE, 183 * RATE)
    expected = total[start + (places - end) % (end - start)]
    assert level_db(heard - expected) < -100


def test_seek_pause_version_and_level_on_one_clock(engine_page):
    a, b, c = (noise(seed)[0].numpy() for seed in range(3))
    tracks = [{"versions": [a, b], "level": 1.0}, {"versions": [c], "level": 1.0}]
    script = """
        engine.play(0);
        at(0.512, () => engine.seek(1.0));            // multiples of 128 samples at 16 kHz
        at(1.024, () => engine.setVersion(0, 1));
        at(1.28, () => engine.setLevel(1, 0));
    """
    heard = render(engine_page, tracks, 2.0, 1.5, script)
    place = np.concatenate([np.arange(8192), RATE + np.arange(24000 - 8192)])
    place_a = np.minimum(place, 2 * RATE - 1)
    expected = np.where(np.arange(24000) < 16384, a[place_a], b[place_a])
    expected += np.where(np.arange(24000) < 20480, c[place_a], 0)
    still = np.ones(24000, bool)
    for fade in (16384, 20480):  # a level glides for 8 ms
        still[fade : fade + round(0.01 * RATE)] = False
    assert level_db((heard - expected)[still]) < -80
    assert level_db(heard[~still]) < 0


def test_a_shorter_clip_ends_in_silence_and_keeps_the_loop(engine_page):
    long, short = noise(0)[0].numpy(), noise(1, 0.5)[0].numpy()
    tracks = [{"versions": [long], "level": 1.0}, {"versions": [short], "level": 1.0}]
    heard = render(engine_page, tracks, 2.0, 5.0, "engine.setLoop([0, 2]); engine.play(0)")
    once = long + np.pad(short, (0, len(long) - len(short)))
    assert level_db(heard - np.tile(once, 3)[: 5 * RATE]) < -100


# --- every way of bytes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "lose", "asked"),
    [
        ("ArrayBuffer", "", []),
        ("Uint8Array", "first", [False]),
        ("Uint8Array", "all", [False, True]),
    ],
)
def test_bytes_as_front_ends_hand_them_over(page, tmp_path, how, lose, asked):
    """Colab loses the bytes of the first message and hands over Uint8Array."""
    there = mount(page, mixer_of(), how, lose=lose).ready()
    with page.expect_download() as download:
        press(there, "Download bass")
    download.value.save_as(tmp_path / "bass.wav")
    samples, _ = soundfile.read(tmp_path / "bass.wav", always_2d=True)
    assert level_db(samples.T - noise(2, channels=2).numpy()) < -80
    pleas = [said["base64"] for said in there.sent if said["kind"] == "audio_please"]
    assert pleas == asked
    assert len(there.widget._pcm) > 0, "Python still has them"
    assert page.evaluate(f"stage['{there.id}'].model.get('_pcm').byteLength") == 0


# --- the page ----------------------------------------------------------------------------------


def test_keys_names_and_an_end(page):
    page.evaluate("""() => {
        window.made = [];
        const Old = window.AudioContext;
        window.AudioContext = class extends Old {
          constructor(options) { super(options); window.made.push(this); }
        };
    }""")
    there = mount(page, mixer_of(label="<i>Stems</i>")).ready()
    mixer, root = there.widget, there.root
    assert page.evaluate("made.length") == 0, "no AudioContext before a click"
    assert root.locator("b, i").count() == 0 and "<b>keys</b>" in root.inner_text()
    assert root.get_attribute("data-lm-suppress-shortcuts") == "true"
    assert axe(page) == []

    root.focus()
    page.keyboard.press("Space")
    there.wait(lambda: mixer.playing)
    assert page.evaluate("made.length") == 1
    page.keyboard.press("Space")
    there.wait(lambda: not mixer.playing)
    page.keyboard.press("Home")
    there.wait(lambda: mixer.position_s == 0)
    for key, place in (("ArrowRight", 0.25), ("Shift+ArrowRight", 1.0), ("ArrowLeft", 0.75)):
        page.keyboard.press(key)
        there.wait(lambda place=place: mixer.position_s == place)
    page.keyboard.press("ArrowDown")
    for key in "ms-":
        page.keyboard.press(key)
    there.wait(lambda: mixer.gain_db["bass"] == -1)
    assert mixer.solo == ["bass"] and mixer.mute == ["click", "bass"]
    page.keyboard.press("v")
    there.wait(lambda: mixer.version["drums"] == "shuffled")
    page.keyboard.press("c")
    there.wait(lambda: "click" not in mixer.mute)
    page.keyboard.press("l")
    there.wait(lambda: mixer.loop_s == [0, 2])
    page.keyboard.press("l")
    there.wait(lambda: mixer.loop_s is None)

    mixer.play()
    there.wait(lambda: mixer.playing)
    mixer.seek(1.5)
    mixer.pause()
    there.wait(lambda: not mixer.playing)
    assert 1.4 < mixer.position_s <= 2
    mixer.close()
    there.sync()
    assert "closed" in root.inner_text() and root.get_by_role("button").count() == 0
    page.wait_for_function("made[0].state === 'closed'")
    assert page.problems == []


def test_the_mixer_by_keys_alone(page, tmp_path):
    """Where it plays, which stem, louder, loops between bars, and both downloads."""
    beats = np.arange(0, 4, 0.25)
    stems = {"drums": noise(0, 4.0), "bass": {"a": noise(1, 4.0), "b": noise(2, 4.0)}}
    there = mount(page, StemMixer(stems, RATE, beats=beats, downbeats=beats[::4])).ready()
    mixer = there.widget
    there.root.focus()

    def press_keys(*keys):
        for key in keys:
            page.keyboard.press(key)

    press_keys("Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowLeft")
    there.wait(lambda: mixer.position_s == 2)
    press_keys("b", "ArrowRight", "e")  # the loop is this bar
    there.wait(lambda: mixer.loop_s == [2, 3])
    press_keys("Shift+ArrowRight", "e")  # and the next one
    there.wait(lambda: mixer.loop_s == [2, 4])
    press_keys("Home", "e")  # an end before its beginning: the bar alone
    there.wait(lambda: mixer.loop_s == [0, 1])
    press_keys("Shift+ArrowRight", "Shift+ArrowRight", "b")
    there.wait(lambda: mixer.loop_s == [2, 3])
    press_keys("l")
    there.wait(lambda: mixer.loop_s is None)
    press_keys("ArrowUp", "ArrowUp", "v", "+", "=", "-", "+")  # click, then bass
    there.wait(lambda: mixer.gain_db["bass"] == 2 and mixer.version["bass"] == "b")
    for key, name, expected in (
        ("d", "bass b.wav", noise(2, 4.0)[0].numpy()),
        ("x", "Stem mixer.wav", mixer.mix()[0].numpy()),
    ):
        with page.expect_download() as download:
            press_keys(key)
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / "got.wav")
        samples, _ = soundfile.read(tmp_path / "got.wav")
        assert level_db(samples - expected) < -80
    told = there.root.locator(".stage-help kbd").all_text_contents()
    assert len(told) == len(set(told)), "a key with two meanings"
    assert page.problems == []


def test_loops_by_keys_without_bars(page):
    there = mount(page, StemMixer({"a": noise(0, 8.0)}, RATE)).ready()
    mixer, keys = there.widget, page.keyboard
    there.root.focus()
    for _ in range(3):
        keys.press("ArrowRight")  # a second, where there are no beats
    keys.press("b")
    there.wait(lambda: mixer.loop_s == [3, 8])
    for key in ("ArrowRight", "ArrowRight", "e"):
        keys.press(key)
    there.wait(lambda: mixer.loop_s == [3, 5])
    for key in ("Home", "ArrowRight", "e"):
        keys.press(key)
    there.wait(lambda: mixer.loop_s == [0, 1])
    assert page.problems == []


def test_a_b_keeps_the_place_while_it_plays(page):
    """Another version by click and by key: no source is started again, time goes on."""
    page.evaluate("""() => { window.starts = 0; const old = AudioBufferSourceNode.prototype.start;
        AudioBufferSourceNode.prototype.start = function (...at) {
          window.starts++; return old.apply(this, at); }; }""")
    stems = {"drums": {"with context": noise(0, 20.0), "shuffled": noise(1, 20.0)}}
    there = mount(page, StemMixer(stems, RATE)).ready()
    mixer = there.widget
    press(there, "Play")
    there.wait(lambda: mixer.position_s > 0.9)
    started, before = page.evaluate("starts"), mixer.position_s
    assert started == 2, "both versions run along"
    there.root.get_by_role("combobox", name="Version of drums").select_option("shuffled")
    there.wait(lambda: mixer.version["drums"] == "shuffled")
    page.keyboard.press("v")
    there.wait(lambda: mixer.version["drums"] == "with context")
    there.wait(lambda: mixer.position_s > before)
    assert page.evaluate("starts") == started and mixer.playing
    assert page.problems == []


def test_two_mixers_at_once_and_one_that_goes_away(page):
    first, second = mount(page, mixer_of(label="A")), mount(page, mixer_of(label="B"))
    for there in (first, second):
        there.ready()
        press(there, "Loop")
        press(there, "Play")
    for there in (first, second):
        there.wait(lambda there=there: there.widget.playing)
    press(first, "Mute bass")
    first.wait(lambda: "bass" in first.widget.mute)
    second.sync()
    assert second.widget.mute == ["click"]
    first.clean()
    second.sync()
    assert second.widget.playing
    assert page.problems == []


def test_sentences_instead_of_empty_boxes(page):
    page.evaluate("() => { delete window.AudioContext; delete window.webkitAudioContext; }")
    there = mount(page, mixer_of()).ready()
    press(there, "Play")
    assert "no Web Audio" in there.status()
    there.page.evaluate(f"stage['{there.id}'].model.fire('comm_live_update')")
    assert "Run the cell again" in there.status()
    there.widget.message = "got 3; expected <b>4</b>"
    there.sync()
    assert there.status() == "got 3; expected <b>4</b>"


def test_narrow_and_dark(page):
    page.set_viewport_size({"width": 600, "height": 900})
    for widget in (mixer_of(), MetronomePad(generate=print)):
        there = mount(page, widget, width=584, dark=True).ready()
        assert there.root.evaluate("e => e.scrollWidth <= e.clientWidth")
        assert there.root.evaluate("e => e.getBoundingClientRect().right <= innerWidth")
    assert axe(page) == []


def test_the_playhead_costs_little(page):
    """Work per frame, on the thread that draws: at most a thirtieth of a second, by the median."""
    page.evaluate("""() => {
        window.costs = []; const old = window.requestAnimationFrame;
        window.requestAnimationFrame = (fn) => old((t) => {
          const start = performance.now(); fn(t); window.costs.push(performance.now() - start);
        });
    }""")
    stems = {str(i): noise(i, 30.0) for i in range(8)}
    beats = np.arange(0, 30, 0.25)
    there = mount(page, StemMixer(stems, RATE, beats=beats, downbeats=beats[::4])).ready()
    press(there, "Play")
    page.wait_for_function("costs.length > 12")
    costs = sorted(page.evaluate("costs"))
    assert costs[len(costs) // 2] < 1000 / 30
    places = "getComputedStyle(document.querySelector('.stage-head')).transform"
    before = page.evaluate(places)
    page.wait_for_function(f"before => {places} !== before", arg=before)


@pytest.mark.slow
def test_four_stems_of_30_s_are_shown_within_a_second(page):
    if os.getloadavg()[0] > 1.0:
        pytest.skip("the machine is busy with other things: no timing")
    import time

    generator = torch.Generator().manual_seed(0)
    stems = {str(i): 0.1 * torch.randn(1, 30 * 32000, generator=generator) for i in range(4)}
    start = time.perf_counter()
    mixer = StemMixer(stems, 32000)
    mixer._repr_mimebundle_()
    python_s = time.perf_counter() - start
    page.evaluate("""() => {
        const seen = new MutationObserver(() => {
          if (document.querySelector('[data-ready]')) window.readyAt ??= performance.now();
        });
        seen.observe(document, { subtree: true, attributes: true, childList: true });
    }""")
    there = mount(page, mixer)
    there.ready()
    shown_s = page.evaluate(
        "(readyAt - performance.getEntriesByName('handed over')[0].startTime) / 1000"
    )
    assert python_s + shown_s < 1.0, (python_s, shown_s)


# --- the metronome -----------------------------------------------------------------------------


def test_tempo_by_typing_tapping_and_drawing(page):
    there = mount(page, MetronomePad(112, duration_s=8.0)).ready()
    pad, root = there.widget, there.root
    field = root.get_by_role("spinbutton", name="Tempo")
    field.fill("90")
    field.press("Enter")
    there.wait(lambda: pad.bpm == 90)
    field.fill("100000")
    field.press("Enter")
    there.wait(lambda: pad.bpm == 400)
    field.fill("")
    field.press("Tab")
    there.sync()
    assert pad.bpm == 400
    metre = root.get_by_role("spinbutton", name="Metre")
    metre.fill("3")
    metre.press("Enter")
    there.wait(lambda: pad.beats_per_bar == 3)
    root.get_by_role("slider", name="Swing").fill("0.66")
    root.get_by_role("checkbox", name="Off-beats").check()
    there.wait(lambda: pad.swing == 0.66 and pad.offbeats)

    page.evaluate("() => { let t = 1000; performance.now = () => (t += 600); }")
    for _ in range(5):
        press(there, "Tap")
    there.wait(lambda: pad.bpm == 100)

    canvas = root.get_by_role("slider", name="Tempo curve")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 0.9 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 0.1 * box["height"], steps=10)
    page.mouse.up()
    there.wait(lambda: len(pad.curve) == 33)
    tempi = [bpm for _, bpm in pad.curve]
    assert tempi == sorted(tempi) and tempi[-1] > tempi[0] + 50
    steps = np.diff(pad.beats)
    assert steps[0] > 1.3 * steps[-1], "the beats come closer"
    canvas.focus()
    before = pad.curve[1][1]
    for key in ("ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    there.wait(lambda: pad.curve[1][1] == pytest.approx(before + 10, abs=0.02))
    press(there, "One tempo")
    there.wait(lambda: pad.curve == [])
    assert axe(page) == [] and page.problems == []


def test_the_metronome_by_keys_alone(page):
    """Play, tap, tempo, and a generation that is cancelled."""
    import threading

    go_on = threading.Event()

    def generate(context, context_sample_rate, progress):
        progress(1, 4)
        go_on.wait(60)
        progress(2, 4)
        return context, context_sample_rate

    there = mount(page, MetronomePad(100, duration_s=8.0, generate=generate)).ready()
    pad, keys = there.widget, page.keyboard
    there.root.focus()
    # All within one frame of the page: none of them is lost.
    down = "(e, keys) => keys.forEach((key) => e.dispatchEvent(new KeyboardEvent('keydown', "
    down += "{ key, bubbles: true })))"
    there.root.evaluate(down, ["ArrowUp", "+", "+", "ArrowDown", "-", "ArrowUp", "+"])
    there.wait(lambda: pad.bpm == 103)
    curve = there.root.get_by_role("slider", name="Tempo curve")
    curve.evaluate(down, ["ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown"])
    there.wait(lambda: pad.curve and pad.curve[0][1] == 105)
    press(there, "One tempo")
    there.wait(lambda: pad.curve == [] and pad.bpm == 103)
    there.root.focus()
    keys.press("Space")
    there.wait(lambda: pad.playing)
    lit = "document.querySelector('.stage-pad-lamps .stage-lit') !== null"
    page.wait_for_function(lit)  # a lamp for each beat
    keys.press("Space")
    there.wait(lambda: not pad.playing)
    keys.press("Home")
    there.sync()
    assert there.root.locator(".stage-time").inner_text().startswith("0:00.0")
    bar = there.root.get_by_role("progressbar")
    assert bar.count() == 0, "no bar while there is nothing to wait for"
    keys.press("g")
    there.wait(lambda: pad.busy and pad.progress == 0.25 and bar.count())
    keys.press("Escape")
    there.wait(lambda: pad._job.cancelled)
    go_on.set()
    there.wait(lambda: not pad.busy and there.status() == "Cancelled.")
    page.evaluate("() => { let t = 1000; performance.now = () => (t += 500); }")
    for _ in range(4):
        keys.press("t")
    there.wait(lambda: pad.bpm == 120)
    assert page.problems == []


def test_where_the_first_bar_begins_can_be_typed(page):
    there = mount(page, MetronomePad(120, 4, 4.0)).ready()
    field = there.root.get_by_role("spinbutton", name="First bar at")
    field.fill("0.75")
    field.press("Enter")
    there.wait(lambda: there.widget.start_s == 0.75)
    np.testing.assert_allclose(there.widget.downbeats, [0.75, 2.75])
    np.testing.assert_allclose(there.widget.beats[:3], [0.25, 0.75, 1.25])


def test_the_browser_hears_what_python_says(page, tmp_path):
    pad = MetronomePad(97, 3, 4.0, swing=0.6, offbeats=True, start_s=0.3, curve=[(0, 80), (3, 140)])
    there = mount(page, pad).ready()
    with page.expect_download() as download:
        press(there, "Download click")
    download.value.save_as(tmp_path / "click.wav")
    samples, rate = soundfile.read(tmp_path / "click.wav")
    assert rate == pad.sample_rate
    assert level_db(samples - pad.click()[0].numpy()) < -60


def test_generate_shows_progress_and_the_result(page, tmp_path):
    import threading

    go_on = threading.Event()

    def generate(context, context_sample_rate, description, progress):
        progress(1, 4)
        go_on.wait(60)
        return 0.5 * context, context_sample_rate

    there = mount(page, MetronomePad(duration_s=2.0, generate=generate)).ready()
    pad, root = there.widget, there.root
    root.get_by_role("textbox", name="Words").fill("drums, <b>rock</b>")
    press(there, "Generate on this click")
    there.wait(lambda: pad.progress == 0.25)
    there.sync()
    assert pad.description == "drums, <b>rock</b>" and pad.busy
    assert root.get_by_role("progressbar").evaluate("e => e.value") == 0.25
    assert root.get_by_role("button", name="Generate on this click").is_disabled()
    go_on.set()
    there.wait(lambda: "Done" in there.status())
    with page.expect_download() as download:
        press(there, "Download it")
    download.value.save_as(tmp_path / "made.wav")
    samples, _ = soundfile.read(tmp_path / "made.wav")
    assert level_db(samples - 0.5 * pad.click()[0].numpy()) < -80
    assert page.problems == []
