"""Content consumption and dwell time."""

from __future__ import annotations

from features.compute.algebra import Condition, Feature

CONTENT = (Condition("content_id", "!=", ""),)

# fmt: off
FEATURES = (
    Feature("content_events_28d", "events", "count", where=CONTENT, window_days=28, unit="events", description="events with content in the last 28 days"),
    Feature("content_event_share_91d", "events", "share", where=CONTENT, window_days=91, unit="0..1", description="share of the events of the last 91 days that are with content"),
    Feature("contents_distinct_91d", "events", "distinct", "content_id", window_days=91, unit="contents", description="different contents in the last 91 days"),
    Feature("content_seconds_91d", "events", "sum", "duration_seconds", where=CONTENT, window_days=91, unit="s", description="time spent on content in the last 91 days"),
    Feature("top_topic_91d", "events", "top", "topic", window_days=91, over="duration_seconds", default="", description="topic of the longest dwell time in the last 91 days"),
    Feature("top_topic_share_91d", "events", "top_share", "topic", window_days=91, over="duration_seconds", unit="0..1", description="its share of the dwell time on topics in the last 91 days"),
    Feature("topic_seconds_91d", "events", "sum", "duration_seconds", where=(Condition("topic", "!=", ""),), window_days=91, unit="s", description="dwell time on contents that have a topic, last 91 days"),
    Feature("topic_entropy_91d", "events", "entropy", "topic", window_days=91, unit="nats", description="spread of the contents of the last 91 days over the topics"),
    Feature("top_read_topic_91d", "events", "top", "topic", window_days=91, default="", description="topic met most often in the last 91 days"),
    Feature("first_topic", "events", "first", "topic", default="", description="topic of the first content"),
)
# fmt: on
