"""Measure every picture under every row, keep what is done, and go on where a run ended.

Pictures are shared out among workers (torchrun's RANK and WORLD_SIZE) by their place in the list.
A worker writes a file of its own and reads the others' at the start and the end; they never wait
for one another, so one that is killed holds nobody up: the next start does what is missing. All
seeds follow from names, and a case is computed alone, so nothing depends on who does it, or when.
"""

import io
import os
import platform
import subprocess
import time
from contextlib import closing
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch.backends import cudnn
from tqdm.auto import tqdm

from tutorial_lib.averaging.noise import IMAGENET_BOUNDS
from tutorial_lib.reproduce import store
from tutorial_lib.reproduce.cases import seed_of
from tutorial_lib.reproduce.config import Config, load_config
from tutorial_lib.reproduce.measures import POINTS, function_of, measured
from tutorial_lib.reproduce.rows import SEARCH, check
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
    columns = _columns(config)
    bounds = (0.0, 1.0) if config.data == "digits" else IMAGENET_BOUNDS
    for row in config.rows.values():
        check(row, bounds, config.program)
    worker, workers = _share()
    device = _device(device)
    batch_size = batch_size or (50 if device.type == "cuda" else 4)
    model = model or ("mlp" if config.data == "digits" else "efficientnet_lite0")
    options = dict(seed=seed, batch_size=batch_size, limit=limit, spread=spread)
    folder = Path(out) / _folder(config, model)
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        source = SOURCES[config.data](config, model, images, device, options)
        store.remember(folder, _record(config, model, images, device, threads, options), BINDING)
        with closing(store.Part(folder, worker, ["target", "score", *columns])) as part:
            missing = _missing(folder, config, source.names)
            if missing:
                (folder / "results.csv").unlink(missing_ok=True)  # of an earlier, smaller run
            mine = [name for name in source.names[worker::workers] if name in missing]
            total = sum(len(missing[name]) for name in mine)
            with tqdm(total=total, unit="map", disable=not progress or worker > 0) as bar:
                for name in mine:
                    _measure(source, name, missing[name], config, folder, part, bar)
    finally:
        torch.set_num_threads(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
    _merge(folder, config, source.names, source.skipped, columns)
    return folder


def _missing(folder: Path, config: Config, names: list[str]) -> dict[str, list[str]]:
    """The pictures with rows that are not measured yet, and these rows."""
    there = store.done(folder)

    def kept(picture: str, row: str) -> bool:
        drawn = config.kind != "maps" or map_path(folder, picture, row).exists()
        return (picture, row) in there and (drawn or bool(there[picture, row]["note"]))

    rows = {name: [row for row in config.rows if not kept(name, row)] for name in names}
    return {name: missing for name, missing in rows.items() if missing}


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
    if config.kind == "maps":
        seen = source.model.denormalize(loaded.x)[0].permute(1, 2, 0)
        _keep(map_path(folder, picture), (255 * seen).round().byte())
    for row in rows:
        case = source.case(loaded, row)
        line = {"picture": picture, "row": row, "target": loaded.target, "score": loaded.score}
        line |= measured(case, config.measures)
        if config.kind == "maps":
            try:
                _keep(map_path(folder, picture, row), case.heatmap[0].float())
            except ValueError as error:
                line["note"] = str(error)
        now = time.perf_counter()
        part.add({**line, "seconds": f"{now - started:.2f}"})
        started = now
        bar.update()


def map_path(folder: Path, picture: str, row: str | None = None) -> Path:
    """Where a picture's heatmap under a row is kept, for figures of maps; or the picture itself."""
    names = [picture] if row is None else [picture, row]
    safe = "".join(c if c.isascii() and c.isalnum() else "_" for c in "-".join(names))
    return folder / "maps" / f"{safe[:60]}-{seed_of(0, *names):016x}.npy"


def _keep(path: Path, values: torch.Tensor) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values.detach().cpu().numpy())
    path.parent.mkdir(exist_ok=True)
    store.replace(path, buffer.getvalue())


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
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "table": config.name,
        **{k: getattr(config, k) for k in ("source", "effort", "conventions", "rows", "settings")},
        "measures": list(config.measures),
        "model": model,
        "images": str(Path(images)),
        **options,
        "threads": threads,
        "device": device.type,
        "machine": gpu or _processor(),
        "torch": torch.__version__,
        "versions": {p: metadata.version(p) for p in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _processor() -> str:
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _commit() -> str:
    """The commit of the package's own checkout, with + if a file of it differs; or unknown."""
    here = Path(__file__)
    ask = dict(cwd=here.parents[1], capture_output=True, text=True, timeout=20, check=True)
    try:
        subprocess.run(["git", "ls-files", "--error-unmatch", str(here)], **ask)
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **ask).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "."], **ask).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _share() -> tuple[int, int]:
    worker, workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not 0 <= worker < workers:
        raise ValueError(f"RANK: expected 0 to WORLD_SIZE - 1 = {workers - 1}, got {worker}")
    return worker, workers


def _device(given: str | None) -> torch.device:
    """The device asked for, or a GPU if there is one: each worker of a machine its own."""
    try:
        device = torch.device(given or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and device.index is None:
            place = int(os.environ.get("LOCAL_RANK", 0)) % max(torch.cuda.device_count(), 1)
            device = torch.device("cuda", place)
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {given!r} cannot be used here: {error}") from error
