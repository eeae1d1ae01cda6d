"""A finished dataset, looked at: every byte checked, and a page of it."""
