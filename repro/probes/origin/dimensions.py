"""Which token, head and channel an element of an operator's result belongs to, by experiment.

The pass is run again with other inputs. A dimension that is as long as the input is, in both, belongs to the tokens;
one that doubles with a second example to the batch. That the places of such a dimension are the tokens in their order
is asked too: with another token at the place, the result changes most there. What no run shows has no name.
"""

from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..model.inputs import Inputs
from ..model.kinds.facts import Facts
from ..model.kinds.marks import reserved
from ..observe.watch import OpCall
from ..values.figures import digest, finite_mask, is_float, tensors_in, widen
from .passes import Passes, Place
from .places import find_place, of_tokens

TOKEN, KEY, ROW, BATCH, HEAD, CHANNEL, AXIS = "token", "key", "row", "batch", "head", "channel", "axis"
FAR = 3.0  # times what the own row changes


def locate(model: nn.Module, inputs: Inputs, place: Optional[Place]) -> dict[str, Any]:
    """token_index, token, head_index and channel_index of an element, and its place where that is none of a text; None
    for what no experiment shows.
    """
    unknown: dict[str, Any] = dict.fromkeys(("token_index", "token", "head_index", "channel_index", "place"))
    if place is None or not place.shape:
        return unknown
    part, names, found = meanings(model, inputs, place)
    at = {name: number for name, number in zip(names, place.index) if name is not None}
    token = at.get(TOKEN)
    if found is None and part is not None and token is not None:
        found = of_tokens(model, part, inputs, token, place.shape[names.index(TOKEN)])
    words = inputs.decoder_tokens if part == "decoder_input_ids" else inputs.tokens if part == "input_ids" else None
    return {
        "token_index": token,
        "token": (words[token] or None) if words and token is not None and token < len(words) else None,
        "head_index": at.get(HEAD),
        "channel_index": at.get(CHANNEL),
        "place": found,
    }


def meanings(
    model: nn.Module, inputs: Inputs, place: Place
) -> tuple[Optional[str], list[Optional[str]], Optional[dict[str, Any]]]:
    """The input whose places are the tokens, what each dimension of the place's shape is, and the place in an input
    that is no text; None where not known.
    """
    names: list[Optional[str]] = [None] * len(place.shape)
    passes = _Lengths(model, inputs, place)
    of = None
    for part, dim in passes.sequences():
        along = passes.along(part, dim)
        if along:
            of = part
            names[along[0]] = TOKEN
            for other in along[1:2]:
                names[other] = KEY
            break
    for at in passes.examples():
        if names[at] is None:
            names[at] = BATCH
    if of is not None and not passes.is_in_order(of, names.index(TOKEN)):
        names = [ROW if name in (TOKEN, KEY) else name for name in names]  # sorted, or chosen: which token is not known
    found = find_place(model, inputs, place) if of is None and inputs.further else None
    for dim in () if found is None else found[1]:
        names[dim] = AXIS
    if of is None and found is None and not _is_vector_of_channels(model, place, names):
        return None, names, None
    config = _config(model)
    heads = head_count(config)
    fit = [at for at, name in enumerate(names) if name is None and place.shape[at] == heads and heads > 1]
    if len(fit) == 1 and (of is not None or found is not None) and fit[0] != len(names) - 1:
        names[fit[0]] = HEAD
    rest = [at for at, name in enumerate(names) if name is None and place.shape[at] > 1]
    if rest and (rest[-1] == len(names) - 1 or len(rest) == 1):
        names[rest[-1]] = CHANNEL
    return of, names, None if found is None else found[0]


