"""From the results of a run to a page with tables and plots; it measures nothing."""
