"""The two experiments on one operator, and what they are said to have done."""

import pytest
import torch
from support.handmade import INF, NAN, Function, Small, hooks_of

from repro.probes.observe.watch import Address
from repro.probes.origin.counterfactual import effect, finite_or_none, kin_of, value_at, with_only, without_bad_values


def address(op, occurrence=0, module="", call=0):
    return Address(module, call, f"aten.{op}", occurrence)


def run_of(function, tensor):
    model = Function(function)
    return model, lambda: model(tensor)


def value(function, tensor, where, output=0, index=(0,), shape=(1,)):
    """The value in a second pass, by what the operator is known by in the first."""
    model, run = run_of(function, tensor)
    kin = kin_of(model, run, where)
    return None if kin is None else value_at(model, run, kin, output, shape, index)


def test_the_value_of_an_operator():
    assert value(lambda x: x * 2 * 3 + 1, torch.tensor([5.0]), address("mul.Tensor", 1)) == 30.0


def test_a_bad_value_is_given_as_it_is():
    assert value(lambda x: x / 0, torch.tensor([1.0]), address("div.Tensor")) == INF


def test_one_of_several_results():
    given = torch.tensor([3.0, 9.0, 1.0])
    assert value(lambda x: x.max(0, keepdim=True), given, address("max.dim"), 1) == 1.0
    assert value(lambda x: torch._foreach_neg([x, x * 2])[1], given, address("neg.default"), 1, (0,), (3,)) is None
    assert (
        value(lambda x: torch._foreach_neg([x, x * 2])[1], given, address("_foreach_neg.default"), 1, (0,), (3,))
        == -6.0
    )


@pytest.mark.parametrize(
    ("where", "output", "shape"),
    [(address("sub.Tensor"), 0, (1,)), (address("mul.Tensor", 1), 0, (1,)), (address("mul.Tensor"), 1, (1,)),
     (address("mul.Tensor"), 0, (2,)), (address("mul.Tensor"), 0, (1, 1))],
)  # fmt: skip
def test_what_is_not_there_has_no_value(where, output, shape):
    assert value(lambda x: x * 2, torch.tensor([5.0]), where, output, tuple(0 for _ in shape), shape) is None


class Casts(Small):
    """In float16 the casts run; in float32 they do not, and the count of each operator is another one."""

    def __init__(self):
        super().__init__()
        self.dtype = torch.float16

    def forward(self, x):
        wide = x.to(self.dtype).float() * 3
        first = wide.to(self.dtype) * 5
        return first * (first > 0).to(self.dtype) * 7


def in_both(op, occurrence):
    """The value of one operator in float16, and at the same place in float32."""
    model, given = Casts(), torch.tensor([2.0])
    kin = kin_of(model, lambda: model(given), address(op, occurrence))
    narrow = value_at(model, lambda: model(given), kin, 0, (1,), (0,))
    model.dtype = torch.float32
    return narrow, value_at(model, lambda: model(given), kin, 0, (1,), (0,))


def test_what_a_cast_is_given_stands_for_it():
    """wide.to(float16) does not run in float32; the product that it casts does."""
    model, given = Casts(), torch.tensor([2.0])
    kin = kin_of(model, lambda: model(given), address("_to_copy.default", 2), through_casts=True)
    model.dtype = torch.float32
    assert (kin.op, value_at(model, lambda: model(given), kin, 0, (1,), (0,))) == ("aten.mul.Tensor", 6.0)


def test_the_same_place_where_casts_run_in_one_dtype_only():
    assert in_both("mul.Tensor", 1) == (30.0, 30.0)
    assert in_both("mul.Tensor", 3) == (210.0, 210.0)


def test_a_cast_that_does_not_run_has_no_same_place():
    """(first > 0).to(float32) is the one cast of booleans there, and another one than wide.to(float16)."""
    assert in_both("_to_copy.default", 2) == (6.0, None)
    assert in_both("_to_copy.default", 3) == (1.0, 1.0)


