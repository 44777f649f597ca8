"""Imported by every Python that the tests start."""

import offline

offline.refuse_network()
