"""RES-3: results expire without beat."""

from __future__ import annotations

from broker_profiles.comparison.scenario import TooLate, case
from broker_profiles.comparison.stage import Stage

GUARANTEE = "RES-3"

#: How long results are kept here, and how much later they have to be gone, in seconds.
_KEPT, _GRACE = 3, 2.0


@case("a result is there before it expires, and gone after", quick=True)
def expires(stage: Stage) -> None:
    """Read one result in time; read it and another, by other processes too, when both have expired."""
    stage.expire_results(_KEPT)
    stage.workers.start()
    early, late = stage.client, stage.another_client()
    late.sent("note")  # connects, for what comes next must not take long
    (read,) = early.sent("add", 1, 2, 3)
    (unread,) = late.sent("add", 1, 2, 3)
    found = early.result(read, _KEPT - 1)
    if found[0] == "PENDING":  # a worker that needs longer has had no chance to show it
        raise TooLate(f"no result to read within {_KEPT - 1} s")
    stage.require(found == ("SUCCESS", 5), f"a result of 5 was read as {found[0]} before it expired")
    stage.wait_for([unread], 10)
    stage.pause(_KEPT + _GRACE)
    for reader, id_ in ((late, unread), (stage.another_client(), read), (stage.another_client(), unread)):
        state, value = reader.result(id_, 0.5)
        stage.require(state == "PENDING", f"a result that had expired was read as {state} {value}")
