"""Measure every picture under every row, keep what is done, and go on where a run ended.

Workers (torchrun's RANK and WORLD_SIZE) share the pictures by their index in the list. Each worker
writes its own file, and reads the others' files at the start and at the end. Workers never wait for
one another, so a killed worker stops nobody: the next start does what is missing. All seeds follow
from names, and a case is computed alone, so that nothing depends on who computes it, or when.
"""

import io
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from contextlib import closing
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch.backends import cudnn
from tqdm.auto import tqdm

from tutorial_lib import checks
from tutorial_lib.reproduce import store
from tutorial_lib.reproduce.cases import seed_of
from tutorial_lib.reproduce.config import Config, load_config
from tutorial_lib.reproduce.measures import POINTS, compute_measures, function_of
from tutorial_lib.reproduce.rows import SEARCH
from tutorial_lib.reproduce.sources import SOURCES

FIXED = ("table", "effort", "conventions", "rows", "settings", "measures", "model", "network")
FIXED += ("seed", "batch_size", "threads", "device", "torch")
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
    """Measure a table or figure of a paper, and write its results to a folder.

    The same run has the same results to the last digit; another batch size, device or number of
    threads changes rounding. A picture that cannot be read is left out and named in skipped.csv. A
    measure that is not defined for a picture, or a method without a rule for the network, leaves
    its cell empty, with a note. A picture whose file was replaced since is measured again.
    results.csv is written when all pictures are measured, by whichever worker is the last: until
    then `finished(folder)` is false.

    Args:
        name: The table, as for `load_config`.
        model: The network, as for `load_model`; "mlp" for digits. By default efficientnet_lite0.
        images: "bundled", a folder of pictures, or a folder of torchvision's MNIST for digits.
        limit: Number of pictures, the first by name. None takes all (of digits, 100).
        spread: Whether the `limit` pictures are taken at even distances instead.
        device: Where to compute. None takes a GPU if there is one.
        out: The results go to the folder out/NAME-MODEL.
        effort: "full", "reduced" or "quick", as for `load_config`.
        conventions: "paper" or "program", as for `load_config`.
        seed: Seed of all noise.
        batch_size: Points in a forward pass; None chooses by the device and the size of x.
        threads: Number of threads of a worker on a CPU, at most 256.
        progress: Whether to show a progress bar.

    Returns:
        The folder with the results.

    Raises:
        TypeError: A number is no whole number.
        ValueError: An argument does not fit, or the folder holds another run.
        OSError: The disk is full, or another process writes the same file. What is done is kept
            here and after a ValueError, as after an interrupt.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from tutorial_lib import reproduce
        >>> with TemporaryDirectory() as out:
        ...     folder = reproduce.run("zhou-bounds", limit=1, out=out, progress=False)
        ...     sorted(path.name for path in folder.iterdir())
        ['parts', 'results.csv', 'run.json', 'skipped.csv']
    """
    config = load_config(name, effort=effort, conventions=conventions)
    for row in config.rows:
        if row.startswith(store.FORMULA):
            raise ValueError(f"row: a spreadsheet computes {row!r}; give it another name")
    checks.seed(seed)
    checks.count("threads", threads, most=256)
    for argument, number in (("limit", limit), ("batch_size", batch_size)):
        if number is not None:
            checks.count(argument, number)
    worker, workers = _worker_number()
    device = _device(device)
    batch_size = batch_size or (50 if device.type == "cuda" else 4)
    model = model or ("mlp" if config.data == "digits" else "efficientnet_lite0")
    options = dict(seed=seed, batch_size=batch_size, limit=limit, spread=spread, threads=threads)
    folder = Path(out) / _folder(config, model)
    previous = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        source = SOURCES[config.data](config, model, images, device, options)
        record = _record(config, model, images, device, options | {"network": source.network})
        identity = store.write_record(folder, record, FIXED)
        with closing(store.WorkerFile(folder, worker, _columns(config), identity)) as file:
            missing = _missing(folder, config, file.read_lines(source.digests), source.digests)
            if missing:
                (folder / "results.csv").unlink(missing_ok=True)  # of an earlier, smaller run
            names = [name for name in list(source.digests)[worker::workers] if name in missing]
            total = sum(len(missing[name]) for name in names)
            with tqdm(total=total, unit="map", disable=not progress or worker > 0) as bar:
                for name in names:
                    _measure(source, name, missing[name], config, folder, file, bar)
            _merge(folder, config, source, file)
    finally:
        torch.set_num_threads(previous[0])
        cudnn.deterministic, cudnn.benchmark = previous[1:]
    return folder


def _missing(folder: Path, config: Config, lines: dict, names: Iterable[str]) -> dict:
    """Return the pictures with rows that are not measured yet, and these rows."""

    def is_complete(picture: str, row: str) -> bool:
        line = lines.get((picture, row))
        return line is not None and line.get("map") == _map_digest(folder, config, picture, row)

    rows = {name: [row for row in config.rows if not is_complete(name, row)] for name in names}
    return {name: missing for name, missing in rows.items() if missing}


def finished(folder: Path) -> bool:
    """Say whether all pictures of the last run are measured or named as skipped."""
    return (folder / "results.csv").exists()


