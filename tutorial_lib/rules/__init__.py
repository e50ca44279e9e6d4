"""Backward rules that are not the gradient's: DeepLIFT, LRP, guided backpropagation, on a tape."""
