"""Networks of export_delf in the form of ONNX, for faster runtimes than TensorFlow; run without TensorFlow.

Only the network is converted (`convert`, which needs TensorFlow). Resizing to the scales of the pyramid, the
choice of features and their reduction are computed here by NumPy (`pyramid`).
"""