def _measure(source, picture: str, rows: list, config: Config, folder: Path, file, bar) -> None:
    """Measure one picture under these rows, and write a line for each."""
    started = time.perf_counter()
    named = {"picture": picture, "sha256": source.digests[picture]}
    try:
        loaded = source.load(picture)
    except (OSError, ValueError) as error:
        file.add({**named, "row": store.SKIPPED, "note": str(error)})
        tqdm.write(f"skipped: {picture}: {error}")
        bar.total -= len(rows)
        bar.refresh()
        return
    if config.kind == "maps":
        pixels = source.model.denormalize(loaded.x)[0].permute(1, 2, 0)
        _save_map(map_path(folder, picture), (255 * pixels).round().byte())
    for row in rows:
        case = source.case(loaded, row)
        line = {**named, "row": row, "target": loaded.target, "score": loaded.score}
        try:
            line |= compute_measures(case, config.measures)
            if config.kind == "maps":
                _save_map(map_path(folder, picture, row), case.heatmap[0].float())
        except (NotImplementedError, ValueError) as error:  # no rule for this network, no map
            map_path(folder, picture, row).unlink(missing_ok=True)  # of the file before this one
            line["note"] = str(error)
        line["map"] = _map_digest(folder, config, picture, row)
        now = time.perf_counter()
        file.add({**line, "seconds": f"{now - started:.2f}"})
        started = now
        bar.update()


def map_path(folder: Path, picture: str, row: str | None = None) -> Path:
    """Return where a picture's heatmap under a row is stored, or the picture itself."""
    names = [picture] if row is None else [picture, row]
    safe = "".join(c if c.isascii() and c.isalnum() else "_" for c in "-".join(names))
    return folder / "maps" / f"{safe[:60]}-{seed_of(0, *names):016x}.npy"


def _save_map(path: Path, values: torch.Tensor) -> None:
    """Write an array for the figures of maps."""
    buffer = io.BytesIO()
    np.save(buffer, values.detach().cpu().numpy())
    path.parent.mkdir(exist_ok=True)
    store.write_file(path, buffer.getvalue())


def _map_digest(folder: Path, config: Config, picture: str, row: str) -> str | None:
    """Return the digest of what a figure of maps draws of a picture and a row: both files."""
    if config.kind != "maps":
        return None
    paths = map_path(folder, picture), map_path(folder, picture, row)
    return store.digest(path.read_bytes() for path in paths if path.exists())


def _merge(folder: Path, config: Config, source, file) -> None:
    """Write results.csv and skipped.csv if all is measured; every worker writes the same bytes."""
    lines, left_out = file.read_lines(source.digests), dict(source.skipped)
    for name in source.digests:
        whole = all((name, row) in lines for row in config.rows)
        if (name, store.SKIPPED) in lines and not whole:
            left_out[name] = lines[name, store.SKIPPED]["note"]
    kept = [name for name in source.digests if name not in left_out]
    wanted = [(name, row) for name in kept for row in config.rows]
    if all(key in lines for key in wanted):
        reasons = [{"picture": n, "reason": r} for n, r in sorted(left_out.items())]
        store.write_file(folder / "skipped.csv", store.csv_text(["picture", "reason"], reasons))
        text = store.csv_text(file.columns[:-1], [lines[key] for key in wanted])  # without times
        store.write_file(folder / "results.csv", text)


def _columns(config: Config) -> list[str]:
    """Return the columns of a run's own; ValueError for a measure that there is not."""
    for column in config.measures:
        function_of(column)
    points = POINTS if config.kind == "curves" else {}
    curve_points = [p for column in config.measures for p in points.get(column, [])]
    searched = any(row["method"] == SEARCH for row in config.rows.values())
    found = ["sigma", "evaluations"] if searched else []
    maps = ["map"] if config.kind == "maps" else []
    return [*config.measures, *curve_points, *found, *maps]


def _folder(config: Config, model: str) -> str:
    """Return the name of a run's folder."""
    parts = [config.name, model.replace("/", "_")]
    parts += [p for p in (config.effort, config.conventions) if p not in ("full", "paper")]
    return "-".join(parts)


def _record(config: Config, model: str, images, device, options: dict) -> dict:
    """Return the options of a run: enough to repeat it."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "table": config.name,
        **{k: getattr(config, k) for k in ("source", "effort", "conventions", "rows", "settings")},
        "measures": list(config.measures),
        "model": model,
        "images": str(Path(images)),
        **options,
        "device": device.type,
        "machine": gpu or _processor(),
        "torch": torch.__version__,
        "versions": {p: metadata.version(p) for p in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _processor() -> str:
    """Name the processor and its vector instructions."""
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _commit() -> str:
    """Return the commit of the package's checkout, with + if a file of it differs; or unknown."""
    here = Path(__file__)
    flags = dict(cwd=here.parents[1], capture_output=True, text=True, timeout=20, check=True)
    try:
        subprocess.run(["git", "ls-files", "--error-unmatch", str(here)], **flags)
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **flags).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "."], **flags).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _worker_number() -> tuple[int, int]:
    """Return the number of this worker, and how many there are."""
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ValueError(
            f"RANK: expected a number from 0 to WORLD_SIZE - 1, got {rank!r} of {size!r}"
        )
    return int(rank), int(size)


def _device(given: str | None) -> torch.device:
    """Return the device asked for, or a GPU if there is one, a different one for each worker."""
    try:
        device = torch.device(given or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and device.index is None:
            index = int(os.environ.get("LOCAL_RANK", 0)) % max(torch.cuda.device_count(), 1)
            device = torch.device("cuda", index)
        torch.zeros((), device=device).item()  # a meta device has no values
        return device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {given!r} cannot be used here: {error}") from error
