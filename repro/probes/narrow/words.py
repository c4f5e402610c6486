"""The forecast in one sentence."""

from typing import Any

from .forecast import OVERFLOWS, RANGES, WRONG


def sentence(payload: dict[str, Any]) -> str:
    """What would overflow in float16 or bfloat16; where neither does, how far float16 is from it."""
    rows = [row for row in payload["dtypes"] if row["dtype"] in RANGES]
    bad = [row for row in rows if row["verdict"] in (OVERFLOWS, WRONG)]
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
    size, limit = "{:,.6g}".format(first["absmax"]), "{:,.6g}".format(row["limit"])
    text = f"{text}: {what}{size} against {limit}, {first['ratio']:.2f} of the limit"
    if row["verdict"] == WRONG:
        text += f"; the output would be finite and wrong, {row['apart']:.3g} away (RMSE) where rounding makes "
        text += f"{row['noise']:.3g}"
    return text


def _sound(row: dict[str, Any]) -> str:
    largest, text = row["largest"], "nothing would overflow in {}".format(row["dtype"])
    if row["absorbed"]:
        text = "nothing bad would follow in {} from the {} that go beyond it".format(
            row["dtype"], "operator" if row["absorbed"] == 1 else "{} operators".format(row["absorbed"])
        ).replace("operator that go", "operator that goes")
        text += "; of the others"
    if largest is None or not largest["ratio"]:
        return text.replace("; of the others", "")
    size, module = "{:,.6g}".format(largest["absmax"]), largest["module"] or "the model itself"
    mark = "," if row["absorbed"] else ":"
    return f"{text}{mark} the largest magnitude is {size} in {module}, the limit is {largest['ratio']:,.3g} times that"
