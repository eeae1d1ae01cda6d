"""Trains super-resolution networks on a dataset folder (TensorFlow, tf.distribute)."""
