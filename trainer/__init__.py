"""Trains super-resolution networks on a dataset folder (TensorFlow, tf.distribute)."""

import os

# TensorFlow's C++ side greets with a page about CUDA; what matters reaches Python as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
