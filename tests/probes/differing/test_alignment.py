"""Which part of one way's tensor stands for which of the other's."""

import pytest
import torch

from repro.probes.differing.held.alignment import Region, cut

DECODED = Region((5, 6), 1, 11, (0, 1), 1, 1, 0, (0, 6), 6)
"""The token 5 of 11, decoded by itself behind five others."""
PADDED = Region((0, 5), 1, 5, (6, 11), 2, 11, 1, (6, 11), 11)
"""Five tokens, in a batch of two padded on the left to 11."""


def common(this, other, region):
    found = cut(tuple(this.shape), tuple(other.shape), region)
    return None if found is None else (found.of_this(this), found.of_other(other))


def test_without_a_region_shapes_must_be_equal():
    assert cut((2, 3), (2, 3), None) is not None
    assert cut((2, 3), (3, 2), None) is None
    assert cut((2, 3), (2, 3, 1), None) is None


def test_a_decoded_token_is_its_own_row():
    this, other = torch.arange(11 * 4).reshape(1, 11, 4), torch.zeros(1, 1, 4, dtype=torch.long)
    ours, theirs = common(this, other, DECODED)
    assert torch.equal(ours, this[:, 5:6])
    assert torch.equal(theirs, other)


def test_a_mask_of_a_decoded_token_ends_with_its_cache():
    this, other = torch.arange(121).reshape(1, 1, 11, 11), torch.zeros(1, 1, 1, 6, dtype=torch.long)
    ours, _ = common(this, other, DECODED)
    assert torch.equal(ours, this[:, :, 5:6, :6])


def test_an_example_of_a_batch_is_its_row_without_the_padding():
    this, other = torch.zeros(1, 5, 4), torch.arange(2 * 11 * 4).reshape(2, 11, 4)
    ours, theirs = common(this, other, PADDED)
    assert ours.shape == (1, 5, 4)
    assert torch.equal(theirs, other[1:2, 6:])


def test_a_mask_of_a_batch_is_cut_in_both_directions():
    this, other = torch.zeros(1, 1, 5, 5), torch.arange(2 * 121).reshape(2, 1, 11, 11)
    assert torch.equal(common(this, other, PADDED)[1], other[1:2, :, 6:, 6:])


@pytest.mark.parametrize(("this", "other"), [((5, 4), (1, 4)), ((1, 4), (1, 4)), ((1, 7, 4), (1, 1, 4))])
def test_rows_without_an_example_or_without_tokens_are_not_compared(this, other):
    assert cut(this, other, DECODED) is None


def test_figures_of_rows_are_cut_as_their_tensor_but_for_the_last_dimension():
    found = cut((1, 1, 11, 11), (1, 1, 1, 6), DECODED)
    rows = torch.arange(11).reshape(1, 1, 11, 1)
    assert found.of_this(rows).tolist() == [[[[5]]]]
