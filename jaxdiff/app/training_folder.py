"""The folder of a training inside a run folder: its settings, checkpoints, metrics and pictures."""

import contextlib
import json
import pathlib
import shutil
from typing import Any

from jaxdiff.app.run_folder import RunError, read_json
from jaxdiff.files import UNREADABLE, brief, write_json
from jaxdiff.training.checkpoints import Checkpoints
from jaxdiff.training.resume import first_difference

FOLDER, METRICS = "training", "metrics.jsonl"


class TrainingFolder:
    """RUN/training/, with settings.json, checkpoints/ and pictures; and RUN/metrics.jsonl.

    Args:
      run: the run folder.
      settings: what decides the bits of the training, as JSON data. A resumed training has the same.
    """

    def __init__(self, run: pathlib.Path, settings: dict[str, Any]) -> None:
        """Nothing is read or written yet."""
        self.run, self.settings = pathlib.Path(run), settings
        self.folder, self.metrics = self.run / FOLDER, self.run / METRICS

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Raise RunError where a run would be replaced or mixed with another one.

        That is the case if there is a run, and neither it is to be resumed nor overwritten; or if it is to be resumed
        and was started with other settings.
        """
        there = self._settings_there()
        has_model = (self.run / "model.json").exists()
        if overwrite or (there is None and not has_model):
            return
        if not resume:
            state = "a run" if has_model else "a training that has not ended"
            go_on = "" if there is None else "go on with it by --resume, "
            raise RunError(
                f"{self.run} holds {state}: {go_on}replace it by --overwrite, or choose another folder with --out."
            )
        if there is None:
            raise RunError(
                f"{self.run} holds a run of an earlier version, which cannot be resumed: replace it by --overwrite, or "
                f"choose another folder with --out."
            )
        if difference := first_difference(there, self.settings):
            raise RunError(
                f"{self.run} was trained with other settings: {difference}. Give the same arguments to resume, replace "
                f"the run by --overwrite, or choose another folder with --out."
            )

    def _settings_there(self):
        """The settings of the training in the folder; None if there is none."""
        path = self.folder / "settings.json"
        if not path.exists():
            return None
        try:
            return read_json(path)
        except (OSError, *UNREADABLE) as error:
            raise RunError(
                f"{path} is damaged ({brief(error).rstrip('.')}): replace the run by --overwrite, or choose another "
                f"folder with --out."
            ) from error

    def is_finished(self) -> bool:
        """Whether the run in the folder is the end of a training with these settings."""
        try:
            record = read_json(self.run / "model.json")
            return record.get("stopped_at") is None and record["settings"] == self.settings
        except (OSError, KeyError, AttributeError, *UNREADABLE):
            return False

    def start(self, *, resume: bool) -> Checkpoints:
        """Write the settings, and return the checkpoints: those that are there to resume, otherwise none.

        The model of an older run stays until the new one is written. Its training is removed.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        if not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.metrics.unlink(missing_ok=True)
        self.folder.mkdir(exist_ok=True)
        write_json(self.folder / "settings.json", self.settings)
        checkpoints = Checkpoints(self.folder / "checkpoints")
        self._cut_metrics(max(checkpoints.steps(), default=0))
        return checkpoints

    def forget(self) -> None:
        """Remove the folder of a training that saved and measured nothing, as one whose arguments were refused."""
        if not any((self.folder / "checkpoints").glob("step_*")) and not self.metrics.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # the run folder holds other files
                self.run.rmdir()

    def _cut_metrics(self, step):
        """Remove lines of steps beyond the checkpoint, which will be measured again, and a line that was cut off."""
        if self.metrics.exists():
            kept = [json.dumps(row) + "\n" for row in read_metrics(self.run) if row["step"] <= step]
            self.metrics.write_text("".join(kept), encoding="utf-8")

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl. Numbers that are not finite become null."""
        finite = {name: value if abs(value) < float("inf") else None for name, value in row.items()}
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite) + "\n")


def read_metrics(run: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; an incomplete last line is left out. No lines if there is no file."""
    path, rows = pathlib.Path(run) / METRICS, []
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"step", "train_loss"} <= row.keys():
            rows.append(row)
    return rows
