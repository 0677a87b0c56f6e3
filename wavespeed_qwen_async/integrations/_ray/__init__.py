"""The parts of ``integrations.ray``: all but ``actors`` work without Ray, on any event loop."""
