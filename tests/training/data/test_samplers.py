"""Batches: all frames in turn, a share of old structures is kept, and nothing depends on where a run was cut."""

import pytest

pytest.importorskip("schnetpack")
from training.data.samplers import EpochSampler, MixedSampler  # noqa: E402


def epochs(sampler, n):
    found = []
    for epoch in range(n):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    return found


@pytest.mark.parametrize(("share", "batch"), [(0.25, 4), (0.25, 2), (0.3, 10), (0.5, 3), (0.01, 4)])
@pytest.mark.parametrize("steps", [None, 7])
def test_share_of_each_batch(share, batch, steps):
    sampler = MixedSampler((20, 9), share, batch, 5, steps)
    order = [i for epoch in epochs(sampler, 40) for i in epoch]
    batches = [order[k : k + batch] for k in range(0, len(order), batch)]
    old = [sum(i >= 20 for i in one) for one in batches]
    assert {int(share * batch), -int(-share * batch // 1)} >= set(old)
    assert abs(sum(old) - share * len(order)) <= 1
    # Pass after pass: every frame comes as often as any other, to one.
    for frames in (range(20), range(20, 29)):
        times = [order.count(i) for i in frames]
        assert max(times) - min(times) <= 1


def test_a_later_epoch_is_the_same_by_itself():
    whole = epochs(MixedSampler((20, 9), 0.3, 4, 5, 6), 5)
    later = MixedSampler((20, 9), 0.3, 4, 5, 6)
    later.set_epoch(3)
    assert list(later) == whole[3]


def test_the_new_frames_come_as_they_would_alone():
    mixed = [i for epoch in epochs(MixedSampler((20, 9), 0.5, 4, 5), 4) for i in epoch if i < 20]
    alone = [i for epoch in epochs(EpochSampler(20, 5), 4) for i in epoch]
    assert mixed == alone[: len(mixed)]


@pytest.mark.parametrize(("size", "length"), [(10, 4), (10, 10), (10, 25), (7, 3), (3, 8)])
def test_epochs_of_any_length_run_through_all_frames(size, length):
    sampler = EpochSampler(size, 5, length)
    order = []
    for epoch in range(3 * size):
        sampler.set_epoch(epoch)
        part = list(sampler)
        assert len(part) == len(sampler) == length
        order += part
    passes = [order[k : k + size] for k in range(0, len(order), size)]
    assert all(sorted(one) == list(range(size)) for one in passes)
    assert passes[0] != passes[1]
    # The same frames in the same order as epochs of one pass, and from any epoch on.
    whole = EpochSampler(size, 5)
    for k, one in enumerate(passes):
        whole.set_epoch(k)
        assert list(whole) == one
    later = EpochSampler(size, 5, length)
    later.set_epoch(7)
    assert list(later) == order[7 * length : 8 * length]
