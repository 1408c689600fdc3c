"""``kdtrain compare``: the same student with several methods and seeds, as one table and one picture."""
