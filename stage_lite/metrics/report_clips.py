"""What an evaluation heard, as audio: to listen to, and to put into a listening test.

    table = sl.evaluate(model, dataset, n=24, seed=0, cache_dir="cache")
    items = evaluated_clips(model, dataset, n=24, seed=0, cache_dir="cache")
    write_listening_test("my_test", items, pairs=[("generated", "shuffled context")])

Notebook: 07_evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StageLiteError
from ..listening_test import ListeningItem
from ..result_store import ResultStore
from .sounds import Sounds
from .systems import SYSTEMS, Sampling, Systems
from .windows import draw_windows

if TYPE_CHECKING:
    from ..model import StageModel


def evaluated_clips(
    model: StageModel,
    dataset: Sequence,
    *,
    n: int = 64,
    seed: int = 0,
    cfg_coef: float = 3.0,
    temperature: float = 1.0,
    top_k: int = 250,
    systems: Sequence[str] = SYSTEMS,
    most: int | None = None,
    cache_dir: str | Path | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> list[ListeningItem]:
    """The windows that `sl.evaluate` heard when it was called with the same arguments.

    With the `cache_dir` of that call nothing is generated again.

    Args:
        model, dataset, n, seed, cfg_coef, temperature, top_k, cache_dir, batch_size, progress: as
            there.
        systems: names of `systems.SYSTEMS` to hear. A window for which no loop was found is left
            out where the loop is asked for.
        most: items at most, the first ones; None is all. Audio of all of them is in memory, 1 MB
            for a clip of 8 s.

    Returns:
        One item per window, in the order of "windows" in report.json; its id is the song, the
        target and the start in seconds; clips and context are (Float[1, L], Hz).

    Raises:
        StageLiteError: as `sl.evaluate`; a name that is no system.
    """
    unknown = sorted(set(systems) - set(SYSTEMS))
    if unknown or not systems:
        raise StageLiteError(f"systems is {list(systems)}; expected some of {', '.join(SYSTEMS)}")
    sounds, store = Sounds(model), ResultStore(cache_dir, "bar" if progress else "none")
    sampling = Sampling(cfg_coef, temperature, top_k)
    maker = Systems(model, sounds, store, sampling, seed, batch_size)
    windows = draw_windows(dataset, n, seed, maker.is_silent, 0)
    contexts = [maker.context(e) for e in windows.examples]
    columns = maker.make(windows, contexts)
    items = []
    for i, (example, context) in enumerate(zip(windows.examples, contexts, strict=True)):
        clips = {name: columns[name][i] for name in systems}
        if None in clips.values():
            continue
        if most is not None and len(items) == most:
            break
        heard = zip(clips, sounds.wavs(list(clips.values())), strict=True)
        items.append(
            ListeningItem(
                f"{example.song_id} {example.target_name} {example.start_s:.2f} s",
                {name: (wav, sounds.sample_rate) for name, wav in heard},
                (sounds.wavs([context])[0], sounds.sample_rate),
            )
        )
    return items
