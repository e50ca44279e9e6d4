"""The papers' tables and figures from one command: `python -m tutorial_lib.reproduce NAME`.

`configs/` says what each table measures, one small file each. `runner.py` measures picture by
picture; `rows.py` and `cases.py` make the maps and `measures.py` the numbers; `store.py` keeps
the results; `tables.py` and `drawings.py` show it; `verdicts.py` and `orders.py` compare it with
what the papers claim and print.
"""

from tutorial_lib import checks

# Its tables and drawings need these throughout, so they are asked for once, before its modules.
checks.extra("matplotlib", "all")
checks.extra("pandas", "all")
checks.extra("scipy", "all")

from tutorial_lib.reproduce.config import Config, list_configs, load_config  # noqa: E402
from tutorial_lib.reproduce.orders import rank_agreement  # noqa: E402
from tutorial_lib.reproduce.runner import run  # noqa: E402
from tutorial_lib.reproduce.tables import beside, differences, summary, text  # noqa: E402
from tutorial_lib.reproduce.verdicts import claims  # noqa: E402

__all__ = [
    "Config",
    "beside",
    "claims",
    "differences",
    "list_configs",
    "load_config",
    "rank_agreement",
    "run",
    "summary",
    "text",
]
