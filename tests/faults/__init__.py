"""Test the service's promises under faults on real processes, each beside the loss that the protection prevents.

README.md explains the results.
"""
