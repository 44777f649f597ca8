"""The formats of other runtimes, and whether a network in one of them agrees with Keras.

>>> from pipeline.export.formats import FORMATS
>>> sorted(FORMATS)
['onnx', 'saved_model', 'tflite', 'tflite_int8']
"""