class _Lengths(Passes):
    """What dimensions follow the inputs in."""

    def sequences(self) -> list[tuple[str, int]]:
        """(input, dimension) of what may be the tokens: the second dimension of ids, and of features."""
        found = []
        for name, value in self.given().items():
            if isinstance(value, Tensor) and value.dim() in (2, 3) and value.shape[1] > 2 and not _is_beside(name):
                found.append((name, 1))
                if value.dim() == 3 and is_float(value) and value.shape[2] > 2:
                    found.append((name, 2))
        return found

    def along(self, part: str, dim: int) -> list[int]:
        """The dimensions of the result that are as long as this one, also without its last place."""
        size = self.given()[part].shape[dim]
        cut = self.result(self._without_last(part, dim, size))
        return self._dimensions(cut, lambda before, after: (before, after) == (size, size - 1))

    def examples(self) -> list[int]:
        """The dimensions of the result that are one for one example, and two for the same example twice."""
        twice = {
            name: torch.cat([value, value]) if isinstance(value, Tensor) and value.shape[:1] == (1,) else value
            for name, value in self.given().items()
        }
        return self._dimensions(self.result(twice), lambda before, after: (before, after) == (1, 2))

    def is_in_order(self, part: str, dim: int) -> bool:
        """Whether the places along ``dim`` are the tokens in their order: a change of the input at one place is seen in
        the result at the same place (the last, the middle, and the element's own), or, where all of it changes, which
        place is which does not hang on what the tokens are.

        A row that is bad throughout cannot tell; then the next one is asked. Nor can the first of a model that looks
        back only: whatever changes there is seen in all rows.
        """
        before = self.result(self.given())
        if before is None:
            return False
        own, size = self.place.index[dim], before.shape[dim]
        plain = [row for row in range(size) if not self._is_marked(part, row)] or [size - 1]
        rows = [row for row in plain if bool(finite_mask(before.select(dim, row)).any())] or plain[-1:]
        nearest = min(rows, key=lambda row: abs(row - own))
        answers = set()
        for row in {nearest or rows[-1], rows[len(rows) // 2], rows[-1]}:
            after = self.result(self._changed(part, row))
            if after is None or before.shape != after.shape:
                return False
            answers.add(_is_this_row(before, after, dim, row))
        return False not in answers and (answers == {True} or self._is_by_position(part, rows[-1]))

    def _is_by_position(self, part: str, row: int) -> bool:
        """Whether no operator before this one reads or gives other whole numbers once a token is another one. What is
        sorted, routed or picked by content is so by whole numbers.
        """
        both = [self._routes(given) for given in (self.given(), self._changed(part, row))]
        return both[0] is not None and both[0] == both[1]

    def _routes(self, given: dict[str, Any]) -> Optional[list[str]]:
        """Digests of the whole numbers that go into and come out of operators with floating ones; of the inputs' own
        none.
        """
        own = {id(tensor) for tensor in tensors_in(given)}
        memory = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(given)}
        found: list[str] = []

        def note(call: OpCall, result: Any) -> None:
            tensors = list(tensors_in((call.args, call.kwargs, result)))
            if any(map(is_float, tensors)):
                whole = [t for t in tensors if not is_float(t) and t.dtype != torch.bool and id(t) not in own]
                kept = [t for t in whole if t.untyped_storage().data_ptr() not in memory]
                found.extend(f"{call.address.op} {digest(t)}" for t in kept)

        return None if self.result(given, note) is None else found

    def _without_last(self, part: str, dim: int, size: int) -> dict[str, Any]:
        """Without the last place of one input, and of those that go with it, place by place."""
        given = self.given()
        whole = given[part].shape[: dim + 1]
        ties = [
            name
            for name, value in given.items()
            if isinstance(value, Tensor) and value.shape[: dim + 1] == whole and _go_together(name, part)
        ]
        return {
            name: value.narrow(dim, 0, size - 1) if name in ties and isinstance(value, Tensor) else value
            for name, value in given.items()
        }

    def _changed(self, part: str, at: int) -> dict[str, Any]:
        """With another token, or other features, at one place."""
        given = dict(self.given())
        value = given[part].clone()
        place = value[:, at]
        if is_float(value):
            place.copy_(place * -0.5)
        else:
            marks = sorted(self._marks())
            pool = torch.unique(value)  # ids that the model takes
            pool = pool[~torch.isin(pool, torch.tensor(marks, dtype=pool.dtype, device=pool.device))]
            pool = pool[pool != place[0]]
            fresh = int(pool[0]) if len(pool) else max(int(place[0]) - 1, 0) or int(place[0]) + 1
            place.fill_(fresh)
        given[part] = value
        return given

    def _marks(self) -> set[int]:
        """Ids that stand for a picture or a sound: as many of them as there are, and no other, may be in the prompt."""
        return reserved(Facts(self.model))

    def _is_marked(self, part: str, row: int) -> bool:
        ids = self.inputs.input_ids
        if part != "input_ids" or ids is None or ids.dim() != 2 or row >= ids.shape[1]:
            return False
        return int(ids[0, row]) in self._marks()

    def _dimensions(self, other: Optional[Tensor], fits: Callable[[int, int], bool]) -> list[int]:
        if other is None or other.dim() != len(self.place.shape):
            return []
        pairs = enumerate(zip(self.place.shape, other.shape))
        return [at for at, (before, after) in pairs if fits(before, after)]


def _is_this_row(before: Tensor, after: Tensor, dim: int, at: int) -> Optional[bool]:
    """Whether a change of the input at ``at`` is seen in this row: it changes and no row before it does, as in a model
    that looks back only; or more of its elements change than of any other, or as many, and those by more in all, each
    by its own size. True where nothing changes. False where a row before it changes by far more. None: not to be told.
    """
    one, two = (widen(tensor).cpu().movedim(dim, 0).reshape(tensor.shape[dim], -1) for tensor in (before, after))
    same = (one == two) | (torch.isnan(one) & torch.isnan(two))
    parts = ((one - two) / (one.abs() + two.abs())).abs().nan_to_num(nan=1.0)
    sizes = torch.where(same, torch.zeros_like(parts), parts).double().sum(1)
    rows = list(zip((~same).sum(1).tolist(), sizes.tolist()))
    changed = [place for place, row in enumerate(rows) if row[0]]
    others = max((row for place, row in enumerate(rows) if place != at), default=(0, 0.0))
    if not changed or (at > 0 and changed[0] == at) or rows[at] > others:
        return True
    return False if max((size for _, size in rows[:at]), default=0.0) > FAR * rows[at][1] else None


def _is_beside(name: str) -> bool:
    """Whether an input only says something of another."""
    return name.endswith(("mask", "_thw", "_sizes", "token_type_ids"))


def _go_together(name: str, part: str) -> bool:
    """Whether two inputs of the same length are of the same tokens: both the decoder's, or neither."""
    return name.startswith("decoder") == part.startswith("decoder")


def _is_vector_of_channels(model: nn.Module, place: Place, names: list[Optional[str]]) -> bool:
    """Whether the last dimension is the hidden size and does not change with the inputs: a vector of channels, or rows
    that were chosen.
    """
    hidden = getattr(_config(model), "hidden_size", None)
    return len(place.shape) <= 2 and place.shape[-1] == hidden and names[-1] is None


def _config(model: Any) -> Any:
    config = getattr(model, "config", None)
    return getattr(config, "text_config", None) or config


def head_count(config: Any) -> int:
    """Attention heads, under the three names that configurations have for them; 0 where there is none."""
    for name in ("num_attention_heads", "n_head", "num_heads"):
        count = getattr(config, name, None)
        if isinstance(count, int):
            return count
    return 0
