"""What the measuring scripts share: a table with rows for each picture, made picture by picture."""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

import tutorial_lib as tl


def measure(description: str, fields: list[str], rows: Callable) -> None:
    """Read the command line and write the rows of every picture as they come.

    The pictures are a folder with a labels.csv that has a column `file`; `--count` of them are
    taken, evenly. rows(model, name of the picture, x, predicted class) yields lists of values in
    the order of `fields`, which begin with "picture". Pictures that are in the table already are
    left alone: delete it after a change of the script.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = tl.load_model("efficientnet_lite0")
    labels = list(csv.DictReader((options.pictures / "labels.csv").open()))
    count = min(options.count, len(labels))
    chosen = [labels[i * len(labels) // count] for i in range(count)]
    done = set()
    if options.out.exists():
        done = {row["picture"] for row in csv.DictReader(options.out.open())}
    else:
        options.out.write_text(",".join(fields) + "\n")
    for row in tqdm([r for r in chosen if r["file"] not in done], unit="picture"):
        x = model.preprocess(tl.load_image(options.pictures / row["file"]))
        target = int(model(x).argmax())  # as the papers do: the predicted class
        lines = list(rows(model, row["file"], x, target))
        with options.out.open("a", newline="") as out:
            csv.writer(out).writerows(
                [[f"{v:.4f}" if isinstance(v, float) else v for v in line] for line in lines]
            )
