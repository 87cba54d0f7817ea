"""The measuring itself: everybody in turn, round after round.

Within a round every case is measured for every contestant before the next case comes, and every
round begins with another contestant. Whatever disturbs the machine for a while thus meets all of
them, and each sample has neighbours of the same minute to be compared with. Server and client are
started anew for every sample: memory layout and hash seeds are drawn again each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import attrs

from benchmarks import children
from benchmarks.cases import Case, Measure
from benchmarks.catalogue import Ready, Times
from benchmarks.placement import Cores

WARM_UP_SHARE = 0.3
"""How long the load runs before it counts, as a share of the time measured."""


@attrs.frozen
class Series:
    """What one contestant did in one case, by one measure.

    Attributes:
        samples: A figure in the measure's unit for each round.
        notes: What its clients said of them.
    """

    case: Case
    measure: Measure
    contestant: str
    ours: bool
    samples: list[float] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return median(self.samples)

    def ratio_to(self, other: Series) -> float | None:
        """How many times better than `other` this is: the median over the rounds of each round's own.

        None where that says nothing.
        """
        pairs = list(zip(self.samples, other.samples, strict=True))
        if self.measure.less_is_better:
            pairs = [(theirs, mine) for mine, theirs in pairs]
        if not self.measure.compared or not all(below > 0 for _, below in pairs):
            return None
        return median(above / below for above, below in pairs)


Progress = Callable[[int, Case, str], None]
"""Told of the round, the case and the contestant about to be measured."""


def measure(
    cases: Sequence[tuple[Case, Cores]],
    field: Sequence[Ready],
    rounds: int,
    seconds: float,
    progress: Progress,
) -> list[Series]:
    """Measure every case with each of its family's contestants, `rounds` times.

    Raises:
        MeasurementFailed: A server or client failed, or an answer was wrong.
    """
    table = {
        (case, measure, ready.contestant): Series(case, measure, ready.contestant.name, ready.contestant.ours)
        for case, _ in cases
        for measure in case.measures
        for ready in field
        if case.family in ready.contestant.families
    }
    for number in range(rounds):
        for case, cores in cases:
            family = [ready for ready in field if case.family in ready.contestant.families]
            for ready in _turned(family, number):
                progress(number, case, ready.contestant.name)
                reading = _sample(ready, case, cores, seconds)
                for measure in case.measures:
                    series = table[case, measure, ready.contestant]
                    series.samples.append(reading.values[measure.key] * measure.scale)
                    series.notes.extend(note for note in reading.notes if note not in series.notes)
    return list(table.values())


def _sample(ready: Ready, case: Case, cores: Cores, seconds: float) -> children.Reading:
    warm_up = WARM_UP_SHARE * seconds
    length = warm_up + seconds
    times = Times(warm_up, seconds, int(length + children.START_SECONDS + 2 * case.spare))
    with children.server(ready.server_command(times.lifetime), cores.server) as running:
        client = ready.client_command(case, running, times)
        return children.measure(client, cores.client, length + case.spare)


def _turned(field: list[Ready], by: int) -> list[Ready]:
    first = by % len(field) if field else 0
    return field[first:] + field[:first]
