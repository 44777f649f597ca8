"""Work spread over several machines by Ray, whose results are those of one machine.

    >>> from pipeline.cluster.connection import Config
    >>> Config().on  # unless cluster.address names a cluster
    False

`make` is called once in each worker and gives what each task is done by. The driver alone writes.
"""
