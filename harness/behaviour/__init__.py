"""What a model does with heads ablated: the texts it writes, beside those of the whole model."""