def test_the_rest_of_the_pass_does_not_run():
    ran = []

    def function(x):
        y = x * 2
        ran.append("before")
        z = y + 1
        ran.append("after")
        return z

    assert value(function, torch.tensor([5.0]), address("add.Tensor")) == 11.0
    assert ran == ["before", "before"]  # two passes: one to know the operator, one to find it


# --- repaired ----------------------------------------------------------------------------------------------------


def repaired(function, tensor, where):
    model, run = run_of(function, tensor)
    output = without_bad_values(model, run, where)
    assert hooks_of(model) == [0]
    return None if output is None else output.tolist()


def test_bad_values_become_zero_on_the_spot():
    assert repaired(lambda x: 1 / x + 1, torch.tensor([0.0, 4.0]), address("reciprocal.default")) == [1.0, 1.25]


def test_only_the_operator_itself_is_repaired():
    found = repaired(lambda x: torch.log(x) + 1 / x, torch.tensor([0.0]), address("log.default"))
    assert found == [INF]


def test_only_that_call_is_repaired():
    found = repaired(lambda x: torch.log(x) + torch.log(x - 1), torch.tensor([1.0]), address("log.default", 0))
    assert found == [-INF]


def test_an_operator_in_place_is_repaired():
    assert repaired(lambda x: (x * 1).div_(0).add_(1), torch.tensor([2.0]), address("div_.Tensor")) == [1.0]


def test_an_operator_that_never_ran():
    assert repaired(lambda x: x + 1, torch.tensor([2.0]), address("mul.Tensor")) is None


# --- alone -------------------------------------------------------------------------------------------------------


def alone(function, tensor, where):
    model, run = run_of(function, tensor)
    output = with_only(model, run, where)
    return None if output is None else output.tolist()


def twice(x):
    return torch.cat([x / 0, x * 3e38 * 2])


def test_one_of_two_births_is_left_alone():
    given = torch.tensor([1.0])
    assert alone(twice, given, address("div.Tensor")) == [INF, 0.0]
    assert alone(twice, given, address("mul.Tensor", 1)) == [0.0, INF]


def test_what_follows_from_it_is_left_alone():
    assert str(alone(lambda x: (x / 0) - (x / 0), torch.tensor([1.0]), address("div.Tensor", 0))) == "[inf]"


def test_a_mask_is_left_alone():
    found = alone(lambda x: (x + torch.full((2,), -INF)) + x / 0, torch.tensor([1.0, 2.0]), address("mul.Tensor"))
    assert found is None
    kept = alone(lambda x: x * 1 + torch.full((2,), -INF), torch.tensor([1.0, 2.0]), address("mul.Tensor"))
    assert kept == [-INF, -INF]


def test_a_nan_made_of_a_mask_is_repaired():
    def function(x):
        return torch.full((2,), -INF).softmax(0) + x * 1

    assert alone(function, torch.tensor([1.0, 2.0]), address("mul.Tensor")) == [1.0, 2.0]


# --- the effect --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ([NAN, 1.0], [0.0, 1.0], "repaired"),
        ([NAN, 1.0], [NAN, 5.0], "unchanged"),
        ([NAN, 1.0], [INF, 5.0], "unchanged"),
        ([NAN, NAN], [0.0, NAN], "changed"),
        ([NAN, 1.0], [1.0, NAN], "changed"),
    ],
)
def test_the_effect(before, after, word):
    assert effect(torch.tensor(before), torch.tensor(after)) == word


def test_no_output_or_another_shape_is_no_effect():
    assert effect(torch.tensor([NAN]), None) == "unchanged"
    assert effect(torch.tensor([NAN]), torch.zeros(2)) == "unchanged"


def test_a_value_that_is_no_number_is_no_reference():
    assert (finite_or_none(None), finite_or_none(NAN), finite_or_none(1.5)) == (None, None, 1.5)
