"""Measure every picture under every row, keep what is done, and go on where a run ended.

Pictures are shared out among workers (torchrun's RANK and WORLD_SIZE) by their place in the list.
A worker writes a file of its own and reads the others' at the start and the end; they never wait
for one another, so one that is killed holds nobody up: the next start does what is missing. All
seeds follow from names, and a case is computed alone, so nothing depends on who does it, or when.
"""

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch.backends import cudnn
from tqdm.auto import tqdm

from tutorial_lib.reproduce import store
from tutorial_lib.reproduce.cases import SEARCH
from tutorial_lib.reproduce.config import Config, load_config
from tutorial_lib.reproduce.measures import POINTS, function_of, measured
from tutorial_lib.reproduce.sources import SOURCES

BINDING = ("table", "effort", "conventions", "rows", "settings", "measures", "model", "images")
BINDING += ("seed", "batch_size", "threads", "device", "torch")
PACKAGES = ("tutorial_lib", "torch", "torchvision", "timm", "numpy", "pillow", "scipy")


def run(
    name: str | Path,
    *,
    model: str | None = None,
    images: str | os.PathLike = "bundled",
    limit: int | None = None,
    spread: bool = False,
    device: str | None = None,
    out: str | os.PathLike = "results",
    effort: str = "full",
    conventions: str = "paper",
    seed: int = 0,
    batch_size: int | None = None,
    threads: int = 1,
    progress: bool = True,
) -> Path:
    """Measure a table or figure, and return the folder of its results.

    name: see `load_config`. model: see `load_model` ("mlp" for digits). images: "bundled", a folder
    of pictures, or of torchvision's MNIST for digits. limit: the first so many; spread: so many at
    even distances instead. device: None takes a GPU if there is one. out: results go to
    out/NAME-MODEL. batch_size: gradients a pass, 4 on a CPU and 50 on a GPU by default. threads: of
    a worker on a CPU. The same run has the same results to the last digit; another batch size,
    device or number of threads changes rounding.

    A picture that cannot be read is left out and named in skipped.csv; a measure that says nothing
    for a picture leaves its cell empty, with a note. results.csv is written when all is done,
    whoever did it: until then `finished(folder)` is false.
    Raises ValueError where the folder holds another run, and OSError on a full disk; what is done
    is kept in both cases, as after an interrupt.
    """
    config = load_config(name, effort=effort, conventions=conventions)
    worker, workers = _share()
    device = _device(device)
    batch_size = batch_size or (50 if str(device).startswith("cuda") else 4)
    model = model or ("mlp" if config.data == "digits" else "efficientnet_lite0")
    options = dict(seed=seed, batch_size=batch_size, limit=limit, spread=spread)
    folder = Path(out) / _folder(config, model)
    record = _record(config, model, images, device, threads, options)
    store.remember(folder, record, BINDING)
    columns = _columns(config)
    part = store.Part(folder, worker, ["target", "score", *columns])
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        source = SOURCES[config.data](config, model, images, device, options)
        there = store.done(folder)
        mine = [
            (picture, [row for row in config.rows if (picture, row) not in there])
            for picture in source.names[worker::workers]
        ]
        total = sum(len(rows) for _, rows in mine)
        if total:
            (folder / "results.csv").unlink(missing_ok=True)  # of an earlier, smaller run
        with tqdm(total=total, unit="map", disable=not progress or worker > 0) as bar:
            for picture, rows in mine:
                if rows:
                    _measure(source, picture, rows, config, folder, part, bar)
    finally:
        part.close()
        torch.set_num_threads(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
    _merge(folder, config, source.names, source.skipped, columns)
    return folder


def finished(folder: Path) -> bool:
    """Whether all pictures of the last run are measured or named as skipped."""
    return (folder / "results.csv").exists()


def _measure(source, picture: str, rows: list, config: Config, folder: Path, part, bar) -> None:
    """All rows of one picture that are not there yet."""
    started = time.perf_counter()
    try:
        loaded = source.load(picture)
    except (OSError, ValueError) as error:
        part.add({"picture": picture, "row": store.SKIPPED, "note": str(error)})
        tqdm.write(f"skipped: {picture}: {error}")
        bar.total -= len(rows)
        bar.refresh()
        return
    for row in rows:
        case = source.case(loaded, row)
        line = {"picture": picture, "row": row, "target": loaded.target, "score": loaded.score}
        try:
            line |= measured(case, config.measures)
        except ValueError as error:
            line["note"] = str(error)
        if config.kind == "maps":
            _keep_map(folder, picture, row, case.heatmap[0])
        now = time.perf_counter()
        part.add({**line, "seconds": f"{now - started:.2f}"})
        started = now
        bar.update()


def map_path(folder: Path, picture: str, row: str) -> Path:
    """Where the heatmap of a picture and row is kept, for figures of maps."""
    safe = "".join(c if c.isalnum() or c in "-." else "_" for c in f"{picture}--{row}")
    return folder / "maps" / f"{safe}.npy"


def _keep_map(folder: Path, picture: str, row: str, heatmap: torch.Tensor) -> None:
    path = map_path(folder, picture, row)
    path.parent.mkdir(exist_ok=True)
    mine = path.with_name(f".{path.name}.{os.getpid()}.npy")
    np.save(mine, heatmap.detach().cpu().numpy().astype(np.float32))
    os.replace(mine, path)


def _merge(folder: Path, config: Config, names: list[str], skipped: dict, columns: list) -> None:
    """results.csv and skipped.csv, if everything is there; the same bytes whoever writes them."""
    lines = store.done(folder)
    left_out = dict(skipped)
    for name in names:
        whole = all((name, row) in lines for row in config.rows)
        if (name, store.SKIPPED) in lines and not whole:
            left_out[name] = lines[name, store.SKIPPED]["note"]
    kept = [name for name in names if name not in left_out]
    wanted = [(name, row) for name in kept for row in config.rows]
    if all(key in lines for key in wanted):
        heads = ["picture", "row", "target", "score", *columns, "note"]
        reasons = [{"picture": n, "reason": r} for n, r in sorted(left_out.items())]
        store.replace(folder / "skipped.csv", store.table(["picture", "reason"], reasons))
        store.replace(folder / "results.csv", store.table(heads, [lines[k] for k in wanted]))


def _columns(config: Config) -> list[str]:
    for column in config.measures:
        function_of(column)
    points = POINTS if config.kind == "curves" else {}
    own = [p for column in config.measures for p in points.get(column, [])]
    searched = any(row["method"] == SEARCH for row in config.rows.values())
    return [*config.measures, *own, *(["sigma", "evaluations"] if searched else [])]


def _folder(config: Config, model: str) -> str:
    parts = [config.name, model.replace("/", "_")]
    parts += [p for p in (config.effort, config.conventions) if p not in ("full", "paper")]
    return "-".join(parts)


def _record(config: Config, model: str, images, device, threads: int, options: dict) -> dict:
    """What a run was: enough to make it again."""
    kind = torch.device(device).type
    gpu = torch.cuda.get_device_name(device) if kind == "cuda" else None
    return {
        "table": config.name,
        "source": config.source,
        "effort": config.effort,
        "conventions": config.conventions,
        "rows": config.rows,
        "settings": config.settings,
        "measures": list(config.measures),
        "model": model,
        "images": str(images),
        **options,
        "threads": threads,
        "device": kind,
        "machine": gpu or _processor(),
        "torch": torch.__version__,
        "versions": {p: metadata.version(p) for p in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _processor() -> str:
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _commit() -> str:
    """The commit of the package's own checkout, with + if files differ from it; or unknown."""
    where = Path(__file__).parent
    try:
        ask = dict(cwd=where, capture_output=True, text=True, timeout=20, check=True)
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **ask).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "."], **ask).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _share() -> tuple[int, int]:
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _device(device: str | None) -> str:
    if device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return device or "cpu"
