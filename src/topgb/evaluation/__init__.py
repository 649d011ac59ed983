"""Model file and records to figures: metrics, scoring, prediction, the report."""
