"""From a trained model to a folder that anyone can load."""
