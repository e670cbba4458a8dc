"""What the compilers of TPUs and NVIDIA GPUs say of training steps, ours beside plain JAX."""
