"""From a candidate to the champion: the gate, the registry, and the lease that orders promotions.

promotion.promote(config, dry_run=True)
"""
