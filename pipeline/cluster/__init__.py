"""Distribute work over several machines with Ray, with the results of one machine.

    >>> from pipeline.cluster.connection import Config
    >>> Config().on  # unless cluster.address names a cluster
    False

`make` is called once in each worker and returns the function for its tasks. Only the driver writes.
"""
