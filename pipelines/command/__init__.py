"""What every command shares, the trainer's and evaluation's as well."""
