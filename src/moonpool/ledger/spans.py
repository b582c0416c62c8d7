"""The hours, days and months that money is counted in. Days and months are those of Beijing (UTC+8, no summer time),
where the prices are made (contract 6): one zone for budgets, sums and statements, so that no moment counts twice.

All times are Unix seconds; a span is named by its first second.
"""

from __future__ import annotations

import datetime
from typing import Final

HOUR_S: Final = 3600
DAY_S: Final = 86_400
ZONE: Final = datetime.timezone(datetime.timedelta(hours=8))
_OFFSET_S: Final = 8 * HOUR_S


def hour_of(at: float) -> int:
    return int(at // HOUR_S) * HOUR_S


def day_of(at: float) -> int:
    return int((at + _OFFSET_S) // DAY_S) * DAY_S - _OFFSET_S


def month_of(at: float) -> int:
    day = datetime.datetime.fromtimestamp(day_of(at), ZONE)
    return int(day.replace(day=1).timestamp())
