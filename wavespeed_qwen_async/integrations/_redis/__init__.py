"""The parts of `redis`: `permits` and `places` of one process, what it asks (`exchange`, in Lua), and when (`link`)."""
