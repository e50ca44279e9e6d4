"""Write the addresses of _config.yml where other programs look for them.

    python tools/addresses.py           write them
    python tools/addresses.py --check   say whether they are there

They are repository.url and html.baseurl. CITATION.cff gets them as repository-code and url,
pyproject.toml as [project.urls].
"""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CFF_AFTER = "license: MIT\n"
URLS_BEFORE = "\n[tool.setuptools.packages.find]\n"


def addresses(config: str) -> tuple[str, str]:
    """The repository and the site, from the text of _config.yml; "" where one is not set."""
    loaded = yaml.safe_load(config)
    repository = (loaded.get("repository") or {}).get("url") or ""
    return repository.rstrip("/").removesuffix(".git"), (loaded.get("html") or {}).get(
        "baseurl"
    ) or ""


def citation(text: str, repository: str, site: str) -> str:
    """CITATION.cff with the two addresses."""
    text = re.sub(r"^(repository-code|url): .*\n", "", text, flags=re.MULTILINE)
    lines = {"repository-code": repository, "url": site}
    return text.replace(
        CFF_AFTER,
        CFF_AFTER + "".join(f'{key}: "{value}"\n' for key, value in lines.items() if value),
        1,
    )


def project(text: str, repository: str, site: str) -> str:
    """pyproject.toml with the two addresses."""
    text = re.sub(r"\n\[project\.urls\]\n(?:.+\n)*", "", text)
    lines = {"Documentation": site, "Repository": repository}
    table = "".join(f'{key} = "{value}"\n' for key, value in lines.items() if value)
    table = f"\n[project.urls]\n{table}" if table else ""
    return text.replace(URLS_BEFORE, table + URLS_BEFORE, 1)


def main(check: bool = False) -> int:
    """Write the files, or only compare; return how many are not as they should be."""
    both = addresses((ROOT / "_config.yml").read_text("utf-8"))
    wrong = 0
    for name, write in (("CITATION.cff", citation), ("pyproject.toml", project)):
        path = ROOT / name
        old = path.read_text("utf-8")
        new = write(old, *both)
        if new != old and check:
            wrong += 1
            print(f"{name}: other addresses than _config.yml; run: python tools/addresses.py")
        elif new != old:
            path.write_text(new, "utf-8")
            print(f"{name}: written")
    return wrong


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
