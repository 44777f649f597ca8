"""Export formats of other runtimes, and the check that each export agrees with Keras.

>>> from pipeline.export.formats import FORMATS
>>> sorted(FORMATS)
['onnx', 'saved_model', 'tflite', 'tflite_int8']
"""
