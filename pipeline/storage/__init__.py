"""Bytes on disk: folders that are locked, written aside and renamed last; digests; tables.

    with outputs.replacing(outputs.ROOT / "prepare") as aside: ...

Also arrays larger than memory and the work folder. Knows nothing of pictures or networks.
"""
