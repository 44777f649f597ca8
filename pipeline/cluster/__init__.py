"""Work spread over several machines by Ray, whose results are those of one machine.

    for outputs in pool.ordered(config.cluster, make, tasks, threads=2): ...

`make` is called once in each worker and gives what each task is done by. The driver alone writes.
"""
