"""A copy of the notebooks to write in: the kit's own stay as they are, so that a newer kit can be fetched."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from allkit import ROOT, AllkitError, saving
from allkit.duplicates import file_sum
from allkit.folders import read_json, save_json

_RECORD = ".copied.json"  # name of a notebook -> sum of the one that was copied


def copy_notebooks(folder: Path = ROOT / "my-notebooks", source: Path = ROOT / "notebooks") -> dict[str, str]:
    """Copy the notebooks into a folder where they can be edited; return what was done with each that is not as before.

    A copy that was edited is never replaced: where the kit's notebook has changed since, the new one comes beside it,
    as NN_name-new.ipynb. One that was not edited is replaced by the newer one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record_file = folder / _RECORD
    record = {}
    with contextlib.suppress(AllkitError):  # none yet, or damaged: then every copy counts as edited
        record = read_json(record_file)
    done = {}
    for notebook in sorted(source.glob("[0-9][0-9]_*.ipynb")):
        copy, now = folder / notebook.name, file_sum(notebook)
        if not copy.is_file():
            done[notebook.name] = "copied"
        elif record.get(notebook.name) == now:
            continue
        elif file_sum(copy) == record.get(notebook.name):
            done[notebook.name] = "replaced by a newer one"
        else:
            copy = copy.with_name(f"{notebook.stem}-new.ipynb")
            done[notebook.name] = f"kept as you edited it; the newer one is {copy.name}"
        with saving(copy) as temporary:
            shutil.copyfile(notebook, temporary)
        record[notebook.name] = now
    save_json(record_file, record)
    return done
