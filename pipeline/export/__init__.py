"""The formats of other runtimes, and whether a network in one of them agrees with Keras.

FORMATS["onnx"].write(source, path)
"""
