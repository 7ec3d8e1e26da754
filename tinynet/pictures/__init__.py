"""The drawing code of `tinynet.plots`. Importing a module of this package imports matplotlib."""
