"""Pictures of the boards without a Grafana: ``python -m dashboards.pictures``.

A Prometheus answers the queries, and Chromium shows them with those parts of Grafana
that are published by themselves, for lines, numbers, tables, units and colours. They
are installed by npm into a folder of their own, outside of the repository.
"""
