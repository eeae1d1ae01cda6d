"""From a list of picture URLs to a super-resolution dataset of TFRecords (Apache Beam)."""

__version__ = "0.2.0"
