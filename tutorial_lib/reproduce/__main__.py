"""The command line: `python -m tutorial_lib.reproduce goh-table1 --images bundled --limit 2`."""

import argparse
import signal
import sys
from pathlib import Path

from tutorial_lib.reproduce import drawings, store, tables, verdicts
from tutorial_lib.reproduce.config import EFFORTS, list_configs, load_config
from tutorial_lib.reproduce.cost import passes
from tutorial_lib.reproduce.runner import finished, run


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command's arguments."""
    cli = argparse.ArgumentParser(
        prog="python -m tutorial_lib.reproduce",
        description="Measure a table or draw a figure of the papers, on your network and pictures.",
        epilog="More workers: torchrun --nproc-per-node 8 -m tutorial_lib.reproduce NAME ... "
        "Start the same command again after an interrupt: what is done is kept.",
    )
    cli.add_argument("name", nargs="?", help="; ".join(list_configs()) + "; or a .toml file")
    cli.add_argument("--model", help="see list_models (default: efficientnet_lite0; digits: mlp)")
    cli.add_argument("--images", default="bundled", help="a folder, or bundled (default)")
    cli.add_argument("--limit", type=_positive, help="take the first so many pictures, by name")
    cli.add_argument("--spread", action="store_true", help="take them evenly, not the first")
    cli.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    cli.add_argument("--out", type=Path, default=Path("results"), help="default: results/")
    cli.add_argument("--effort", choices=EFFORTS, default="full", help="how many draws")
    cli.add_argument("--quick", action="store_true", help="few draws, to see that it works")
    cli.add_argument(
        "--program", action="store_true", help="as the authors' programs compute, where they differ"
    )
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--batch-size", type=_positive, help="gradients a pass (4, on a GPU 50)")
    cli.add_argument("--threads", type=_positive, default=1, help="of a worker on a CPU (1)")
    cli.add_argument("--cost", action="store_true", help="only say what it costs, in passes")
    return cli


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status: 0 done, 1 stopped by an error, 130 interrupted."""
    chosen = parser().parse_args(arguments)
    if chosen.name is None:
        for name in list_configs():
            config = load_config(name)
            print(f"{name:18} {config.source}: {config.title}")
        return 0
    effort = "quick" if chosen.quick else chosen.effort
    conventions = "program" if chosen.program else "paper"
    try:
        config = load_config(chosen.name, effort=effort, conventions=conventions)
        if chosen.cost:
            print(passes(config).to_string())
            return 0
        names = "model images limit spread device out seed batch_size threads".split()
        options = {name: getattr(chosen, name) for name in names}
        folder = run(chosen.name, effort=effort, conventions=conventions, **options)
        if finished(folder):
            report(folder, config)
        else:
            print(f"{folder}: this worker is done, others are not; the last one makes the table")
    except KeyboardInterrupt:
        print("\ninterrupted; what is done is kept: the same command goes on", file=sys.stderr)
        return 130
    except (OSError, ValueError, ImportError) as error:
        print(f"stopped: {error}", file=sys.stderr)
        if isinstance(error, OSError) and error.errno:  # a full disk, a lost connection
            print("what is done is kept; then the same command goes on", file=sys.stderr)
        return 1
    return 0


def report(folder: Path, config) -> None:
    """Print the table and the verdicts, and keep both, with the figures, beside the results."""
    results = tables.read(folder)
    if results.empty:
        print(f"no picture could be read, see {folder / 'skipped.csv'}")
        return
    count = f"{results.picture.nunique()} pictures, mean +- standard error"
    count += "" if config.effort == "full" else f"; {config.effort}: large counts cut down"
    closed = "in closed form: no picture enters, and no network"
    head = f"{config.source}: {config.title}\n{closed if config.kind == 'bells' else count}"
    text = [head, "", tables.text(results, config)] if config.measures else [head]
    if config.claims:
        text += ["", "the paper's claims, on these pictures (95 % intervals, paired):"]
        text += [_line(v) for v in verdicts.claims(results, config).to_dict("records")]
    notes = results.note.dropna()
    if len(notes):
        text += ["", f"{len(notes)} of {len(results)} lines lack a number; first: {notes.iloc[0]}"]
    store.write_file(folder / "table.txt", "\n".join(text) + "\n")
    print("\n".join(text))
    skipped = (folder / "skipped.csv").read_text("utf-8").splitlines()[1:]
    if skipped:
        print(f"\n{len(skipped)} pictures left out, see skipped.csv: {skipped[0]} ...")
    paths = drawings.draw(folder, results, config)
    print("\nin", folder, "-", ", ".join(["results.csv", "table.txt", *(p.name for p in paths)]))


def _line(verdict: dict) -> str:
    """Write the verdict on one claim, and what it rests on."""
    line = "- {claim}: {verdict}".format(**verdict)
    if verdict["n"] > 1:
        line += " ({measure} {difference:+.3g}, {low:+.3g} to {high:+.3g}".format(**verdict)
        line += ", detectable {detectable:.2g}".format(**verdict)
        line += ", margin {margin:.2g})".format(**verdict) if verdict["margin"] > 0 else ")"
    return line + (f"; in print: {verdict['printed']}" if verdict["printed"] else "")


def _positive(text: str) -> int:
    """Read a number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def _interrupt(number: int, frame: object) -> None:
    """Turn a signal into KeyboardInterrupt."""
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # how SLURM says that the time is up
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know ASCII alone
    sys.exit(main())
