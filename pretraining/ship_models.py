"""Put trained models where the package loads them from, in half precision.

python pretraining/ship_models.py --codec work/codec/codec --models nano=work/nano/model
"""

import argparse
import dataclasses
import shutil
from pathlib import Path

from stage_lite.codec import load_codec
from stage_lite.model import StageModel, load
from stage_lite.shipped import PRETRAINED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", type=Path, required=True, help="folder of the codec to ship")
    parser.add_argument("--models", nargs="+", required=True, help="name=folder")
    parser.add_argument("--out", type=Path, default=PRETRAINED)
    args = parser.parse_args()
    folders = dict(item.split("=", 1) for item in args.models)
    models = {name: load(folder) for name, folder in folders.items()}  # before their codec goes
    shared = args.out / "nano-codec"
    shared.mkdir(parents=True, exist_ok=True)
    if args.codec.resolve() != shared.resolve():  # else it is shipped already
        for file in ("config.json", "codec.safetensors"):
            shutil.copyfile(args.codec / file, shared / file)
    codec, _ = load_codec(shared)
    for name, trained in models.items():
        config = dataclasses.replace(trained.config, name=name)
        model = StageModel(trained.lm, codec, config)
        saved = model.save(args.out / name, dtype="fp16", codec_folder="../nano-codec")
        size = (saved / "lm.safetensors").stat().st_size / 1e6
        print(f"{model} -> {saved} ({size:.1f} MB)")


if __name__ == "__main__":
    main()
