"""The forecast in one sentence."""

from typing import Any

from .forecast import OVERFLOWS, RANGES


def sentence(payload: dict[str, Any]) -> str:
    """What would overflow in float16 or bfloat16; where neither does, how far float16 is from it."""
    rows = [row for row in payload["dtypes"] if row["dtype"] in RANGES]
    bad = [row for row in rows if row["verdict"] == OVERFLOWS]
    if bad:
        return "; ".join(map(_overflow, bad))
    return "; ".join(map(_sound, rows[:1])) if rows else "no narrower dtype is known here"


def _overflow(row: dict[str, Any]) -> str:
    first = row["first"]
    if first is None or row["weights"]:
        return "in {} the weight {} would overflow".format(row["dtype"], row["weights"][0])
    text = "would overflow in {} in {}, {}".format(row["dtype"], first["module"] or "the model itself", first["op"])
    if first.get("source"):
        text += " ({})".format(first["source"])
    if first.get("token_index") is not None:
        text += ", token {}".format(first["token_index"])
        text += " {!r}".format(first["token"]) if first.get("token") is not None else ""
    if first.get("channel_index") is not None:
        text += ", channel {}".format(first["channel_index"])
    what = "a partial sum of " if first["partial_sum"] else ""
    return text + ": {}{:,.6g} against {:,.6g}, {:.2f} of the limit".format(what, first["absmax"], row["limit"], first["ratio"])


def _sound(row: dict[str, Any]) -> str:
    largest = row["largest"]
    if largest is None or not largest["ratio"]:
        return "nothing would overflow in {}".format(row["dtype"])
    return "nothing would overflow in {}: the largest magnitude is {:,.6g} in {}, the limit is {:.3g} times that".format(
        row["dtype"], largest["absmax"], largest["module"] or "the model itself", largest["ratio"]
    )
