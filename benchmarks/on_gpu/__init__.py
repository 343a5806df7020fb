"""Parts of `gpu_speed.py`: cases and ways as data, the ways themselves, their process, shares of kernels."""
