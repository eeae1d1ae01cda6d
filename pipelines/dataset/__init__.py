"""What lies on disk: names, records, tables, the lease."""
