"""The library inside other systems, each module a leaf with an extra of its own: import the one that you use."""
