"""Something that the sweeper does in each of its passes, whatever becomes of its other duties."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from services.errors import SparsewellError
from services.telemetry.metrics import SWEEPER_LAST, SWEEPER_PASSES, SWEPT

log = logging.getLogger(__name__)


@dataclass
class Duty:
    """`name` is what it does ("sweeping"), `done` what its counts are of. Trouble is reported once, and its end."""

    name: str
    done: str
    act: Callable[[], Counter[str]]
    _trouble: str | None = None

    @property
    def _label(self) -> str:
        return self.name.replace(" ", "_")

    def perform(self) -> None:
        """Acts once. Raises nothing: the next pass begins afresh."""
        try:
            counts = self.act()
        except SparsewellError as error:
            SWEEPER_PASSES.labels(self._label, error.code).inc()
            if error.code != self._trouble:
                log.warning("not %s: %s", self.name, error)
            self._trouble = error.code
        except Exception:
            # Whatever it is, a sweeper that has ended helps nobody.
            SWEEPER_PASSES.labels(self._label, "unexpected").inc()
            if self._trouble != "unexpected":
                log.exception("not %s: unexpected error", self.name)
            self._trouble = "unexpected"
        else:
            if self._trouble is not None:
                log.info("%s again", self.name)
            self._trouble = None
            SWEEPER_PASSES.labels(self._label, "done").inc()
            SWEEPER_LAST.labels(self._label).set_to_current_time()
            for outcome, count in counts.items():
                SWEPT.labels(self._label, outcome).inc(count)
            if counts:
                log.info("%s: %s", self.done, ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
