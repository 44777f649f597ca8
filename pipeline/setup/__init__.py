"""The first five minutes: what a folder of pictures asks for, and what this machine has.

    plan = planning.plan(source, survey, backbone, cores=2)
    params_file.write(plan, force=False)

Derives every value of params.yaml from the data, with its reason; checks a project from its
weights to its ports.
"""
