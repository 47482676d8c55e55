"""Speed, latency and cost of the columns, at equal guarantees.

Every number of a run has its loss and duplicate verdict beside it, the columns take turns round by round,
and only columns that promise the same are ranked against each other.
"""

from broker_profiles.comparison.load.plan import FULL, QUICK, Depth, measure_columns
from broker_profiles.comparison.load.rows import Row, ranking

__all__ = ["FULL", "QUICK", "Depth", "Row", "measure_columns", "ranking"]
