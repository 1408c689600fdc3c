"""The pages that people look at in a browser: what is served, how good it is, any sample of it."""
