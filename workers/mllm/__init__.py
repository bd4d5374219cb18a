"""The mllm stage and its worker."""
