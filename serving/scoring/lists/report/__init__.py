"""The churn report: one HTML file for people, which needs no network and no other file."""
