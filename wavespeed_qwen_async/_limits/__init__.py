"""The parts of `limits`: places in line, window and pace, learning, pause; `gate` puts them on the clock."""
