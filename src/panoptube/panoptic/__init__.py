"""Tensors -> map and ids: assembly, tracker, file formats."""
