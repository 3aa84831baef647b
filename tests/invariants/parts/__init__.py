"""Parts of parameters, as ranks hold them."""
