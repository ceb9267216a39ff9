"""`python -m gpu_pool.agent`: one machine's workers, for a daemon on another machine."""
