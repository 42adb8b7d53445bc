"""The text that Prometheus reads: every family with its kind, bins that add up."""

from __future__ import annotations

from keepmap.serving.metrics import BUCKETS, FAMILIES, Metrics


def test_text() -> None:
    metrics = Metrics()
    metrics.count("keepmap_requests_total", status="200")
    metrics.count("keepmap_requests_total", 2, status="429")
    metrics.level("keepmap_queue", lambda: 3)
    for seconds in (0.001, 0.01, 0.3, 1e9):
        metrics.observe("keepmap_step_seconds", seconds, step="decode")
    lines = metrics.text().splitlines()
    assert {f"# TYPE {name} {family.kind}" for name, family in FAMILIES.items()} <= set(lines)
    assert 'keepmap_requests_total{status="429"} 2' in lines and "keepmap_queue 3" in lines
    bins = [int(line.split()[1]) for line in lines if line.startswith("keepmap_step_seconds_bucket")]
    assert len(bins) == len(BUCKETS) + 1 and bins == sorted(bins) and bins[0] == 2 and bins[-1] == 4
    assert 'keepmap_step_seconds_count{step="decode"} 4' in lines
