"""Every value that is written to disk, as a typed frozen record; loads no torch.

Times are milliseconds.
"""
