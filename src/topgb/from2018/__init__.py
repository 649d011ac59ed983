"""TensorFlow checkpoints of the 2018 system to model files, without TensorFlow."""
