"""The flows: one file each, its claim in the module's docstring, checks as assertions."""
