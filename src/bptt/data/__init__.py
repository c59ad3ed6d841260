"""What a network learns from: text, series, and synthetic tasks with a known lag."""

from bptt.data.series import Series, read_series
from bptt.data.stream import Stream, split
from bptt.data.tasks import TASKS, Task, adding, copy, copy_recall, echo, make_task, parity, temporal_order
from bptt.data.text import Text, read_text
from bptt.data.words import join_words, split_words

__all__ = [
    "TASKS",
    "Series",
    "Stream",
    "Task",
    "Text",
    "adding",
    "copy",
    "copy_recall",
    "echo",
    "join_words",
    "make_task",
    "parity",
    "read_series",
    "read_text",
    "split",
    "split_words",
    "temporal_order",
]
