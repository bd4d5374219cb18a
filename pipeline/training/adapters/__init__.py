"""Adapters of latent diffusion models by kind and rank, and the tiny model that exercises them without a GPU."""
