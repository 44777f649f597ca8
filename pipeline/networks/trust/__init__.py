"""What a model file holds beside its network, to tell how far an answer can be relied on.

    judge = Judge(reference.read(path), classes=10, unknown=0.05, coverage=0.9)
    judge(outputs).known

Knows nothing of training: fine-tuning gives it what the network says of the pictures at hand.
"""
