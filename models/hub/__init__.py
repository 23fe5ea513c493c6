"""Inference-free sparse encoders in the layouts that are published: read, checked and made a checkpoint of ours.

Only data is read: safetensors and JSON. No pickle is opened and no code of a repository is run or fetched.
"""
