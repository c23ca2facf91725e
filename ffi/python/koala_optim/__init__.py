"""The optimizer step of KOALA++ for PyTorch, JAX and NumPy."""
