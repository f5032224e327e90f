"""What stands out in a data check: the judgement that pages and the command line print."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

# The largest class has this many times as many images as the smallest.
_IMBALANCE = 10
_KEEP_APART = "train with data.exclude on a clean list (--write-clean list.csv), or keep related images together with data.group"


class Finding(NamedTuple):
    """Something to act on, with its evidence and one action."""

    severity: Literal["error", "warning", "info"]
    title: str
    evidence: str
    advice: str


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def findings(found: Mapping[str, Any]) -> list[Finding]:
    """Return what stands out in a data check's JSON values, the gravest first."""
    n = {key: value["count"] for key, value in found.items() if isinstance(value, dict) and "count" in value}
    first = found["unreadable"]["first"][0] if n["unreadable"] else {"id": "", "reason": ""}

    def first_id(key: str) -> str:
        return str(found[key]["first"][0]["id"]) if found[key]["first"] else ""

    table = [
        (n["leaks"], "error", "Leak between splits",
         f"{_count(n['leaks'], 'pair')} of the same or nearly the same image in different splits", _KEEP_APART),
        (n["conflicts"], "error", "Conflicting labels",
         f"{_count(n['conflicts'], 'pair')} of duplicates with different labels", "correct them, or train with data.corrections"),
        (n["unreadable"], "warning", "Unreadable images",
         f"{_count(n['unreadable'], 'image')} cannot be read, the first is {first['id']} ({first['reason']})",
         "re-save or remove them; training skips them automatically"),
        (n["label_suspects"], "warning", "Suspected labels",
         f"{_count(n['label_suspects'], 'label')} probably wrong ({100 * n['label_suspects'] / found['n']:.1f} % of all)",
         "review them, the least plausible first, and train with data.corrections"),
        (n["blank"], "warning", "Blank images",
         f"{_count(n['blank'], 'image')} of nearly one colour, the first is {first_id('blank')}",
         "look at them: empty scans, or files whose range or transparency was lost; leave them out with data.exclude"),
        (n["identical"], "warning", "Identical files",
         f"{_count(n['identical'], 'image')} found more than once", "keep one of each"),
        (found["imbalance"] >= _IMBALANCE, "warning", "Imbalanced classes",
         f"the largest class has {found['imbalance']:.0f} times as many images as the smallest",
         "judge by macro metrics; add images of the small classes"),
        (n["unended"], "info", "JPEG files without an end",
         f"{_count(n['unended'], 'file')} without the marker of their end, the first is {first_id('unended')}",
         "nothing needs to be done: their pixels are whole"),
        (len(found["left_out"]), "info", "Files left out",
         "; ".join(
             f"{_count(part['count'], 'file')} left out ({part['reason']}), the first is {part['first']}"
             for part in found["left_out"][:5]
         ),
         "nothing needs to be done, unless they are images of yours"),
        (n["wrong_extensions"], "info", "Wrong extensions",
         f"{_count(n['wrong_extensions'], 'file')} with an extension that does not match the content",
         "rename them; they are read all the same"),
    ]  # fmt: skip
    return [Finding(severity, *texts) for there, severity, *texts in table if there]  # type: ignore[arg-type]
