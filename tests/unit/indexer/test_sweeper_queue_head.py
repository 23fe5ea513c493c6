"""The sweeper distinguishes a waiting message from a lost message."""

from hypothesis import given
from hypothesis import strategies as st

from indexer.sweeper import QueueHead

LEASE = 100_000
GRANTED = LEASE // 4


def watched(*looks: tuple[int, int | None]) -> QueueHead:
    head = QueueHead(LEASE / 1000)
    for now, oldest in looks:
        head.record(now, oldest)
    return head


def test_nothing_is_overdue_before_a_whole_lease_was_watched() -> None:
    head = watched((1_000_000, None))
    assert head.overdue_before(1_000_000 + LEASE - 1) is None
    assert head.overdue_before(1_000_000 + LEASE) is not None


def test_with_an_empty_queue_every_lease_that_has_ended_is_overdue() -> None:
    head = watched(*((now, None) for now in range(0, 500_000, 10_000)))
    assert head.overdue_before(490_000) == 490_000 - GRANTED


def test_a_long_backlog_is_never_overdue() -> None:
    # No worker runs, so for an hour the head of the queue is a message from the beginning.
    head = watched(*((now, 5_000) for now in range(10_000, 3_600_000, 10_000)))
    bound = head.overdue_before(3_590_000)
    assert bound is not None
    lease_of_a_later_one = 6_000 + LEASE
    lease_of_the_head_itself = 5_000 - 200 + LEASE  # its journal entry precedes its message
    assert bound < lease_of_the_head_itself < lease_of_a_later_one


def test_what_the_queue_has_passed_is_overdue_one_lease_later() -> None:
    head = watched((0, 0), *((now, 50_000) for now in range(60_000, 160_000, 10_000)))
    assert head.overdue_before(150_000) == LEASE - GRANTED  # one lease ago, the head had time 0
    head.record(160_000, 50_000)
    assert head.overdue_before(160_000) == 50_000 + LEASE - GRANTED


def test_after_a_gap_the_last_look_before_it_counts() -> None:
    head = watched((0, None), (100_000, None), (900_000, None))
    assert head.overdue_before(900_000) == 100_000 + LEASE - GRANTED


@given(
    st.lists(
        st.tuples(st.integers(1, 40_000), st.one_of(st.none(), st.integers(0, 2_000_000))), min_size=1, max_size=60
    )
)
def test_never_beyond_now_and_never_beyond_the_head_of_a_lease_ago(looks: list[tuple[int, int | None]]) -> None:
    head, now, seen = QueueHead(LEASE / 1000), 0, []
    for step, oldest in looks:
        now += step
        head.record(now, oldest)
        seen.append((now, now if oldest is None else min(oldest, now)))
    bound = head.overdue_before(now)
    old_enough = [at for at in seen if now - at[0] >= LEASE]
    if not old_enough:
        assert bound is None
    else:
        assert bound == min(now, old_enough[-1][1] + LEASE - GRANTED)
