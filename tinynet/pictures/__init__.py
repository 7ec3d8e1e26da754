"""How the pictures of `tinynet.plots` are drawn. Importing a module of this package imports matplotlib."""
