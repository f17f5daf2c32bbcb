"""The table of what was measured, in Markdown."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict

from .measurements import Sizes
from .systems import SYSTEMS
from .targets import FIGURES, FREE, PINNED, TARGETS, Medians

#: What was measured in each round, by figure, system and mode.
Results = dict[tuple[str, str, str], list[float]]


def table(results: Results, sizes: Sizes) -> Iterator[str]:
    """Yield the lines of the table: a row for each figure and system."""
    modes = {"pinned to one core": PINNED, "free": FREE}
    measured = {mode for _figure, _name, mode in results}
    modes = {title: mode for title, mode in modes.items() if mode in measured}
    has_targets = any((target.figure, target.system, FREE) in results for target in TARGETS)
    heading = ("target", "met") if has_targets else ()
    yield f"| {' | '.join(('measured', 'system', *modes, *heading))} |"
    yield f"|---|---|{'---:|' * len(modes)}{'---|' * len(heading)}"
    written = ""
    for figure, (title, digits) in FIGURES.items():
        for name, system in SYSTEMS.items():
            cells = [_cell(results.get((figure, name, mode)), digits) for mode in modes.values()]
            if any(cells):
                what = "" if title == written else title.format(**asdict(sizes))
                which = system.title.format(**asdict(sizes))
                verdict = _verdict(results, figure, name) if has_targets else ()
                yield f"| {' | '.join((what, which, *cells, *verdict))} |"
                written = title


def _cell(rounds: list[float] | None, digits: int) -> str:
    """Write the median and the extremes."""
    if not rounds:
        return ""
    median, least, most = (f"{x:,.{digits}f}" for x in (statistics.median(rounds), min(rounds), max(rounds)))
    return median if len(rounds) == 1 else f"**{median}** ({least}..{most})"


def _verdict(results: Results, figure: str, system: str) -> tuple[str, str]:
    """Write the targets of a figure of a system, and which of them are met."""
    wanted, met = [], []
    for target in TARGETS:
        if (target.figure, target.system) == (figure, system):
            modes = [mode for mode in target.modes if (figure, system, mode) in results]
            verdicts = {mode: _is_met(results, target.is_met, mode) for mode in modes}
            wanted.append(target.wanted)
            met.append(_in_words(verdicts))
    return "; ".join(wanted), "; ".join(met)


def _is_met(results: Results, test: Callable[[Medians], bool], mode: str) -> bool | None:
    """Tell whether a target is met in a mode; None if what it is compared with was not measured."""
    try:
        return test(lambda figure, system: statistics.median(results[figure, system, mode]))
    except KeyError:
        return None


def _in_words(verdicts: dict[str, bool | None]) -> str:
    known = {mode: met for mode, met in verdicts.items() if met is not None}
    missed = [mode for mode, met in known.items() if not met]
    if not missed:
        return "yes" if known else ""
    return "**no**" if len(missed) == len(known) else f"**no** ({', '.join(missed)})"
